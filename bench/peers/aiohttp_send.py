"""aiohttp as its documentation has it: `send_str` to each client in turn."""

import asyncio
import sys
from typing import Any

import uvloop
from aiohttp import web

from bench.peers.control import broadcast, obey


async def _main(port: int) -> None:
    clients: dict[web.WebSocketResponse, None] = {}

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        clients[socket] = None
        try:
            async for _ in socket:
                pass
        finally:
            del clients[socket]
        return socket

    async def send(payload: bytes) -> None:
        text = payload.decode()
        for client in list(clients):
            await client.send_str(text)

    async def handle(command: dict[str, Any]) -> None:
        await broadcast(command, send)

    app = web.Application()
    app.add_routes([web.get("/ws", serve)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await obey(port, handle)
    # Open sockets would be waited for; the bench is gone, so nobody reads them.
    asyncio.get_running_loop().stop()


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1])))
