"""One suite for an address's accounts, in one process and shared over Redis; and what only the shared ones can do."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from broker.redis_server import RedisServer
from edge.raw import HANDSHAKE, exchange
from edge.served import Served, served

from rtserver.broker.rates import RedisRates
from rtserver.broker.redis_link import RedisBroker
from rtserver.edge.budgets import Budget, LocalBudget, SharedBudget, shared_budgets
from rtserver.hub.limits import Limits
from rtserver.obs.metrics import Metrics

Make = Callable[[int], Budget]


@asynccontextmanager
async def brokers(url: str, count: int) -> AsyncIterator[list[RedisBroker]]:
    """Connections of so many processes of one installation."""
    prefix = f"t{secrets.token_hex(6)}"
    async with AsyncExitStack() as stack:
        made = [RedisBroker(url, prefix) for _ in range(count)]
        for broker in made:
            stack.push_async_callback(broker.aclose)
        yield made


@pytest.fixture(params=["local", "redis", "cluster"])
async def make(request: pytest.FixtureRequest, urls: dict[str, str]) -> AsyncIterator[Make]:
    """Makes an account of so many a minute."""
    if request.param == "local":
        yield LocalBudget
        return
    async with brokers(urls[request.param], 1) as (broker,):
        yield lambda per_minute: SharedBudget("test", per_minute, RedisRates(broker), Metrics())


async def test_a_minutes_worth_at_once_and_then_no_more(make: Make) -> None:
    budget = make(3)
    began = time.monotonic()
    answers = [await budget.take("192.0.2.1") for _ in range(4)]
    if time.monotonic() - began < 20:  # else one has come back
        assert answers[:3] == [0, 0, 0]
        assert 0 < answers[3] <= 20


async def test_no_address_is_charged_for_another(make: Make) -> None:
    budget = make(1)
    assert [await budget.take(address) for address in ("192.0.2.1", "192.0.2.2", "2001:db8::1")] == [0, 0, 0]


async def test_a_network_has_one_account(make: Make) -> None:
    budget = make(1)
    assert await budget.take("2001:db8:1:2::3") == 0
    assert await budget.take("2001:db8:1:2::4") > 0


async def test_what_was_taken_comes_back(make: Make) -> None:
    budget = make(600)
    while not await budget.take("192.0.2.1"):
        pass
    async with asyncio.timeout(15):
        while wait_s := await budget.take("192.0.2.1"):
            assert wait_s <= 0.1
            await asyncio.sleep(wait_s)


async def test_two_gateways_give_away_one_account(redis_server: RedisServer) -> None:
    async with brokers(redis_server.url, 2) as pair:
        rates = [RedisRates(broker) for broker in pair]
        began = time.monotonic()
        answers = await asyncio.gather(*(rates[index % 2].take("test", "192.0.2.1", 40, 40) for index in range(100)))
        came_back = int((time.monotonic() - began) / 1.5) + 1
        assert 40 <= answers.count(0) <= 40 + came_back
        assert all(0 <= wait_s <= 1.5 for wait_s in answers)


async def test_requests_and_sockets_at_two_gateways_are_on_one_account(redis_server: RedisServer) -> None:
    limits = Limits(loads_per_minute=3, connections_per_minute=2)
    async with AsyncExitStack() as stack:
        pair = []
        for broker in await stack.enter_async_context(brokers(redis_server.url, 2)):
            budgets = shared_budgets(limits, RedisRates(broker), Metrics())
            server = await stack.enter_async_context(served(limits=limits, trusted=("127.0.0.1",), budgets=budgets))
            server.mine()
            server.states.update({f"position:31337:uniswap-v3:{token_id}": {} for token_id in range(5)})
            pair.append(server)

        async def load(server: Served, token_id: int, client: str = "192.0.2.1") -> int:
            path = f"/api/v1/snapshot?channel=position:31337:uniswap-v3:{token_id}"
            response, _ = await server.get(path, X_Forwarded_For=client)
            return response.status

        one, other = pair
        assert [await load(one, 0), await load(other, 1), await load(one, 2)] == [200, 200, 200]
        assert [await load(one, 3), await load(other, 3)] == [429, 429]
        assert [await load(one, 3, "192.0.2.2"), await load(other, 1)] == [200, 200], "another's, and one that is open"
        hello = HANDSHAKE.replace(b"Host: x", b"Host: x\r\nX-Forwarded-For: 192.0.2.3")
        replies = [await exchange(server.port, hello) for server in (one, other, one, other)]
        assert [reply.status for reply in replies] == [101, 101, 429, 429]


async def test_loads_and_sockets_are_accounts_of_their_own(redis_server: RedisServer) -> None:
    async with brokers(redis_server.url, 1) as (broker,):
        limits = Limits(loads_per_minute=1, connections_per_minute=1)
        budgets = shared_budgets(limits, RedisRates(broker), Metrics())
        assert await budgets.loads.take("192.0.2.1") == 0
        assert await budgets.sockets.take("192.0.2.1") == 0
        assert await budgets.loads.take("192.0.2.1") > 0
        keys = await broker.nodes.client.keys(f"{broker.prefix}:limit:*")
        assert len(keys) == 2
        for key in keys:
            assert 0 < await broker.nodes.client.pttl(key) <= 61_000, "an account that is whole again is forgotten"


async def test_without_redis_each_gateway_has_its_own(tmp_path: Path) -> None:
    """First while it hangs, then while it is gone; and back again."""
    server = RedisServer(tmp_path)
    await server.start()
    now = 1000.0
    metrics = Metrics()
    try:
        async with brokers(server.url, 2) as pair:
            budgets = [SharedBudget("test", 2, RedisRates(broker), metrics, lambda: now) for broker in pair]
            assert [await budget.take("192.0.2.1") for budget in budgets] == [0, 0]
            assert [await budget.take("192.0.2.1") > 0 for budget in budgets] == [True, True]
            server.freeze()
            assert [await budget.take("192.0.2.2") for budget in budgets] == [0, 0]
            assert [await budget.take("192.0.2.2") for budget in budgets] == [0, 0], "two each"
            assert [await budget.take("192.0.2.2") > 0 for budget in budgets] == [True, True]
            server.thaw()
            server.kill()
            now += 5.0
            assert [await budget.take("192.0.2.3") for budget in budgets] == [0, 0]
            assert metrics.registry.get_sample_value("rtserver_limits_alone_total", {"limit": "test"}) == 4
            await server.start()
            now += 5.0
            assert [await budget.take("192.0.2.4") for budget in budgets] == [0, 0]
            assert [await budget.take("192.0.2.4") > 0 for budget in budgets] == [True, True]
    finally:
        await server.end()
