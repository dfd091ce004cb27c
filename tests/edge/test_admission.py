"""Who may connect, decided without a socket, and once with one."""

import pytest

from rtserver.edge.admission import AtOnce, Bucket, Rates, party
from rtserver.hub.limits import Limits

from .raw import HANDSHAKE, exchange
from .served import served


def test_a_bucket_gives_a_burst_and_then_its_rate() -> None:
    bucket = Bucket(2.0, 3, now=0.0)
    assert [bucket.take(0.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert bucket.strikes == 1
    assert bucket.take(0.5) == 0
    assert bucket.strikes == 0
    assert bucket.take(100.0) == bucket.take(100.0) == bucket.take(100.0) == 0
    assert bucket.take(100.0) > 0


def test_an_address_may_open_so_many_a_minute() -> None:
    rates = Rates(per_minute=30)
    assert [rates.take("a", 0.0) for _ in range(30)] == [0.0] * 30
    assert 0 < rates.take("a", 0.0) <= 2.0
    assert rates.take("b", 0.0) == 0.0
    assert rates.take("a", 2.0) == 0.0


def test_an_address_may_have_so_many_at_once() -> None:
    at_once = AtOnce(2)
    assert [at_once.enter("a") for _ in range(3)] == [True, True, False]
    assert at_once.enter("b")
    for address in ("a", "a", "a", "b"):
        at_once.leave(address)
    assert len(at_once) == 0


def test_addresses_are_forgotten_when_they_are_owed_nothing() -> None:
    rates = Rates(per_minute=60)
    for number in range(10_000):
        rates.take(str(number), 0.0)
    rates.take("late", 5.0)
    assert len(rates) == 1


@pytest.mark.parametrize(
    ("address", "whose"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::"),
        ("2001:db8:1:3::6", "2001:db8:1:3::"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::"),
        ("::1", "::"),
        ("rubbish:", "rubbish:"),
        ("?", "?"),
    ],
)
def test_limits_are_those_of_a_network(address: str, whose: str) -> None:
    assert party(address) == whose


def test_all_addresses_of_one_network_share_its_rate_and_its_sockets() -> None:
    rates, at_once = Rates(per_minute=5), AtOnce(5)
    addresses = [f"2001:db8:1:2::{number:x}" for number in range(10)]
    assert sum(rates.take(address, 0.0) == 0 for address in addresses) == 5
    assert sum(at_once.enter(address) for address in addresses) == 5
    for address in addresses:
        at_once.leave(address)
    assert (len(rates), len(at_once)) == (1, 0)


@pytest.mark.parametrize("form", ["10.{}.{}.{}", "2001:db8:{:x}:{:x}{:02x}::1"])
def test_a_hundred_thousand_addresses_are_not_remembered_at_once(form: str) -> None:
    """Each of them still owed something: once they were all kept, and looked through at each new one."""
    rates = Rates(per_minute=2)
    for number in range(100_000):
        high, low = divmod(number, 1 << 16)
        assert rates.take(form.format(high, *divmod(low, 1 << 8)), number * 1e-6) == 0
        assert len(rates) <= 10_000


def test_whoever_was_silent_longest_is_forgotten_first() -> None:
    rates = Rates(per_minute=1)
    assert rates.take("regular", 0.0) == 0
    for number in range(30_000):
        assert rates.take(f"visitor {number}", 0.0) == 0
        if number % 9_000 == 0:
            assert rates.take("regular", 0.0) > 0, "as often as he comes, he is remembered"
    assert rates.take("visitor 29999", 0.0) > 0
    assert rates.take("visitor 0", 0.0) == 0


async def test_too_fast_is_told_before_the_handshake() -> None:
    async with served(limits=Limits(connections_per_minute=2)) as server:
        server.mine()
        for _ in range(2):
            async with server.connect():
                pass
        reply = await exchange(server.port, HANDSHAKE)
        assert reply.status == 429
        assert int(reply.headers["retry-after"]) > 0
        assert reply.problem["code"] == "rate"
        assert "2 new sockets a minute" in reply.problem["detail"]


@pytest.mark.parametrize("per_minute", [1, 7, 30, 600, 10_000])
def test_a_minutes_worth_is_there_at_once_and_not_one_more(per_minute: int) -> None:
    """Roundings of a thousand additions neither cost the last one nor give one away."""
    for now in (0.0, 1.7e9 + 0.123456):
        rates = Rates(per_minute)
        assert all(rates.take("a", now) == 0 for _ in range(per_minute))
        wait_s = rates.take("a", now)
        assert 0 < wait_s <= 60 / per_minute
        assert rates.take("a", now + wait_s + 1e-6) == 0
        assert rates.take("a", now + 3600) == 0


def test_asking_in_vain_costs_nothing() -> None:
    rates = Rates(per_minute=1, burst=2)
    assert [rates.take("a", 0.0) for _ in range(2)] == [0, 0]
    first = rates.take("a", 10.0)
    assert all(rates.take("a", 10.0) == first for _ in range(100))
    assert rates.take("a", 10.0 + first + 1e-6) == 0
