"""What gateways ask an engine for, over a real Redis: of which block it is, how often it is computed, who waits."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import pytest
from broker.redis_server import RedisServer
from hub.stage import header

from rtserver.broker import asking as asking_module
from rtserver.broker import redis_asks
from rtserver.broker.answering import Answering
from rtserver.broker.asking import Asking
from rtserver.broker.asks import AskKind, ask_key, parse_key
from rtserver.broker.ports import Fenced
from rtserver.broker.redis_asks import RedisAsks
from rtserver.broker.redis_link import RedisBroker
from rtserver.domain.chain import Header
from rtserver.domain.ids import TokenId
from rtserver.obs.metrics import Metrics

from .joined import until

KEY = ask_key("full", "uniswap-v3", TokenId(1))
CHAIN = 31337


class EngineStage:
    """An engine in charge that a test plays."""

    def __init__(self, stage: Stage, token: str) -> None:
        self.stage = stage
        self.token: str | None = token
        self.head = stage.head
        self.metrics = Metrics()
        self.reckoned: Counter[str] = Counter()
        self.is_at_rest = True
        self.broken: set[str] = set()
        self.grown = "no"
        # While it is shut, first answers wait.
        self.gate = asyncio.Event()
        self.gate.set()
        self.answering = Answering(
            name="test",
            link=stage.asks(),
            reckon=self.reckon,
            first=self.first,
            head=lambda: self.head,
            token=lambda: self.token,
            is_at_rest=lambda: self.is_at_rest,
            metrics=self.metrics,
        )
        self.task = asyncio.create_task(self.answering.run())

    def reckon(self, key: str) -> bytes | None:
        if key in self.broken:
            raise ZeroDivisionError(key)
        if parse_key(key) is None:
            return None
        self.reckoned[key] += 1
        return json.dumps({"key": key, "block": self.head.hash, "by": self.token, "grown": self.grown}).encode()

    def first(self, key: str) -> Coroutine[Any, Any, None] | None:
        return None if self.gate.is_set() else self.wait()

    async def wait(self) -> None:
        await self.gate.wait()

    def publish(self, head: Header) -> None:
        self.head = head
        self.answering.published()

    def answered(self, reason: str) -> float:
        labels = {"chain": "test", "reason": reason}
        return self.metrics.registry.get_sample_value("rtserver_answers_total", labels) or 0.0


class GatewayStage:
    def __init__(self, stage: Stage) -> None:
        self.head: Header | None = stage.head
        self.metrics = Metrics()
        self.asking = Asking(name="test", link=stage.asks(), head=lambda: self.head, metrics=self.metrics)
        self.task = asyncio.create_task(self.asking.run())

    async def get(self, *keys: str) -> dict[str, dict[str, str]]:
        return await self.asking.get(keys or (KEY,))

    async def gets(self, key: str, head: Header) -> dict[str, str]:
        """Ask until there is an answer: on a busy machine one may take longer than a client waits."""
        async with asyncio.timeout(30):
            while not (found := await self.get(key)).get(key):
                await asyncio.sleep(0.05)
        assert found[key]["block"] == head.hash
        return found[key]

    def counted(self, what: str, cache: str) -> float:
        return self.metrics.registry.get_sample_value(f"rtserver_cache_{what}_total", {"cache": cache}) or 0.0


class Stage:
    """One Redis, engines and gateways; all at one head unless a test says otherwise."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.head = header(100)
        self.brokers: list[RedisBroker] = []
        self.prefix = f"t{secrets.token_hex(6)}"
        self.engines: list[EngineStage] = []
        self.gateways: list[GatewayStage] = []

    def broker(self) -> RedisBroker:
        self.brokers.append(RedisBroker(self.url, self.prefix))
        return self.brokers[-1]

    def asks(self) -> RedisAsks:
        return RedisAsks(self.broker().chain(CHAIN))

    async def engine(self) -> EngineStage:
        """Put an engine in charge, over whoever was."""
        link = self.broker().chain(CHAIN)
        token = await link.acquire("the same holder", 60_000)
        assert token is not None
        self.engines.append(EngineStage(self, token))
        return self.engines[-1]

    def gateway(self) -> GatewayStage:
        self.gateways.append(GatewayStage(self))
        return self.gateways[-1]

    def move(self, head: Header) -> None:
        """A new head everywhere."""
        self.head = head
        for engine in self.engines:
            if engine.token is not None:
                engine.publish(head)
        for gateway in self.gateways:
            gateway.head = head

    async def answered(self) -> None:
        """Wait until Redis has an answer of the head."""
        broker = self.broker()
        async with asyncio.timeout(30):
            key = f"{broker.prefix}:{{{CHAIN}}}:r:{KEY}"
            while await broker.nodes.client.hget(key, "h") != self.head.hash.encode():
                await asyncio.sleep(0.01)

    async def end(self) -> None:
        tasks = [engine.task for engine in self.engines] + [gateway.task for gateway in self.gateways]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for broker in self.brokers:
            await broker.aclose()


