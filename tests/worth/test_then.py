"""Prices of then: DefiLlama's documented answers, errors and limits from a local server; and who is asked for what."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import pytest

from rtserver.domain.errors import PermanentError, RetryableError
from rtserver.domain.ids import Address, ChainId, TokenId
from rtserver.protocols.base import Book, Prices, ThenQuery
from rtserver.worth.defillama import PLATFORMS, DefiLlama
from rtserver.worth.http_asker import FetchLimits, HttpAsker
from rtserver.worth.then import LlamaThen, PricesThen

from .price_server import Answer, PriceServer, price_server
from .stage import usd

MAINNET = ChainId(1)
WBTC = Address("0x2260fac5e5542a773aa44fbcfedf7c193bc2c599")
UNI = Address("0x1f9840a85d5af5bf1d1762f925bdaddc4201f984")
AT = 1_711_356_000
DECIMALS = {WBTC: 8, UNI: 18}
# As documented, api-docs.defillama.com, /prices/historical/{timestamp}/{coins}.
ANSWER = b"""{"coins": {
  "ethereum:0x2260fac5e5542a773aa44fbcfedf7c193bc2c599":
    {"decimals": 8, "symbol": "WBTC", "price": 67187.3358936566, "timestamp": 1711356300, "confidence": 0.99},
  "ethereum:0x1F9840a85d5aF5bf1D1762F925BDADdC4201F984":
    {"decimals": 18, "symbol": "UNI", "price": 12.5, "timestamp": 1711355000}
}}"""


def query(*tokens: Address, at: int = AT) -> ThenQuery:
    return ThenQuery(tokens=tokens or (WBTC, UNI), decimals=DECIMALS, at=at, pair=(UNI, WBTC), positions=(TokenId(1),))


@pytest.fixture
async def server() -> AsyncIterator[PriceServer]:
    async with price_server() as started:
        started.next(Answer(ANSWER))
        yield started


class Desk:
    """DefiLlama at a local server, with a clock that the test moves."""

    def __init__(self, server: PriceServer) -> None:
        self.now = 0.0
        limits = FetchLimits(requests_per_minute=10**9, tokens_per_request=60, refresh_s=60, timeout_s=5)
        self.asker = HttpAsker("defillama", base_url=server.url, limits=limits, clock=self._clock, jitter=lambda: 1.0)
        self.then = LlamaThen(DefiLlama(PLATFORMS), self.asker)

    def _clock(self) -> float:
        self.now += 1.0  # so that no pause of the budget is waited for
        return self.now

    async def prices(self, *tokens: Address, at: int = AT, chain_id: ChainId = MAINNET) -> Prices:
        return await self.then.prices(chain_id, "uniswap-v3", query(*tokens, at=at))


@pytest.fixture
async def desk(server: PriceServer) -> AsyncIterator[Desk]:
    made = Desk(server)
    yield made
    await made.asker.close()


async def test_the_documented_answer(desk: Desk, server: PriceServer) -> None:
    assert await desk.prices() == {
        WBTC: usd("67187.3358936566").cents_x128(8),
        UNI: usd("12.5").cents_x128(18),
    }
    coins = f"ethereum:{WBTC},ethereum:{UNI}"
    assert server.asked == [f"/prices/historical/{AT}/{coins}?searchWidth=60m"]
    # The past stays what it was.
    assert await desk.prices() == await desk.prices()
    assert len(server.asked) == 1
    await desk.prices(at=AT + 1)
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "entry",
    [
        b'{"price": 5, "timestamp": 1711352399}',  # over an hour away
        b'{"price": 5, "timestamp": 1711356000, "confidence": 0.89}',
        b'{"price": 5}',
        b'{"price": null, "timestamp": 1711356000}',
        b'{"price": -5, "timestamp": 1711356000}',
        b'"5"',
    ],
)
async def test_what_is_doubtful_is_unknown(desk: Desk, server: PriceServer, entry: bytes) -> None:
    server.next(Answer(b'{"coins": {"ethereum:' + WBTC.encode() + b'": ' + entry + b"}}"))
    assert await desk.prices(WBTC) == {}


async def test_a_chain_that_the_source_does_not_know_is_not_asked_for(desk: Desk, server: PriceServer) -> None:
    assert await desk.prices(chain_id=ChainId(31337)) == {}
    assert server.asked == []


async def test_errors_are_the_accounts_and_are_not_kept(desk: Desk, server: PriceServer) -> None:
    server.next(Answer(b"{}", status=400), Answer(b"{}", status=403), Answer(b"nonsense"), Answer(ANSWER))
    for error in (PermanentError, PermanentError, RetryableError):
        with pytest.raises(error):
            await desk.prices()
        desk.now += 10_000
    assert desk.asker.errors == 3
    assert len(await desk.prices()) == 2
    assert desk.asker.failures == 0


async def test_too_many_requests_open_the_breaker_for_both_uses(desk: Desk, server: PriceServer) -> None:
    server.next(Answer(b"", status=429, headers={"Retry-After": "120"}))
    with pytest.raises(RetryableError):
        await desk.prices()
    assert 100 < desk.asker.rest_s <= 120
    assert desk.asker.describe()["errors"] == 1


class Shelf:
    """A book that has questions, as far as prices of then go."""

    def __init__(self, *queries: ThenQuery) -> None:
        self.queries = list(queries)
        self.answers: list[tuple[Prices, str]] = []
        self.is_expected = False

    def expect_then(self) -> None:
        self.is_expected = True

    def then_query(self) -> ThenQuery | None:
        return self.queries[0] if self.queries else None

    def absorb_then(self, query: ThenQuery, prices: Prices, source: str) -> None:
        self.queries.remove(query)
        self.answers.append((dict(prices), source))


class Source:
    """A source that knows what the test says, and fails as often."""

    def __init__(self, name: str, known: Mapping[Address, int], *errors: Exception) -> None:
        self.name, self.known, self.errors = name, known, list(errors)
        self.asked: list[tuple[Address, ...]] = []

    async def prices(self, chain_id: ChainId, protocol: str, query: ThenQuery) -> Prices:
        self.asked.append(query.tokens)
        if self.errors:
            raise self.errors.pop(0)
        return {token: self.known[token] for token in query.tokens if token in self.known}


def asking(shelf: Shelf, *sources: Any) -> PricesThen:
    return PricesThen({MAINNET: {"uniswap-v3": cast(Book, shelf)}}, sources)


async def test_each_source_is_asked_for_what_is_still_unknown() -> None:
    shelf = Shelf(query(), query(WBTC), query(UNI))
    first, second = Source("history", {WBTC: 1}), Source("defillama", {UNI: 2})
    then = asking(shelf, first, second)
    assert shelf.is_expected
    while await then.step():
        pass
    assert shelf.answers == [({WBTC: 1, UNI: 2}, "history+defillama"), ({WBTC: 1}, "history"), ({UNI: 2}, "defillama")]
    assert (first.asked, second.asked) == ([(WBTC, UNI), (WBTC,), (UNI,)], [(UNI,), (UNI,)])


async def test_a_source_that_fails_is_tried_again_and_then_gone_on_without() -> None:
    away = RetryableError("away")
    shelf = Shelf(query(WBTC), query(WBTC), query(WBTC))
    source = Source("defillama", {WBTC: 1}, away, away, away, away, PermanentError("refused"))
    then = asking(shelf, source)
    while await then.step():
        pass
    # Three failures and it is unknown; one and it is known; refused, and it is not asked again.
    assert shelf.answers == [({}, ""), ({}, ""), ({WBTC: 1}, "defillama")]
