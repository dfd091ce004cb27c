"""The door to the demo's node, and its clock: one change of the chain at a time, nothing is read meanwhile.

anvil 1.7.1 alone does not keep that order. A reorganisation that meets interval mining leaves a canonical
block without a parent, or a block whose effects are gone (about 1 in 100 at two blocks a second), and a call
pinned to the newest block is answered from the one that is just being mined. Nobody who follows such a chain
can be right about it. So the node mines when it is told to, and everyone who wants something of it, the
server as well as the curious with `anvil_reorg`, comes through here.
Frozen, stopped or restarted behind it, the node shows through: requests wait, sockets close.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import orjson
import structlog
from aiohttp import WSMsgType, web

from .node import AnvilNode, PortInUse
from .ports import LOOPBACK, is_port_free
from .turnstile import Turnstile

__all__ = ["Gate"]

_log = structlog.get_logger(__name__)

# Everything in these namespaces mines, rewrites history or edits state.
_CHANGES: Final = ("anvil_", "evm_", "hardhat_")
_SUBSCRIPTIONS: Final = frozenset({"eth_subscribe", "eth_unsubscribe"})
_MAX_BODY: Final = 64 * 1024 * 1024
# A node that was killed may be started again behind us.
_RETRY_S: Final = 0.2
_JSON: Final = {"Content-Type": "application/json"}
_MINE: Final = b'{"jsonrpc":"2.0","id":1,"method":"evm_mine","params":[]}'


class Gate:
    """Serves a node's JSON-RPC over HTTP and WebSocket on another port, and mines.

    Args:
        node: A running node that doesn't mine by itself.
        port: TCP port on 127.0.0.1.
        block_time_s: Seconds between blocks.

    Raises:
        PortInUse: On entering, if something listens there.
    """

    def __init__(self, node: AnvilNode, *, port: int, block_time_s: float) -> None:
        self._node = node
        self._port = port
        self._block_time_s = block_time_s
        self._turnstile = Turnstile()
        self._stack = contextlib.AsyncExitStack()
        self._session: aiohttp.ClientSession | None = None

    @property
    def http_url(self) -> str:
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def ws_url(self) -> str:
        return f"ws://{LOOPBACK}:{self._port}"

    async def __aenter__(self) -> Self:
        if not is_port_free(self._port):
            raise PortInUse(self._port)
        async with contextlib.AsyncExitStack() as stack:
            # No time limit: whoever asks has one, and a mining request that we gave up would still be carried out.
            self._session = await stack.enter_async_context(
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
            )
            app = web.Application(client_max_size=_MAX_BODY)
            app.router.add_route("*", "/", self._serve)
            # A client that hangs up stops reading: it must not keep a change waiting.
            runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.0)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, LOOPBACK, self._port).start()
            mining = asyncio.create_task(self._mine())
            stack.callback(mining.cancel)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _mine(self) -> None:
        """Mine a block every so many seconds; time that a frozen node lost is not made up for."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + self._block_time_s, loop.time())
            await asyncio.sleep(due - loop.time())
            try:
                async with self._turnstile.changing():
                    await self._post(_MINE)
            except aiohttp.ClientError as error:
                _log.info("nothing mined", error=str(error))
                await asyncio.sleep(_RETRY_S)

    async def _post(self, body: bytes) -> bytes:
        assert self._session is not None
        async with self._session.post(self._node.http_url, data=body, headers=_JSON) as response:
            return await response.read()

    async def _answer(self, body: bytes) -> bytes:
        """Return the node's answer to a request or a batch of them."""
        if not _is_change(body):
            async with self._turnstile.reading():
                return await self._post(body)
        async with self._turnstile.changing():
            posting = asyncio.create_task(self._post(body))
            try:
                return await asyncio.shield(posting)
            except asyncio.CancelledError:
                # Who asked has hung up, and the node carries it out all the same: nobody may read until it has.
                await asyncio.gather(posting, return_exceptions=True)
                raise
            finally:
                posting.cancel()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._serve_socket(request)
        # As the node itself: pages of any origin may talk to it.
        headers = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "content-type"}
        if request.method != "POST":
            return web.Response(headers=headers)
        try:
            return web.Response(body=await self._answer(await request.read()), headers=headers | _JSON)
        except aiohttp.ClientError as error:
            return web.Response(status=502, text=f"the node does not answer: {error}\n", headers=headers)

    async def _serve_socket(self, request: web.Request) -> web.StreamResponse:
        """Pass subscriptions through; everything else is asked as over HTTP, in its turn."""
        assert self._session is not None
        try:
            inner = await self._session.ws_connect(self._node.ws_url, max_msg_size=_MAX_BODY)
        except aiohttp.ClientError as error:
            return web.Response(status=502, text=f"the node does not answer: {error}\n")
        outer = web.WebSocketResponse(max_msg_size=_MAX_BODY)
        async with inner:
            await outer.prepare(request)
            try:
                async with asyncio.TaskGroup() as group:
                    down = group.create_task(_pass_on(inner, outer))
                    async for message in outer:
                        if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                            break
                        body = message.data.encode() if message.type is WSMsgType.TEXT else message.data
                        if _methods(body) & _SUBSCRIPTIONS:
                            await inner.send_bytes(body)
                        else:
                            group.create_task(self._answer_into(outer, body))
                    down.cancel()
            except* (aiohttp.ClientError, ConnectionError) as errors:
                _log.debug("a socket ended", error=str(errors.exceptions[0]))
        await outer.close()
        return outer

    async def _answer_into(self, socket: web.WebSocketResponse, body: bytes) -> None:
        await socket.send_str((await self._answer(body)).decode())


async def _pass_on(inner: aiohttp.ClientWebSocketResponse, outer: web.WebSocketResponse) -> None:
    async for message in inner:
        if message.type is WSMsgType.TEXT:
            await outer.send_str(message.data)
    await outer.close()


def _methods(body: bytes) -> set[str]:
    """Return the methods that a request or a batch names; none where it is no JSON-RPC, which the node will say."""
    try:
        content: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return set()
    requests = content if isinstance(content, list) else [content]
    return {str(one.get("method")) for one in requests if isinstance(one, dict)}


def _is_change(body: bytes) -> bool:
    return any(method.startswith(_CHANGES) for method in _methods(body))