@asynccontextmanager
async def staged(url: str) -> AsyncIterator[Stage]:
    stage = Stage(url)
    try:
        yield stage
    finally:
        await stage.end()


@pytest.fixture(params=["redis", "cluster"])
async def stage(request: pytest.FixtureRequest, urls: dict[str, str]) -> AsyncIterator[Stage]:
    async with staged(urls[request.param]) as one:
        yield one


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that wait for as long as a busy machine takes, and marks that last longer than that."""
    monkeypatch.setattr(asking_module, "_WAIT_S", 30.0)
    monkeypatch.setattr(redis_asks, "_MARK_S", 60.0)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that don't wait long for an engine that is not there."""
    monkeypatch.setattr(asking_module, "_WAIT_S", 0.2)


@pytest.mark.usefixtures("patient")
async def test_a_hundred_who_ask_at_once_at_two_gateways_cost_one_answer(stage: Stage) -> None:
    engine, gateways = await stage.engine(), (stage.gateway(), stage.gateway())
    answers = await asyncio.gather(*(gateways[index % 2].get() for index in range(100)))
    assert all(answer[KEY] == answers[0][KEY] for answer in answers)
    assert answers[0][KEY]["block"] == stage.head.hash
    assert engine.reckoned == {KEY: 1}
    # Whoever was first looked in vain; the other gateway may have, too, or found it.
    assert sum(gateway.counted("misses", "rates_shared") for gateway in gateways) in (1, 2)
    assert await gateways[0].get() == answers[0]
    assert engine.reckoned == {KEY: 1}


@pytest.mark.usefixtures("patient")
async def test_what_one_gateway_has_asked_for_another_finds(stage: Stage) -> None:
    engine, first, second = await stage.engine(), stage.gateway(), stage.gateway()
    assert await first.get() == await second.get()
    assert engine.reckoned == {KEY: 1}
    assert second.counted("hits", "rates_shared") == 1
    assert second.counted("misses", "rates_shared") == 0


@pytest.mark.usefixtures("patient")
async def test_an_answer_is_of_the_head_and_is_there_before_anyone_asks(stage: Stage) -> None:
    engine, gateway = await stage.engine(), stage.gateway()
    await gateway.get()
    for number in (101, 102):
        stage.move(header(number))
        await stage.answered()
        assert (await gateway.get())[KEY]["block"] == stage.head.hash
    assert (engine.answered("asked"), engine.answered("ahead")) == (1, 2)


@pytest.mark.usefixtures("patient")
async def test_an_answer_that_grew_under_its_block_is_told_soon(stage: Stage) -> None:
    engine, gateway = await stage.engine(), stage.gateway()
    assert (await gateway.get())[KEY]["grown"] == "no"
    engine.grown = "yes"
    # Steps of the same block: each may have been for anyone.
    for _ in range(50):
        engine.publish(stage.head)
    async with asyncio.timeout(30):
        while (await gateway.get())[KEY]["grown"] == "no":
            await asyncio.sleep(0.05)
    assert engine.reckoned[KEY] <= 10


@pytest.mark.usefixtures("patient")
async def test_another_branch_has_answers_of_its_own(stage: Stage) -> None:
    """The same height, and a lower one."""
    engine, gateway = await stage.engine(), stage.gateway()
    await gateway.get()
    for head in (header(100, branch=7), header(98, branch=8), header(99, branch=8)):
        # As if nobody was interested any more: the gateway has to ask.
        engine.answering._hot.clear()
        stage.move(head)
        assert (await gateway.get())[KEY]["block"] == head.hash


@pytest.mark.usefixtures("patient")
async def test_a_gateway_waits_for_the_block_that_the_engine_is_at(stage: Stage) -> None:
    engine, gateway = await stage.engine(), stage.gateway()
    engine.publish(header(101))
    asked = asyncio.create_task(gateway.get())
    await until(lambda: KEY in gateway.asking._kept)
    assert not asked.done()
    gateway.head = engine.head
    assert (await asked)[KEY]["block"] == engine.head.hash


async def test_after_a_takeover_the_new_engine_answers(stage: Stage) -> None:
    first, gateway = await stage.engine(), stage.gateway()
    await gateway.gets(KEY, stage.head)
    token, second = first.token, await stage.engine()
    # The old one still believes, and is refused.
    with pytest.raises(Fenced):
        await stage.asks().answer(str(token), stage.head, {KEY: b"{}"})
    first.token = None
    other = stage.gateway()
    assert (await other.gets(KEY, stage.head))["by"] == second.token
    assert second.reckoned[KEY] >= 1


