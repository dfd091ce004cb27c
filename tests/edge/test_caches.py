"""What is had without work, by whom it is counted, and that nothing of another block is ever taken for fresh."""

from __future__ import annotations

import asyncio

from rtserver.domain.diff import Change
from rtserver.domain.errors import ClientError
from rtserver.domain.ids import ChainId
from rtserver.edge.past_answers import PastAnswer, PastAnswers
from rtserver.hub.limits import Limits
from rtserver.obs.metrics import Metrics

from .served import OWNER, Served, position, receive, served

PATH = "/api/v1/positions/7/history"
KEY = (ChainId(31337), "uniswap-v3", 7, 3600, 100)


def counted(metrics: Metrics, cache: str) -> tuple[float, float]:
    """Return hits and misses."""
    hits, misses = (
        metrics.registry.get_sample_value(f"rtserver_cache_{what}_total", {"cache": cache})
        for what in ("hits", "misses")
    )
    return hits or 0.0, misses or 0.0


class Readings:
    """A past that takes its time."""

    def __init__(self, metrics: Metrics) -> None:
        self.turns = 1
        self.now = 1000.0
        self.answers = PastAnswers(lambda chain_id: self.turns, metrics, lambda: self.now)
        self.begun = 0
        self.go_on = asyncio.Event()
        self.body = b"{}"
        self.error: ClientError | None = None

    async def read(self) -> PastAnswer:
        self.begun += 1
        await self.go_on.wait()
        error, self.error = self.error, None
        if error is not None:
            raise error
        return PastAnswer(self.body, "tag")

    def ask(self, count: int) -> list[asyncio.Task[PastAnswer]]:
        return [asyncio.create_task(self.answers.get(KEY, self.read)) for _ in range(count)]


async def test_a_crowd_reads_the_past_once() -> None:
    metrics = Metrics()
    readings = Readings(metrics)
    asked = readings.ask(100)
    await asyncio.sleep(0)
    readings.go_on.set()
    assert {answer.body for answer in await asyncio.gather(*asked)} == {b"{}"}
    assert readings.begun == 1
    assert counted(metrics, "history") == (99, 1)


async def test_an_answer_is_used_for_some_seconds() -> None:
    readings = Readings(Metrics())
    readings.go_on.set()
    for later_s, begun in ((0.0, 1), (4.0, 1), (2.0, 2), (4.0, 2)):
        readings.now += later_s
        await readings.answers.get(KEY, readings.read)
        assert readings.begun == begun


async def test_after_a_reorganisation_the_past_is_another() -> None:
    readings = Readings(Metrics())
    readings.go_on.set()
    await readings.answers.get(KEY, readings.read)
    readings.turns, readings.body = 2, b'{"points":[]}'
    assert (await readings.answers.get(KEY, readings.read)).body == readings.body
    assert readings.begun == 2


async def test_what_was_read_while_the_chain_turned_is_not_kept() -> None:
    readings = Readings(Metrics())
    asked = readings.ask(1)
    await asyncio.sleep(0)
    readings.turns = 2
    readings.go_on.set()
    await asyncio.gather(*asked)
    assert len(readings.answers) == 0
    await readings.answers.get(KEY, readings.read)
    assert readings.begun == 2


async def test_a_failure_is_that_ones_alone() -> None:
    """Who waited for it tries again; so one client's empty account is not everyone's."""
    readings = Readings(Metrics())
    readings.error = ClientError("rate", "not now")
    first, second = readings.ask(2)
    await asyncio.sleep(0)
    readings.go_on.set()
    await asyncio.wait({first})
    assert isinstance(first.exception(), ClientError)
    assert (await second).body == b"{}"
    assert readings.begun == 2


async def test_a_reader_who_leaves_leaves_nobody_waiting() -> None:
    readings = Readings(Metrics())
    first, second = readings.ask(2)
    await asyncio.sleep(0)
    first.cancel()
    readings.go_on.set()
    assert (await second).body == b"{}"


async def test_the_past_that_is_kept_has_a_bound() -> None:
    readings = Readings(Metrics())
    readings.go_on.set()
    readings.body = b" " * (1 << 20)
    for token_id in range(100):
        await readings.answers.get((*KEY[:2], token_id, *KEY[3:]), readings.read)
        assert len(readings.answers) <= 16 << 20
    readings.body = b" " * (17 << 20)
    await readings.answers.get(KEY, readings.read)
    assert len(readings.answers) <= 16 << 20


async def test_the_past_that_is_too_old_is_not_kept() -> None:
    readings = Readings(Metrics())
    readings.go_on.set()
    readings.body = b" " * 1000
    for token_id in range(10):
        readings.now += 1.0
        await readings.answers.get((*KEY[:2], token_id, *KEY[3:]), readings.read)
    assert len(readings.answers) == 5000


async def test_an_answer_that_is_there_is_nobodys_account() -> None:
    async with served(limits=Limits(loads_per_minute=1)) as server:
        server.mine()
        for _ in range(3):
            response, _ = await server.get(PATH)
            assert response.status == 200
        assert len(server.past.asked) == 1
        server.mine()
        assert (await server.get(PATH))[0].status == 200
        server.reorg()
        response, _ = await server.get(PATH)
        assert response.status == 429
        assert counted(server.metrics, "history") == (3, 2)


async def test_the_same_window_by_another_name(server: Served) -> None:
    tags = []
    for window in ("24h", "1d"):
        response, body = await server.get(f"{PATH}?window={window}")
        assert body["window"] == window
        tags.append(response.headers["ETag"])
    assert len(server.past.asked) == 1
    assert len(set(tags)) == 2


async def test_channels_that_are_open_are_hits(server: Served) -> None:
    """Also those of an owner without positions: that there are none is kept, and follows the chain."""
    name = f"owner:31337:{OWNER}"
    server.states[name] = {}
    for _ in range(3):
        _, body = await server.get(f"/api/v1/snapshot?channel={name}")
        assert body["state"] == {}
    assert counted(server.metrics, "channels") == (2, 1)
    async with server.connect() as socket:
        await receive(socket, "welcome")
        await socket.send(f'{{"type":"subscribe","id":1,"channel":"{name}"}}')
        await receive(socket, "snapshot", "subscribed")
    assert counted(server.metrics, "channels") == (3, 1)
    server.mine(**{name: Change(set={"uniswap-v3:1": position(1)})})
    _, body = await server.get(f"/api/v1/snapshot?channel={name}")
    assert list(body["state"]) == ["uniswap-v3:1"]
    assert server.wanted == [name]
