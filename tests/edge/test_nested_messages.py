"""Messages that are nested without end: an error for the sender, as for any other rubbish."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from .served import receive, served


@pytest.fixture(autouse=True)
def usual_limit() -> Iterator[None]:
    """Python's own limit: property tests in the same process raise it, and then these messages are none too deep."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"pong","id":7,"x":' + "[" * 4000 + "]" * 4000 + "}",
        '{"type":"pong","x":' + '{"y":' * 2000 + "1" + "}" * 2001,
        "[" * 16_000,
        '{"x":' * 3000,
    ],
)
async def test_brackets_without_end_are_an_error_and_the_session_goes_on(text: str) -> None:
    """They once ended the session as a failure of the server, with a trace in its log."""
    with capture_logs() as lines:
        async with served() as server:
            server.mine()
            async with server.connect() as socket:
                await receive(socket, "welcome")
                await socket.send(text)
                (error,) = await receive(socket, "error")
                assert error["code"] == "bad_request"
                await socket.send('{"type":"unsubscribe","id":1,"channel":"head:31337"}')
                await receive(socket, "unsubscribed")
    assert lines == []
