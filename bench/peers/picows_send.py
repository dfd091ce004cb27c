"""picows: a frame built by its C++ code, written to each client's transport."""

import sys
from typing import Any

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server  # type: ignore[import-not-found]

from bench.peers.control import broadcast, obey


async def _main(port: int) -> None:
    clients: dict[WSTransport, None] = {}

    class Listener(WSListener):  # type: ignore[misc]
        def on_ws_connected(self, transport: WSTransport) -> None:
            clients[transport] = None

        def on_ws_disconnected(self, transport: WSTransport) -> None:
            clients.pop(transport, None)

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.CLOSE:
                transport.disconnect()

    def listener_for(_: WSUpgradeRequest) -> Listener:
        return Listener()

    def send(payload: bytes) -> None:
        for client in clients:
            client.send(WSMsgType.TEXT, payload)

    async def handle(command: dict[str, Any]) -> None:
        await broadcast(command, send)

    await ws_create_server(listener_for, "127.0.0.1", port, backlog=4096)
    await obey(port, handle)


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1])))
