"""Ten thousand connections that come and go leave nothing behind."""

from __future__ import annotations

import asyncio
import gc

from rtserver.hub.limits import Limits
from rtserver.hub.session import Session

from .served import receive, served
from .test_socket import ONE

ROUNDS = 200
AT_ONCE = 50


async def test_ten_thousand_connections_leave_nothing_behind() -> None:
    limits = Limits(connections_per_minute=1_000_000, connections_per_ip=1000, linger_s=0)
    async with served(limits=limits) as server:
        server.mine()
        server.states[ONE] = {}

        async def come_and_go(number: int) -> None:
            async with server.connect() as socket:
                await receive(socket, "welcome")
                for _ in range(number % 3):
                    await socket.send(f'{{"type":"subscribe","id":1,"channel":"{ONE}"}}')
                    await receive(socket, "snapshot", "subscribed")
                    await socket.send(f'{{"type":"unsubscribe","id":2,"channel":"{ONE}"}}')
                    await receive(socket, "unsubscribed")
                if number % 2:  # without a closing handshake
                    socket.transport.abort()

        for _ in range(ROUNDS):
            await asyncio.gather(*(come_and_go(number) for number in range(AT_ONCE)))
        async with asyncio.timeout(10):
            while any(True for _ in server.hub.sessions):
                await asyncio.sleep(0)
        assert len(server.sockets._at_once) == 0
        server.now += 5
        server.hub.tick()
        assert server.metrics.registry.get_sample_value("rtserver_channels") == 0
        gc.collect()
        assert sum(isinstance(one, Session) for one in gc.get_objects()) <= 1
