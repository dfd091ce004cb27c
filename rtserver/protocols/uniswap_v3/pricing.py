"""What a position's tokens were worth at its own events, for those before it was followed.

Read from the pools of that block: its own pool tells one token in the other, and a pool against a dollar token tells
the rest. Only for positions that someone asked for, a read a block, and nobody waits for it. What no node's state tells
is asked of whoever else may know (`then_query`), and else stays unknown.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from ...domain.ids import Address, BlockHash, SqrtPriceX96, TokenId
from ..base import PastAnswer, PastQuery, Prices, QuotePool, ThenQuery
from . import reads
from .life import NOTHING, Event, Lifetime
from .living import Living
from .state import Nft

__all__ = ["Pricing", "cents_at"]

_CENTS: Final = 100 << 128
# Positions of the same pool of which something may have been kept that tells its prices.
_MATES: Final = 20


@dataclass(slots=True)
class _Question:
    """Events of a position in one block, and the pools that are read for their prices."""

    query: PastQuery
    nft: Nft
    life: Lifetime
    events: list[Event]
    pools: list[QuotePool]


class Pricing(Living):
    """Events without a price in, prices of then out."""

    _question: _Question | None = None

    def want_prices(self, token_id: TokenId) -> bool:
        """Find out what a position's tokens were worth at its own events; return whether that, or they, are still read.

        By `past_query`, and by `then_query` what is not to be had so.
        """
        nft = self._nfts.get(token_id)
        if nft is None:
            return False
        life = nft.whole_life
        if life is None:
            return token_id in self._load_life or token_id in self._unpaid
        if any(map(_is_open, life.events)):
            self._unpriced[token_id] = None
            return True
        return any(one[1] is life for one in self._then)

    def past_query(self) -> PastQuery | None:
        """Return reads at an earlier block that are wanted, or None."""
        if self._staking is not None and (query := self._staking.past_query()) is not None:
            return query
        while self._unpriced:
            token_id = next(iter(self._unpriced))
            nft = self._nfts.get(token_id)
            life = None if nft is None else nft.life
            event = None if life is None else next(filter(_is_open, life.events), None)
            if nft is None or life is None or event is None:
                del self._unpriced[token_id]
                continue
            block = event.block_hash
            pools = [*self._pricing_pools(nft)]
            query = PastQuery(block=block, calls=tuple((pool.pool, reads.SLOT0) for pool in pools))
            self._question = _Question(query, nft, life, _events_at(life, block), pools)
            return query
        return None

    def _pricing_pools(self, nft: Nft) -> Iterable[QuotePool]:
        """Return the position's own pool, and where that holds no dollars the deepest one of its tokens that does."""
        pool = nft.range.pool
        yield QuotePool(pool.address, pool.token0, pool.token1, pool.sqrt_price, pool.liquidity)
        if pool.token0 in self._stablecoins or pool.token1 in self._stablecoins:
            return
        for token in (pool.token0, pool.token1):
            against = [
                quote
                for quote in self._quotes_of(token)
                if quote.token0 in self._stablecoins or quote.token1 in self._stablecoins
            ]
            if against:
                yield max(against, key=self._dollars_in)

    def _dollars_in(self, pool: QuotePool) -> int:
        """Return the raw dollar tokens that a pool's liquidity stands for at its price."""
        if pool.token1 in self._stablecoins:
            return pool.liquidity * pool.sqrt_price >> 96
        return (pool.liquidity << 96) // pool.sqrt_price

    def absorb_past(self, query: PastQuery, answer: PastAnswer | None) -> None:
        """Take their answer; None where nobody keeps that block's state, or the block is not on the chain."""
        has_state = answer is not None and answer.has_state
        if self._staking is not None and self._staking.absorb_past(query, answer if has_state else None):
            return
        question, self._question = self._question, None
        if question is None or question.query is not query:
            return
        nft = question.nft
        cents: dict[Address, int] = {}
        if answer is not None and answer.has_state:
            self._price_pools(cents, question.pools, answer.calls)
        pair = cents.get(nft.range.pool.token0), cents.get(nft.range.pool.token1)
        for event in question.events:
            event.basis = NOTHING if None in pair else "pool"
            event.cents0, event.cents1 = pair
            if answer is not None:
                event.timestamp = answer.timestamp
        question.life.version += 1
        if None in pair and answer is not None and self._expects_then:
            self._then.append((nft, question.life, question.events, answer.timestamp))

    # --- prices that no state tells -------------------------------------------------------------------

    def expect_then(self) -> None:
        """Note that somebody asks for `then_query`."""
        self._expects_then = True

    def then_query(self) -> ThenQuery | None:
        """Return prices of an earlier time that no block's state told, or None."""
        while self._then:
            nft, life, events, at = self._then[0]
            pool = nft.range.pool
            known = {pool.token0: events[0].cents0, pool.token1: events[0].cents1}
            decimals = {token: places for token in known if (places := self.decimals(token)) is not None}
            missing = tuple(token for token in decimals if known[token] is None)
            if self._nfts.get(nft.token_id) is nft and nft.life is life and missing:
                mates = (mate for rng in pool.ranges.values() for mate in rng.nfts if mate != nft.token_id)
                return ThenQuery(
                    tokens=missing,
                    decimals=decimals,
                    at=at,
                    pair=(pool.token0, pool.token1),
                    positions=(nft.token_id, *islice(mates, _MATES)),
                )
            self._then.popleft()
        return None

    def absorb_then(self, query: ThenQuery, prices: Prices, source: str) -> None:
        """Take what is known of them and who said so; those that are missing stay unknown."""
        if not self._then:
            return
        nft, life, events, at = self._then[0]
        pool = nft.range.pool
        if (at, nft.token_id) != (query.at, query.positions[0]):
            return  # it was forgotten meanwhile
        self._then.popleft()
        for event in events:
            by_pool = event.cents0 is not None or event.cents1 is not None
            event.cents0 = prices.get(pool.token0) if event.cents0 is None else event.cents0
            event.cents1 = prices.get(pool.token1) if event.cents1 is None else event.cents1
            if event.cents0 is not None and event.cents1 is not None:
                event.basis = f"pool+{source}" if by_pool else source
        life.version += 1

    def _price_pools(
        self, cents: dict[Address, int], pools: Sequence[QuotePool], slots: Sequence[bytes | None]
    ) -> None:
        """Add what pools tell together; `slots` are their slot0."""
        found = [reads.decode_slot0(result) for result in slots]
        for _ in range(2):  # from dollars to one token, from that one to the other
            for pool, slot0 in zip(pools, found, strict=True):
                if slot0 is not None and slot0[0]:
                    self._price_pool(cents, pool, slot0[0])

    def _price_pool(self, cents: dict[Address, int], pool: QuotePool, sqrt_price: SqrtPriceX96) -> None:
        """Add what a pool tells: a dollar token is a dollar, any other what it costs in one that is known."""
        for token in (pool.token0, pool.token1):
            places = self.decimals(token)
            if token in self._stablecoins and places is not None:
                cents[token] = _CENTS // 10**places
        for known, other in ((pool.token0, pool.token1), (pool.token1, pool.token0)):
            if known in cents and other not in cents:
                cents[other] = cents_at(sqrt_price, cents[known], is_token0=known == pool.token0)


def cents_at(sqrt_price: SqrtPriceX96, cents: int, *, is_token0: bool) -> int:
    """Return the price of a pool's other token from one of them, US cents × 2^128 per raw unit, rounded down.

    Args:
        sqrt_price: The pool's, Q64.96, not 0.
        cents: What is known, in the same unit.
        is_token0: Whether that is token0's.
    """
    square = sqrt_price * sqrt_price
    return (cents << 192) // square if is_token0 else cents * square >> 192


def _is_open(event: Event) -> bool:
    return event.basis is None


def _events_at(life: Lifetime, block: BlockHash) -> list[Event]:
    return [event for event in life.events if event.block_hash == block and _is_open(event)]
