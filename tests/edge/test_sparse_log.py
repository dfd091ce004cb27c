"""Strangers decide how often something is logged, so a log has a rate; nothing that is left out goes uncounted."""

from __future__ import annotations

import structlog
from structlog.testing import capture_logs

from rtserver.edge.sparse_log import SparseLog, failure
from rtserver.hub.limits import Limits

from .served import receive, served


def test_lines_over_the_rate_are_counted() -> None:
    now = 100.0
    with capture_logs() as lines:
        log = SparseLog(clock=lambda: now)
        for _ in range(1000):
            log.info("rubbish", client="x")
        assert len(lines) == 20
        now += 1
        for _ in range(5):
            log.error("failed", client="x")
    assert [line["event"] for line in lines[20:]] == ["failed"]
    assert lines[20]["left_out"] == 980
    assert "left_out" not in lines[0]


def test_fields_are_short() -> None:
    with capture_logs() as lines:
        SparseLog().info("rubbish", path="x" * 10_000, status=400)
    assert (len(lines[0]["path"]), lines[0]["status"]) == (200, 400)


def test_a_failure_is_told_by_its_innermost_calls() -> None:
    def inner() -> None:
        raise KeyError("what\nwas missing")

    try:
        inner()
    except KeyError as error:
        fields = failure(error)
    assert fields["error"] == "KeyError"
    assert "was missing" in fields["text"]
    assert fields["calls"].endswith("inner")
    assert "test_sparse_log.py:" in fields["calls"]
    assert "\n" not in str(structlog.processors.JSONRenderer()(None, "", dict(fields)))


async def test_clients_that_report_without_end_do_not_fill_the_log() -> None:
    limits = Limits(messages_per_s=1_000_000, burst=10_000)
    with capture_logs() as lines:
        async with served(limits=limits) as server:
            server.mine()
            server.states["head:31337"] = {}
            async with server.connect() as socket:
                await receive(socket, "welcome")
                await socket.send('{"type":"subscribe","channel":"head:31337"}')
                await receive(socket, "snapshot", "subscribed")
                for _ in range(200):
                    await socket.send('{"type":"resync","channel":"head:31337","reason":"' + "x" * 5000 + '"}')
                    await receive(socket, "snapshot")
    assert 20 <= len(lines) < 100
    assert {line["event"] for line in lines} == {"client resyncs"}
    assert all(len(line["reason"]) == 200 for line in lines)
