"""websockets' own `broadcast`: frames once per client, writes without waiting."""

import sys
from typing import Any

import uvloop
from websockets.asyncio.server import ServerConnection, serve
from websockets.asyncio.server import broadcast as send_all

from bench.peers.control import broadcast, obey


async def _main(port: int) -> None:
    clients: set[ServerConnection] = set()

    async def handler(client: ServerConnection) -> None:
        clients.add(client)
        try:
            await client.wait_closed()
        finally:
            clients.discard(client)

    async def handle(command: dict[str, Any]) -> None:
        await broadcast(command, lambda payload: send_all(clients, payload.decode()))

    # No compression and no pings: the others don't do them here either.
    async with serve(
        handler, "127.0.0.1", port, compression=None, ping_interval=None, backlog=4096, open_timeout=60, close_timeout=0
    ):
        await obey(port, handle)


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1])))
