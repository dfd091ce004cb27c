"""Puts a chain's prices together from settings, and what asks HTTP sources for all chains. Decides nothing else."""

import random
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from ..config import ChainSettings, HttpPriceSettings, PriceSettings
from ..domain.ids import Address, ChainId
from ..obs.metrics import Metrics
from ..protocols.addresses import parse_address
from . import coingecko, defillama
from .aggregator import Aggregator, PricePolicy
from .chainlink import Feed
from .http_prices import FetchLimits, PriceFetcher
from .http_source import HttpSource
from .known_feeds import KNOWN
from .quotes import COINGECKO, DEFILLAMA, Quote

__all__ = ["build_aggregator", "build_fetchers", "hops_of", "watch_prices"]


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
) -> list[PriceFetcher]:
    """Return what asks each HTTP source that the settings name, for all chains within one budget."""
    found = []
    if (settings := prices.coingecko) is not None:
        key = None if settings.key is None else settings.key.get_secret_value()
        platforms = {**coingecko.PLATFORMS, **settings.platforms}
        source = coingecko.CoinGecko(platforms, key, is_pro=settings.is_pro)
        found.append(_fetcher(source, settings, aggregators, metrics))
    if (llama := prices.defillama) is not None:
        platforms = {**defillama.PLATFORMS, **llama.platforms}
        found.append(_fetcher(defillama.DefiLlama(platforms), llama, aggregators, metrics))
    return found


def _fetcher(
    source: HttpSource,
    settings: HttpPriceSettings,
    aggregators: Mapping[ChainId, Aggregator],
    metrics: Metrics | None,
) -> PriceFetcher:
    def wanted() -> list[tuple[ChainId, Sequence[Address]]]:
        return [(chain_id, aggregator.wanted(source.name)) for chain_id, aggregator in aggregators.items()]

    def offer(chain_id: ChainId, quotes: Mapping[Address, Quote]) -> None:
        aggregators[chain_id].offer(source.name, quotes)

    return PriceFetcher(
        source,
        base_url=settings.base_url.get_secret_value(),
        wanted=wanted,
        offer=offer,
        limits=FetchLimits(
            requests_per_minute=settings.requests_per_minute,
            tokens_per_request=settings.tokens_per_request,
            refresh_s=settings.refresh_s,
            timeout_s=settings.timeout_s,
        ),
        clock=time.monotonic,
        jitter=random.random,
        metrics=metrics,
    )
