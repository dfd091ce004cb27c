"""Who may connect, decided without a socket, and once with one."""

from rtserver.edge.admission import Admission, Bucket
from rtserver.hub.limits import Limits

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
    admission = Admission(at_once=100, per_minute=30)
    assert [admission.knock("a", 0.0) for _ in range(30)] == [0.0] * 30
    assert 0 < admission.knock("a", 0.0) <= 2.0
    assert admission.knock("b", 0.0) == 0.0
    assert admission.knock("a", 2.0) == 0.0


def test_an_address_may_have_so_many_at_once() -> None:
    admission = Admission(at_once=2, per_minute=30)
    assert [admission.enter("a") for _ in range(3)] == [True, True, False]
    assert admission.enter("b")
    for address in ("a", "a", "a", "b"):
        admission.leave(address)
    assert len(admission) == 0


def test_addresses_are_forgotten_when_they_are_owed_nothing() -> None:
    admission = Admission(at_once=2, per_minute=60)
    for number in range(10_000):
        admission.knock(str(number), 0.0)
    admission.knock("late", 5.0)
    assert len(admission._lately) == 1


async def test_too_fast_is_told_before_the_handshake() -> None:
    async with served(limits=Limits(connections_per_minute=2)) as server:
        server.mine()
        for _ in range(2):
            async with server.connect():
                pass
        response, problem = await server.get("/ws", Upgrade="websocket", Connection="Upgrade")
        assert response.status == 429
        assert int(response.headers["Retry-After"]) > 0
        assert problem["code"] == "rate"
        assert "2 new sockets a minute" in problem["detail"]
