"""What operators see of price sources: when each answered last, how requests ended, who prices what."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from rtserver.domain.ids import Address, ChainId
from rtserver.obs.metrics import Metrics
from rtserver.worth.build import watch_prices
from rtserver.worth.chainlink import Feed
from rtserver.worth.coingecko import CoinGecko
from rtserver.worth.http_asker import FetchLimits, HttpAsker
from rtserver.worth.http_prices import PriceFetcher

from .price_server import Answer, PriceServer, price_server
from .stage import BEGAN, CHAIN, DAI, USD, WETH, A, B, Stage, header, pool, quote, round_data, word

GOOD = Answer(b'{"' + A.encode() + b'":{"usd":5,"last_updated_at":1711356300}}')


class Watch:
    """A fetcher at a local server, its clock and its metrics."""

    def __init__(self, server: PriceServer) -> None:
        self.server, self.now, self.metrics = server, 1000.0, Metrics()
        limits = FetchLimits(requests_per_minute=60, tokens_per_request=10, refresh_s=1)
        self.asker = HttpAsker(
            "coingecko",
            base_url=server.url,
            limits=limits,
            clock=lambda: self.now,
            jitter=lambda: 1.0,
            metrics=self.metrics,
        )
        self.fetcher = PriceFetcher(
            CoinGecko({CHAIN: "local"}, None, is_pro=False),
            self.asker,
            wanted=lambda: [(CHAIN, [A])],
            offer=self._take,
            limits=limits,
            clock=lambda: self.now,
        )

    def _take(self, chain_id: ChainId, quotes: Mapping[Address, Any]) -> None:
        pass

    async def request(self, answer: Answer) -> None:
        """Let one request be answered like this."""
        self.server.next(answer)
        before = self.asker.requests
        while True:
            wait_s = await self.fetcher.step()
            if self.asker.requests > before:
                return
            self.now += wait_s

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"source": "coingecko", **labels})

    def count(self, outcome: str) -> float | None:
        return self.metric("rtserver_price_requests_total", outcome=outcome)


@pytest.fixture
async def watch() -> AsyncIterator[Watch]:
    async with price_server() as server:
        made = Watch(server)
        yield made
        await made.fetcher.close()


async def test_before_the_first_answer(watch: Watch) -> None:
    assert watch.fetcher.describe() == {
        "source": "coingecko", "lastSuccessMs": None, "breaker": "closed", "restingMs": 0, "requests": 0, "errors": 0,
    }  # fmt: skip
    assert watch.metric("rtserver_price_source_age_seconds") == math.inf
    assert (watch.count("ok"), watch.count("unavailable")) == (0, 0)


async def test_each_end_of_a_request_is_counted_by_name(watch: Watch) -> None:
    ends = [
        ("ok", GOOD), ("malformed", Answer(b"[]")), ("unavailable", Answer(b"{}", status=503)),
        ("denied", Answer(b"{}", status=401)), ("refused", Answer(b"{}", status=400)),
    ]  # fmt: skip
    for outcome, answer in ends:
        await watch.request(answer)
        assert watch.count(outcome) == 1, outcome
    assert (watch.asker.requests, watch.asker.errors) == (5, 4)


async def test_age_and_breaker(watch: Watch) -> None:
    await watch.request(GOOD)
    watch.now += 7
    assert watch.fetcher.describe()["lastSuccessMs"] == 7000
    assert watch.metric("rtserver_price_source_age_seconds") == 7
    for _ in range(3):
        await watch.request(Answer(b"{}", status=500))
    told = watch.fetcher.describe()
    assert (told["breaker"], told["errors"], watch.metric("rtserver_price_source_away")) == ("open", 3, 1)
    assert told["restingMs"] > 0
    await watch.request(GOOD)
    assert (watch.fetcher.describe()["breaker"], watch.metric("rtserver_price_source_away")) == ("closed", 0)
    assert watch.metric("rtserver_price_source_age_seconds") == 0


def test_who_prices_what() -> None:
    stage = Stage(feeds=[Feed(token=WETH, address=Address("0x" + "f" * 40), max_age_s=3600)])
    metrics = Metrics()
    watch_prices(stage.prices, "local", metrics)

    def tokens(source: str) -> float | None:
        return metrics.registry.get_sample_value("rtserver_price_tokens", {"chain": "local", "source": source})

    def feeds(state: str) -> float | None:
        return metrics.registry.get_sample_value("rtserver_price_feeds", {"chain": "local", "state": state})

    assert (tokens("none"), feeds("unusable"), feeds("usable")) == (0, 1, 0)
    stage.answer(aggregator=None, decimals=word(8), latest=round_data(3000 * 10**8, BEGAN - 7))
    stage.book.hold(WETH)
    stage.book.hold(A, pool(1, A, USD, "100", 50_000))
    stage.book.hold(B)
    stage.prices.offer("coingecko", {A: quote("150")})
    stage.block()
    assert (tokens("chainlink"), tokens("pools"), tokens("none"), feeds("usable")) == (1, 1, 1, 1)
    assert tokens("par") == len({USD, DAI})
    told = stage.prices.describe()
    assert told["tokens"]["chainlink"] == 1
    (feed,) = told["feeds"]
    assert (feed["limitS"], feed["fault"]) == (3600, None)
    stage.prices.update([stage.book], header(9, BEGAN + 10_000))
    (feed,) = stage.prices.describe()["feeds"]
    assert feed["ageS"] > 3600
    assert "the limit is 3600 s" in feed["fault"]
    assert (feeds("usable"), tokens("chainlink"), tokens("none")) == (0, 0, 2)
