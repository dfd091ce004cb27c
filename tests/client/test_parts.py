"""The small parts: delays, the pace of messages, URLs without secrets."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtserver.client.errors import public_url
from rtserver.client.outbox import Outbox
from rtserver.client.retry import MAX_DELAY_S, MIN_DELAY_S, Backoff
from rtserver.wire.messages import Pong, Subscribe


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=40))
def test_delays_are_jittered_within_their_limits(draws: list[float]) -> None:
    rest = iter(draws)
    backoff = Backoff(random_unit=lambda: next(rest))
    for attempt in range(1, len(draws) + 1):
        limit = min(MAX_DELAY_S, MIN_DELAY_S * 2.0 ** min(attempt, 16))
        assert MIN_DELAY_S <= backoff.next_s() <= limit


def test_a_good_connection_starts_the_delays_anew() -> None:
    backoff = Backoff(random_unit=lambda: 1.0)
    assert [backoff.next_s() for _ in range(3)] == [1.0, 2.0, 4.0]
    backoff.reset()
    assert backoff.next_s() == 1.0
    for _ in range(2000):
        assert backoff.next_s() <= MAX_DELAY_S


def test_the_outbox_never_sends_faster_than_the_server_takes() -> None:
    outbox = Outbox()
    for index in range(100):
        outbox.put(Subscribe(channel=str(index)))
    now, times = 0.0, []
    while len(outbox):
        times += [now] * len(outbox.take(now))
        now = outbox.next_at(now) or now
    assert len(times) == 100
    # 10 a second with a burst of 20, as the server counts: any window of t seconds holds at most 20 + 10 t.
    for first in range(len(times)):
        for last in range(first, len(times)):
            assert last - first + 1 <= 20 + 10 * (times[last] - times[first])


def test_order_is_kept_and_pongs_go_first() -> None:
    outbox = Outbox()
    for index in range(20):
        outbox.put(Subscribe(channel=str(index)))
    assert len(outbox.take(0.0)) == 16
    outbox.put(Pong(), urgent=True)
    assert outbox.next_at(0.0) == 0.0
    assert [json.loads(data)["type"] for data in outbox.take(0.0)] == ["pong"]
    rest = [json.loads(data)["channel"] for data in outbox.take(10.0)]
    assert rest == ["16", "17", "18", "19"]
    assert outbox.next_at(10.0) is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ws://user:pw@host:8080/ws?token=x#y", "ws://host:8080/ws"),
        ("wss://[::1]:9/ws", "wss://[::1]:9/ws"),
        ("nonsense", "://?nonsense"),
    ],
)
def test_public_urls_hold_no_secret(url: str, shown: str) -> None:
    assert public_url(url) == shown
