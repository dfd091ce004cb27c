"""The prices of one chain's tokens: one immutable snapshot a block, from the first fresh source of each token.

Decides which source is believed and which tokens have to be valued anew. Pure: pools come from the books, feeds
are read in the block's own call, and what HTTP sources said last is laid in by `offer` and taken at the next block.
A token without any fresh source has no price: never zero, never the last one known.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Protocol

from ..domain.chain import BlockRef, Header, Log
from ..domain.diff import Change, State, diff_objects
from ..domain.ids import Address, BlockHash, ChainId
from ..protocols.addresses import checksum
from ..protocols.base import LogFilter, Plan, Prices, QuotePool
from .chainlink import Feed, FeedBook
from .dollars import ONE_DOLLAR
from .outside import Outside
from .pool_median import QuoteToken, median_price
from .quotes import CHAINLINK, DEFAULT_ORDER, NOBODY, PAR, POOLS, Price, PriceSnapshot, Quote

__all__ = ["Aggregator", "Market", "PricePolicy"]

# Dollars on the quote side of a pool: less is moved by a few per cent for the price of a dinner.
DEFAULT_MIN_DEPTH_USD: Final = 10_000
# A fresh feed, a pool and an exchange differ by fees, delay and deviation thresholds: 2 % together.
DEFAULT_DISPUTE_BPS: Final = 200


class Market(Protocol):
    """What a book tells of pools."""

    kind: str

    def quotes(self) -> Mapping[Address, Sequence[QuotePool] | None]:
        """Return each token whose pools were read again, with all of them; None where it is no longer held."""

    def decimals(self, token: Address) -> int | None:
        """Return a token's decimals, None while unknown or unusable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PricePolicy:
    """Whom to believe, and when.

    `order` is by token where `order_by_token` has one; a source that stands in neither is not asked.
    `max_age_s` limits the age of HTTP sources' answers, in seconds of the wall clock.
    """

    order: tuple[str, ...] = DEFAULT_ORDER
    order_by_token: Mapping[Address, tuple[str, ...]] = field(default_factory=dict)
    min_depth_usd: int = DEFAULT_MIN_DEPTH_USD
    dispute_bps: int = DEFAULT_DISPUTE_BPS
    max_age_s: Mapping[str, int] = field(default_factory=dict)

    def order_of(self, token: Address) -> tuple[str, ...]:
        """Return a token's sources, best first."""
        return self.order_by_token.get(token, self.order)


