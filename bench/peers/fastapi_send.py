"""FastAPI on uvicorn, as its documentation's connection manager has it: `send_text` to each client in turn."""

import asyncio
import sys
from typing import Any

import uvicorn  # type: ignore[import-not-found]
import uvloop
from fastapi import FastAPI, WebSocket, WebSocketDisconnect  # type: ignore[import-not-found]

from bench.peers.control import broadcast, obey


async def _main(port: int) -> None:
    app = FastAPI()
    clients: dict[WebSocket, None] = {}

    @app.websocket("/ws")  # type: ignore[untyped-decorator]
    async def serve(socket: WebSocket) -> None:
        await socket.accept()
        clients[socket] = None
        try:
            while True:
                await socket.receive_text()
        except WebSocketDisconnect:
            pass
        finally:
            del clients[socket]

    async def send(payload: bytes) -> None:
        text = payload.decode()
        for client in list(clients):
            await client.send_text(text)

    async def handle(command: dict[str, Any]) -> None:
        await broadcast(command, send)

    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, log_level="error", ws_per_message_deflate=False, ws_ping_interval=None,
        backlog=4096, lifespan="off",
    )  # fmt: skip
    server = uvicorn.Server(config)
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server.serve())
        async with asyncio.timeout(20):
            while not server.started:
                await asyncio.sleep(0.01)
        await obey(port, handle)
        serving.cancel()


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1])))
