"""A node whose answers a test writes: JSON-RPC over HTTP and WebSocket on one real socket each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import WSMsgType, web

__all__ = ["Refusal", "ScriptedNode", "scripted_node"]


class Refusal(Exception):
    """Makes a method answer with an error object."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message, "data": data}


Method = Callable[..., Any]


class ScriptedNode:
    """Answers from `methods`; `raw` replaces the whole body of the next answers instead."""

    def __init__(self) -> None:
        self.methods: dict[str, Method] = {}
        self.raw: list[tuple[int, bytes]] = []
        self.takes_batches = True
        self.is_silent = False
        self.requests: list[list[str]] = []
        self.port = 0
        self.sockets: list[web.WebSocketResponse] = []
        self.was_asked = asyncio.Event()

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}/v2/a-very-secret-key"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    def _one(self, request: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": request["id"]}
        method = self.methods.get(request["method"])
        if method is None:
            return {**answer, "error": {"code": -32601, "message": "the method does not exist"}}
        try:
            return {**answer, "result": method(*request["params"])}
        except Refusal as refusal:
            return {**answer, "error": refusal.error}

    def answer(self, body: Any) -> Any:
        """Return the answer to a request or a batch, in another order than it was asked."""
        requests = body if isinstance(body, list) else [body]
        self.requests.append([request["method"] for request in requests])
        self.was_asked.set()
        if isinstance(body, dict):
            return self._one(body)
        if not self.takes_batches:
            return {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "batches are not supported"}}
        return [self._one(request) for request in reversed(body)]

    async def serve_http(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        answer = self.answer(body)
        if self.is_silent:
            await asyncio.Event().wait()
        if self.raw:
            status, data = self.raw.pop(0)
            return web.Response(status=status, body=data)
        return web.json_response(answer)

    async def serve_ws(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                answer = self.answer(json.loads(message.data))
                if not self.is_silent:
                    await socket.send_str(json.dumps(answer))
        return socket

    async def hang_up(self) -> None:
        """Close all sockets."""
        for socket in self.sockets:
            await socket.close()
        self.sockets.clear()


@asynccontextmanager
async def scripted_node() -> AsyncIterator[ScriptedNode]:
    """Serve a node on a free port."""
    node = ScriptedNode()
    app = web.Application()
    app.add_routes([web.post("/v2/a-very-secret-key", node.serve_http), web.get("/ws", node.serve_ws)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    node.port = runner.addresses[0][1]
    try:
        yield node
    finally:
        await node.hang_up()
        await runner.cleanup()