class Aggregator:
    """The prices of one chain.

    Args:
        chain_id: The chain.
        stablecoins: Tokens that count as one dollar while no source says otherwise.
        hops: Tokens that others may be priced through: two pools to a dollar, never more.
        feeds: Chainlink feeds.
        policy: Whom to believe.
        clock: Seconds since the epoch, for the age of what comes over HTTP; a chain's own time may be another.
    """

    def __init__(
        self,
        chain_id: ChainId,
        *,
        stablecoins: Iterable[Address],
        hops: Iterable[Address] = (),
        feeds: Iterable[Feed] = (),
        policy: PricePolicy | None = None,
        clock: Callable[[], float],
    ) -> None:
        self._chain_id = chain_id
        self._policy = policy or PricePolicy()
        self._stablecoins = frozenset(stablecoins)
        self._hops = frozenset(hops) - self._stablecoins
        self._feeds = FeedBook(feeds)
        self._outside = Outside(self._policy.max_age_s, clock)
        # What books hold: by token and book, its pools.
        self._pools: dict[Address, dict[str, Sequence[QuotePool]]] = {token: {} for token in self._stablecoins}
        self._priced_by: dict[Address, set[Address]] = {}  # other token of a pool → the tokens priced against it
        self._pool_quotes: dict[Address, Quote] = {}
        self._repool: set[Address] = set()
        self._dirty: set[Address] = set(self._stablecoins)
        self._decimals: Callable[[Address], int | None] = lambda token: None
        self._found: dict[Address, Price] = {}
        self._frozen_prices: Mapping[Address, Price] | None = None
        self._cents: dict[Address, int] = {}
        self._shown: State = {}
        self._change = Change()
        self._head: BlockHash | None = None
        self._snapshot = PriceSnapshot(BlockRef(number=0, hash=BlockHash("")), 0)

    # --- what is served -------------------------------------------------------------------------------

    @property
    def prices(self) -> Prices:
        """Return US cents × 2^128 per smallest unit by token, as of the last update."""
        return self._cents

    @property
    def snapshot(self) -> PriceSnapshot:
        """Return the prices as of the last update; the object never changes."""
        return self._snapshot

    def state(self) -> State:
        """Return what the `prices:` channel shows, by token."""
        return {key: dict(view) for key, view in self._shown.items()}

    def take_change(self) -> Change:
        """Return what changed in the channel's state since this was last asked."""
        change, self._change = self._change, Change()
        return change

    # --- what operators see ---------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """Return how many watched tokens each source prices now, and `none` for those without a price."""
        counts = dict.fromkeys((*DEFAULT_ORDER, PAR, NOBODY), 0)
        for price in self._found.values():
            counts[price.source or NOBODY] += 1
        return counts

    @property
    def disputed(self) -> int:
        """Return of how many watched tokens the sources contradict each other."""
        return sum(price.disputed for price in self._found.values())

    def describe(self) -> dict[str, Any]:
        """Return how the chain's prices are doing, for an operator."""
        return {"tokens": self.counts(), "disputed": self.disputed, "feeds": self._feeds.describe()}

    # --- HTTP sources ---------------------------------------------------------------------------------

    def wanted(self, source: str) -> list[Address]:
        """Return the tokens that a source should be asked for: first those that have no price at all."""
        tokens = [token for token in self._pools if source in self._policy.order_of(token)]
        return sorted(tokens, key=lambda token: (token in self._cents, token))

    def offer(self, source: str, quotes: Mapping[Address, Quote]) -> None:
        """Lay in a source's newest answers; the next block takes them."""
        self._outside.offer(source, quotes)

    # --- the feeds' reads -----------------------------------------------------------------------------

    def log_filter(self) -> LogFilter:
        """Return the logs that announce feeds' answers."""
        return self._feeds.log_filter()

    def fold(self, logs: Iterable[Log]) -> None:
        """Take a block's logs of the feeds."""
        self._feeds.fold(logs)

    def mark_all(self) -> None:
        """Mark all feeds as stale: blocks were undone."""
        self._feeds.mark_all()

    def is_settled(self) -> bool:
        """Return whether every stale feed has been read."""
        return self._feeds.is_settled()

    def plan(self) -> Plan:
        """Return the reads of stale feeds."""
        return self._feeds.plan()

    def absorb(self, plan: Plan, results: Sequence[bytes | None]) -> None:
        """Take the answers to a plan."""
        self._feeds.absorb(plan, results)

    # --- the block ------------------------------------------------------------------------------------

    def update(self, markets: Iterable[Market], header: Header) -> frozenset[Address]:
        """Price what has to be priced anew at a block; return the tokens whose value changed."""
        books = list(markets)
        self._decimals = lambda token: next(
            (places for book in books if (places := book.decimals(token)) is not None), None
        )
        for book in books:
            for token, pools in book.quotes().items():
                self._take_pools(book.kind, token, pools)
        self._dirty |= self._feeds.advance(header.timestamp)
        if header.hash != self._head:
            # Between two blocks nothing moves: what is served of one block is one set of prices.
            self._head = header.hash
            self._dirty |= self._outside.take()
        # A dollar token's decimals become known without any pool of its own.
        self._dirty |= self._stablecoins - self._cents.keys()
        changed = self._settle(header.timestamp)
        self._snapshot = PriceSnapshot(header.ref, header.timestamp, self._frozen())
        return frozenset(changed)

    def _frozen(self) -> Mapping[Address, Price]:
        """Return the prices as a mapping that later blocks don't touch; blocks without a move share one."""
        if self._frozen_prices is None:
            self._frozen_prices = MappingProxyType(dict(self._found))
        return self._frozen_prices

    def _take_pools(self, kind: str, token: Address, pools: Sequence[QuotePool] | None) -> None:
        mine = self._pools.setdefault(token, {})
        for pool in mine.pop(kind, ()):
            self._priced_by[_other(pool, token)].discard(token)
        if pools is not None:
            mine[kind] = pools
        for known in mine.values():
            for pool in known:
                self._priced_by.setdefault(_other(pool, token), set()).add(token)
        if not mine and token not in self._stablecoins:
            del self._pools[token]
        self._repool.add(token)
        self._dirty.add(token)

    def _settle(self, now: int) -> set[Address]:
        """Price the dirty tokens, dollars first: whatever is priced against one that changed follows."""
        changed: set[Address] = set()
        dirty, self._dirty = self._dirty, set()
        for floor in (0, 1, 2):
            for token in [token for token in dirty if self._floor(token) == floor]:
                if not self._price(token, now):
                    continue
                changed.add(token)
                followers = {other for other in self._priced_by.get(token, ()) if self._floor(other) > floor}
                self._repool |= followers
                dirty |= followers
        self._repool.clear()
        return changed

    def _floor(self, token: Address) -> int:
        """Return 0 for a dollar token, 1 for one that others are priced through, 2 for any other."""
        return 0 if token in self._stablecoins else 1 if token in self._hops else 2

    def _price(self, token: Address, now: int) -> bool:
        """Price one token; return whether positions that hold it are worth something else now."""
        if token in self._repool:
            self._price_from_pools(token, now)
        key = checksum(token)
        if token not in self._pools:
            # No position holds it any more. A feed may go on telling what nobody asks for.
            self._found.pop(token, None)
            self._frozen_prices = None
            if self._shown.pop(key, None) is not None:
                self._change.set.pop(key, None)
                self._change.patch.pop(key, None)
                self._change.remove.append(key)
            return self._cents.pop(token, None) is not None
        price = self._choose(token)
        if price != self._found.get(token):
            self._found[token] = price
            self._frozen_prices = None
            self._show(key, price)
        places = self._decimals(token)
        cents = None if price.quote is None or places is None else price.quote.price.cents_x128(places)
        if cents == self._cents.get(token):
            return False
        if cents is None:
            del self._cents[token]
        else:
            self._cents[token] = cents
        return True

    def _choose(self, token: Address) -> Price:
        """Return the first fresh source's word, with the others' where one contradicts it."""
        words: dict[str, Quote] = {}
        for source in self._policy.order_of(token):
            quote = self._quote(source, token)
            if quote is not None:
                words[source] = quote
        if not words and token in self._stablecoins:
            return Price(token, PAR, Quote(ONE_DOLLAR, 0))
        if not words:
            return Price(token)
        source, chosen = next(iter(words.items()))
        disputes = any(chosen.price.differs(other.price, self._policy.dispute_bps) for other in words.values())
        others = {name: quote for name, quote in words.items() if name != source} if disputes else {}
        return Price(token, source, chosen, others)

    def _quote(self, source: str, token: Address) -> Quote | None:
        if source == CHAINLINK:
            return self._feeds.quote(token)
        if source == POOLS:
            return self._pool_quotes.get(token)
        return self._outside.quote(source, token)

    def _price_from_pools(self, token: Address, now: int) -> None:
        places = self._decimals(token)
        pools = [pool for known in self._pools.get(token, {}).values() for pool in known]
        floor = self._floor(token)
        found = None
        if places is not None and floor > 0:
            found = median_price(
                token,
                places,
                pools,
                # Only against lower floors: a circle of tokens that price each other would price itself.
                lambda other: self._quote_token(other) if self._floor(other) < floor else None,
                min_depth_cents=self._policy.min_depth_usd * 100,
                agree_bps=self._policy.dispute_bps,
            )
        if found is None:
            self._pool_quotes.pop(token, None)
        else:
            self._pool_quotes[token] = Quote(found[0], now, found[1])

    def _quote_token(self, token: Address) -> QuoteToken | None:
        price, places, cents = self._found.get(token), self._decimals(token), self._cents.get(token)
        if price is None or price.quote is None or places is None or cents is None:
            return None
        return QuoteToken(price.quote.price, places, cents)

    def _show(self, key: str, price: Price) -> None:
        view = price.view(self._chain_id)
        before = self._shown.get(key)
        self._shown[key] = view
        if key in self._change.remove:
            self._change.remove.remove(key)
        patch = None if before is None or key in self._change.set else diff_objects(before, view)
        if patch is None:
            self._change.patch.pop(key, None)
            self._change.set[key] = dict(view)
        elif patch:
            self._change.patch[key] = {**self._change.patch.get(key, {}), **patch}


def _other(pool: QuotePool, token: Address) -> Address:
    return pool.token1 if pool.token0 == token else pool.token0
