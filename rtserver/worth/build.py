"""Puts a chain's prices together from settings, and what asks HTTP sources for all chains. Decides nothing else."""

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from ..config import ChainSettings, HttpPriceSettings, PriceSettings
from ..domain.ids import Address, ChainId
from ..obs.metrics import Metrics
from ..protocols.addresses import parse_address
from ..protocols.base import Book
from . import coingecko, defillama
from .aggregator import Aggregator, PricePolicy
from .chainlink import Feed
from .http_asker import FetchLimits, HttpAsker
from .http_prices import PriceFetcher
from .http_source import HttpSource
from .known_feeds import KNOWN
from .quotes import COINGECKO, DEFILLAMA, Quote
from .then import LlamaThen, PricesThen, ThenSource

__all__ = ["build_aggregator", "build_fetchers", "build_sources", "hops_of", "watch_prices"]


def hops_of(chain_id: ChainId, settings: ChainSettings) -> list[Address]:
    """Return the tokens that others may be priced through on a chain."""
    if settings.hops is not None:
        return [Address(token) for token in settings.hops]
    known = KNOWN.get(chain_id)
    return [] if known is None else [parse_address(token) for token in known.hops]


def build_aggregator(
    chain_id: ChainId, chain: ChainSettings, prices: PriceSettings, stablecoins: Iterable[Address]
) -> Aggregator:
    """Return a chain's prices."""
    max_ages = {COINGECKO: prices.coingecko, DEFILLAMA: prices.defillama}
    policy = PricePolicy(
        order=prices.order,
        order_by_token={Address(token): order for token, order in prices.order_by_token.items()},
        min_depth_usd=prices.min_depth_usd,
        dispute_bps=round(prices.dispute_percent * 100),
        max_age_s={name: http.max_age_s for name, http in max_ages.items() if http is not None},
    )
    return Aggregator(
        chain_id,
        stablecoins=stablecoins,
        hops=hops_of(chain_id, chain),
        feeds=_feeds(chain_id, chain),
        policy=policy,
        clock=time.time,
    )


def watch_prices(aggregator: Aggregator, chain: str, metrics: Metrics) -> None:
    """Show a chain's prices in the metrics, as they are when somebody looks."""
    for source in aggregator.counts():
        metrics.price_tokens.labels(chain, source).set_function(partial(_count, aggregator, source))
    metrics.prices_disputed.labels(chain).set_function(lambda: aggregator.disputed)
    for state, is_usable in (("usable", True), ("unusable", False)):
        metrics.price_feeds.labels(chain, state).set_function(partial(_count_feeds, aggregator, is_usable))


def _count(aggregator: Aggregator, source: str) -> float:
    return aggregator.counts()[source]


def _count_feeds(aggregator: Aggregator, is_usable: bool) -> float:
    return sum((feed["fault"] is None) is is_usable for feed in aggregator.describe()["feeds"])


def _feeds(chain_id: ChainId, chain: ChainSettings) -> list[Feed]:
    if chain.feeds is not None:
        return [_feed(one.token, one.feed, one.max_age_s) for one in chain.feeds]
    known = KNOWN.get(chain_id)
    return [] if known is None else [_feed(one.token, one.feed, one.max_age_s) for one in known.feeds]


def _feed(token: str, feed: str, max_age_s: int) -> Feed:
    return Feed(token=parse_address(token), address=parse_address(feed), max_age_s=max_age_s)


def build_fetchers(
    prices: PriceSettings, aggregators: Mapping[ChainId, Aggregator], metrics: Metrics | None = None
) -> tuple[list[PriceFetcher], LlamaThen | None]:
    """Return what asks each HTTP source that the settings name, for all chains within one budget.

    And whom to ask for prices of then, at DefiLlama's account; None where the settings don't name it.
    """
    found = []
    if (settings := prices.coingecko) is not None:
        key = None if settings.key is None else settings.key.get_secret_value()
        platforms = {**coingecko.PLATFORMS, **settings.platforms}
        source = coingecko.CoinGecko(platforms, key, is_pro=settings.is_pro)
        found.append(_fetcher(source, _asker(source.name, settings, metrics), settings, aggregators))
    then = None
    if (llama := prices.defillama) is not None:
        platforms = {**defillama.PLATFORMS, **llama.platforms}
        llamas = defillama.DefiLlama(platforms)
        asker = _asker(llamas.name, llama, metrics)
        found.append(_fetcher(llamas, asker, llama, aggregators))
        then = LlamaThen(llamas, asker)
    return found, then


def build_sources(
    prices: PriceSettings,
    chains: Mapping[ChainId, tuple[Aggregator, Mapping[str, Book]]],
    histories: Sequence[ThenSource],
    metrics: Metrics | None = None,
) -> tuple[list[PriceFetcher | PricesThen], Callable[[], dict[str, Any]]]:
    """Return what finds prices of now and of then for all chains, to be run, and a report of how all sources are doing.

    Args:
        prices: The settings.
        chains: Each chain's prices, and its books by kind.
        histories: Whom to ask first for prices of then.
        metrics: Where requests are counted.
    """
    fetchers, llama = build_fetchers(prices, {chain_id: chain[0] for chain_id, chain in chains.items()}, metrics)
    sources = [*histories, *([] if llama is None else [llama])]
    books = {chain_id: chain[1] for chain_id, chain in chains.items()}

    def report() -> dict[str, Any]:
        return {
            "sources": [fetcher.describe() for fetcher in fetchers],
            "chains": {str(chain_id): chain[0].describe() for chain_id, chain in chains.items()},
        }

    return [*fetchers, *([PricesThen(books, sources)] if sources else [])], report


def _limits(settings: HttpPriceSettings) -> FetchLimits:
    return FetchLimits(
        requests_per_minute=settings.requests_per_minute,
        tokens_per_request=settings.tokens_per_request,
        refresh_s=settings.refresh_s,
        timeout_s=settings.timeout_s,
    )


def _asker(name: str, settings: HttpPriceSettings, metrics: Metrics | None) -> HttpAsker:
    return HttpAsker(
        name,
        base_url=settings.base_url.get_secret_value(),
        limits=_limits(settings),
        clock=time.monotonic,
        jitter=random.random,
        metrics=metrics,
    )


def _fetcher(
    source: HttpSource, asker: HttpAsker, settings: HttpPriceSettings, aggregators: Mapping[ChainId, Aggregator]
) -> PriceFetcher:
    def wanted() -> list[tuple[ChainId, Sequence[Address]]]:
        return [(chain_id, aggregator.wanted(source.name)) for chain_id, aggregator in aggregators.items()]

    def offer(chain_id: ChainId, quotes: Mapping[Address, Quote]) -> None:
        aggregators[chain_id].offer(source.name, quotes)

    return PriceFetcher(source, asker, wanted=wanted, offer=offer, limits=_limits(settings), clock=time.monotonic)
