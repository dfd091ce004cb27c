"""What a client calls its request is repeated in every reply: it has to be something that can be."""

from __future__ import annotations

import pytest

from .served import position, receive, served

COLD = "owner:31337:0x00000000000000000000000000000000000000aa"


@pytest.mark.parametrize(
    "request_id", [str(2**64), str(2**53), str(-(2**53)), '"' + "x" * 65 + '"', "1.5", "[1]", "{}"]
)
async def test_an_id_that_no_reply_could_hold_is_refused(request_id: str) -> None:
    """One such id on a channel that is still closed once ended the process."""
    async with served() as server:
        server.mine()
        async with server.connect() as socket:
            await receive(socket, "welcome")
            await socket.send(f'{{"type":"subscribe","id":{request_id},"channel":"{COLD}"}}')
            (error,) = await receive(socket, "error")
            assert error["code"] == "bad_request"
            server.states["position:31337:uniswap-v3:1"] = {"1": position(1)}
            await socket.send('{"type":"subscribe","id":9007199254740991,"channel":"position:31337:uniswap-v3:1"}')
            snapshot, _ = await receive(socket, "snapshot", "subscribed")
            assert snapshot["id"] == 2**53 - 1