@pytest.mark.usefixtures("hasty")
async def test_without_an_engine_nobody_waits_for_long_and_everyone_is_told_nothing(stage: Stage) -> None:
    gateway = stage.gateway()
    assert await gateway.get() == {}
    assert gateway.asking._is_silent
    # From here nobody waits at all, and what is asked is asked all the same.
    assert await asyncio.gather(*(gateway.get() for _ in range(100))) == [{}] * 100
    await stage.engine()
    await gateway.gets(KEY, stage.head)
    assert not gateway.asking._is_silent


async def test_an_ask_that_was_lost_is_repeated(stage: Stage) -> None:
    await stage.engine()
    stage.engines[0].task.cancel()
    gateway = stage.gateway()
    asked = asyncio.create_task(gateway.gets(KEY, stage.head))
    broker = stage.broker()
    async with asyncio.timeout(30):
        while not await broker.nodes.client.delete(f"{broker.prefix}:{{{CHAIN}}}:asks"):
            await asyncio.sleep(0.01)
    await stage.engine()
    await asked


async def test_while_redis_is_away_a_gateway_has_what_it_had_of_the_block(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    await server.start()
    try:
        async with staged(server.url) as stage:
            await stage.engine()
            gateway = stage.gateway()
            found = await gateway.gets(KEY, stage.head)
            server.kill()
            kept = gateway.asking._kept[KEY]
            kept.at -= 3600
            assert await gateway.get() == {KEY: found}
            # Another block, which can't be: and if it were, nothing would be told of it.
            gateway.head = header(101)
            assert await gateway.get() == {}
    finally:
        await server.end()


@pytest.mark.usefixtures("patient")
async def test_an_engine_between_two_blocks_answers_as_of_the_step_that_it_published(stage: Stage) -> None:
    engine, gateway = await stage.engine(), stage.gateway()
    engine.is_at_rest = False
    assert (await gateway.get())[KEY]["block"] == stage.head.hash


@pytest.mark.usefixtures("patient")
async def test_a_key_of_another_version_is_answered_with_nothing(stage: Stage) -> None:
    await stage.engine()
    gateway = stage.gateway()
    assert await gateway.get("shape:uniswap-v3:1", KEY) == {"shape:uniswap-v3:1": {}, KEY: (await gateway.get())[KEY]}


async def test_an_answer_that_can_not_be_read_is_none(stage: Stage, hasty: None) -> None:
    engine, gateway = await stage.engine(), stage.gateway()
    await stage.asks().answer(str(engine.token), stage.head, {KEY: b"{nonsense"})
    assert await gateway.get() == {}
    stage.move(header(101))
    await gateway.gets(KEY, stage.head)


@pytest.mark.usefixtures("patient")
async def test_a_first_answer_that_waits_for_something_holds_up_no_other(stage: Stage) -> None:
    engine, gateway = await stage.engine(), stage.gateway()
    engine.gate.clear()
    first = asyncio.create_task(gateway.get())
    await until(lambda: engine.answering._held == {KEY})
    other = ask_key("brief", "uniswap-v3", TokenId(3))
    engine.answering._asked[other] = None
    engine.answering._news.set()
    await until(lambda: engine.reckoned[other] == 1)
    assert not first.done()
    engine.gate.set()
    assert (await first)[KEY]["block"] == stage.head.hash
    assert engine.answering._held == set()


async def test_what_goes_wrong_with_one_position_is_that_ones_alone(stage: Stage, hasty: None) -> None:
    engine, gateway = await stage.engine(), stage.gateway()
    broken = ask_key("full", "uniswap-v3", TokenId(2))
    engine.broken.add(broken)
    await gateway.gets(KEY, stage.head)
    async with asyncio.timeout(30):
        while (await gateway.get(broken)) != {broken: {}}:
            await asyncio.sleep(0.05)
    engine.broken.clear()
    stage.move(header(101))
    await gateway.gets(broken, stage.head)


async def test_what_is_remembered_has_a_bound(stage: Stage, monkeypatch: pytest.MonkeyPatch, patient: None) -> None:
    monkeypatch.setattr(asking_module, "_MAX_KEPT", 10)
    engine, gateway = await stage.engine(), stage.gateway()
    for token_id in range(0, 50, 5):
        await gateway.get(*(ask_key("brief", "uniswap-v3", TokenId(token_id + index)) for index in range(5)))
    assert len(gateway.asking._kept) == 10
    assert len(gateway.asking._missed) <= 10
    assert not gateway.asking._waiting
    assert sum(engine.reckoned.values()) == 50


def test_keys() -> None:
    for kind in get_args(AskKind):
        assert parse_key(ask_key(kind, "uniswap-v3", TokenId(7))) == (kind, "uniswap-v3", 7)
    assert [parse_key(key) for key in ("", "full", "full:x", "full::7", "full:x:-7", "full:x:٣", "new:x:7")] == [
        None
    ] * 7
