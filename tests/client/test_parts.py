"""The small parts: delays, the pace of messages, URLs without secrets."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtserver.client.errors import public_url
from rtserver.client.outbox import Outbox
from rtserver.client.retry import MAX_DELAY_S, MIN_DELAY_S, Backoff
from rtserver.wire.messages import Pong, Subscribe


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=40))
def test_delays_are_jittered_within_their_limits(draws: list[float]) -> None:
    """The first is up to a second; a later one is never longer than half of what was waited before it."""
    rest = iter(draws)
    backoff = Backoff(random_unit=lambda: next(rest))
    waited_s = 0.0
    for _ in draws:
        delay_s = backoff.next_s()
        assert MIN_DELAY_S <= delay_s <= min(MAX_DELAY_S, max(1.0, waited_s / 2))
        waited_s += delay_s


def test_a_good_connection_starts_the_delays_anew() -> None:
    backoff = Backoff(random_unit=lambda: 1.0)
    assert [backoff.next_s() for _ in range(6)] == [1.0, 1.0, 1.0, 1.5, 2.25, 3.375]
    assert [backoff.next_s() for _ in range(20)][-1] == MAX_DELAY_S
    backoff.reset()
    assert backoff.next_s() == 1.0


@pytest.mark.parametrize("away_s", [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0])
def test_a_server_that_returns_is_met_by_all_soon_but_never_at_once(away_s: float) -> None:
    """A thousand clients: back within half of its absence, and over no less time than after a mere drop."""
    rng = random.Random(away_s)
    returns = []
    for _ in range(1000):
        backoff = Backoff(random_unit=rng.random)
        now_s = backoff.next_s()
        while now_s < away_s:
            now_s += backoff.next_s()
        returns.append(now_s - away_s)
    assert max(returns) <= max(1.0, away_s / 2)
    busiest = max(sum(start <= each < start + 0.1 for each in returns) for start in returns)
    assert busiest < 350


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
