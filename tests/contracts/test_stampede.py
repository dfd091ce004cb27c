"""A hundred who come at once for what nobody has yet, at two gateways: it is loaded once."""

from __future__ import annotations

import asyncio

from hub.stage import channel

from rtserver.domain.errors import ClientError
from rtserver.hub.stream import Stream
from rtserver.protocols.channels import Channel

from .joined import Joined

COLD = channel(77)


async def test_a_crowd_at_two_gateways_is_one_load(apart: Joined) -> None:
    (writer,) = apart.writers
    wanted: list[str] = []
    want = writer.engine.want

    def counted(one: Channel) -> None:
        wanted.append(one.name)
        want(one)

    writer.engine.want = counted  # type: ignore[method-assign,assignment]
    opened: list[asyncio.Future[Stream | ClientError]] = []
    clients = []
    for index in range(50):
        gateway = apart.gateways[index % 2]
        # Half of them over REST, half on sockets.
        future: asyncio.Future[Stream | ClientError] = asyncio.get_running_loop().create_future()
        gateway.hub.when_open(COLD, future.set_result)
        opened.append(future)
        clients.append(apart.client(index % 2))
        clients[-1].subscribe(COLD, 1)
    streams = await asyncio.gather(*opened)
    assert all(isinstance(stream, Stream) and stream.state == apart.truth.state(COLD.name) for stream in streams)
    await apart.converged()
    assert all(client.replica.states[COLD.name] == apart.truth.state(COLD.name) for client in clients)
    assert wanted == [COLD.name]
