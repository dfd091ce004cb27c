"""Positions' own events: from each block's logs, and from the past. What is undone goes with its block.

The manager's Collect event says what was asked of the pool. What was paid, the pool's own event says: the last one
before it, of the same range, in the same transaction. Both are needed, so the past is asked twice: for the events of
many positions at once, and for what a pool paid to the ranges of those that collected. Nobody waits for the second.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final, TypeAlias

from ...domain.chain import Log
from ...domain.ids import Address, BlockHash, Tick, TokenId
from ..addresses import raw
from ..base import HistoryQuery, Life, Prices
from ..earning import LifeKind
from . import events as ev
from .life import Event, Unpaid
from .sampling import Sampling
from .state import Nft, RangeKey

__all__ = ["EVENT_TOPICS", "Living", "Payment", "event_of"]

EVENT_TOPICS: Final = (ev.INCREASE_LIQUIDITY, ev.DECREASE_LIQUIDITY, ev.COLLECT_NFT)
_KIND_OF: Final[Mapping[str, LifeKind]] = {
    ev.INCREASE_LIQUIDITY: "deposit", ev.DECREASE_LIQUIDITY: "withdrawal", ev.COLLECT_NFT: "collect",
}  # fmt: skip
# One history query names at most this many positions: providers bound the length of a topic list.
_AT_ONCE: Final = 200

# What a pool paid: (transaction, amounts).
Payment: TypeAlias = tuple[str, int, int]


class Living(Sampling):
    """Events in, lives out."""

    # --- blocks ---------------------------------------------------------------------------------------

    def _live(self, nft: Nft, log: Log, payments: dict[RangeKey, Payment]) -> None:
        """Take one of a tracked position's own events; `payments` are those of this block not claimed yet."""
        # What it was worth until now, before what happens is counted.
        self._note(nft)
        event = event_of(log)
        if event.kind == "collect":
            rng = nft.range
            payment = payments.pop((rng.pool.address, rng.lower, rng.upper), None)
            if payment is None or payment[0] != log.tx_hash:
                # Its pool's logs were not asked for in this block.
                self._begin_life(nft)
                return
            event.paid0, event.paid1 = payment[1:]
        life = nft.lived()
        life.add(event)
        self._fresh_events.append((nft, event))
        if len(life.events) > 1:
            life.shorten(self._journal.hashes())

    def _begin_life(self, nft: Nft) -> None:
        """Ask for all of a position's past."""
        nft.life = None
        nft.ring = None
        self._unsampled.add(nft.token_id)
        self._load_life[nft.token_id] = None
        self._unlooked[nft.token_id] = None
        self._unpaid.pop(nft.token_id, None)

    def _turn(self) -> None:
        """Blocks left the chain: what was asked before may tell of them."""
        self._turns += 1
        self._born.clear()
        for token_id in self._unpaid:
            self._load_life[token_id] = None
        self._unpaid.clear()

    def _be_born(self, token_id: TokenId) -> None:
        """Remember what happens to a position from its mint on, until it has been read: that is all of its past."""
        self._born[token_id] = []

    def _grow(self, token_id: TokenId, log: Log) -> None:
        """Take an event of a position that was minted a moment ago."""
        event = event_of(log)
        if event.kind == "collect":
            del self._born[token_id]  # what was paid is told by its range, which is unknown: the past is asked
        else:
            self._born[token_id].append(event)

    def _start_life(self, nft: Nft) -> None:
        """Begin the life of a position that has just been read for the first time."""
        self._begin_life(nft)
        self._unseeded[nft.token_id] = None
        born = self._born.pop(nft.token_id, None)
        if born is not None:
            del self._load_life[nft.token_id], self._unseeded[nft.token_id], self._unlooked[nft.token_id]
            nft.lived().complete(born)
            self._newborn.add(nft.token_id)
            self._fresh_events += [(nft, event) for event in born]

    def _price_events(self, prices: Prices, now: int) -> None:
        """Note what the tokens of the newest block's events are worth in it."""
        head = self._journal.head
        for nft, event in self._fresh_events:
            if event.block_hash == head and nft.life is not None and event in nft.life.events:
                pool = nft.range.pool
                event.timestamp = now
                event.cents0, event.cents1 = prices.get(pool.token0), prices.get(pool.token1)
                event.basis = None if event.cents0 is None or event.cents1 is None else "own"
                nft.life.version += 1
        self._fresh_events.clear()
        self._born.clear()
        self._newborn.clear()

    # --- the past -------------------------------------------------------------------------------------

    def _payments_query(self) -> HistoryQuery | None:
        """Return the query for what one pool paid to the ranges of positions whose events are known."""
        pool: Address | None = None
        ids: list[TokenId] = []
        ranges: set[tuple[Tick, Tick]] = set()
        for token_id in self._unpaid:
            rng = self._nfts[token_id].range
            if pool is None:
                pool = rng.pool.address
            if rng.pool.address == pool and len(ids) < _AT_ONCE:
                ids.append(token_id)
                ranges.add((rng.lower, rng.upper))
        if pool is None:
            return None
        topics = (
            (ev.COLLECT_POOL,),
            ("0x" + raw(self._manager).hex().rjust(64, "0"),),
            tuple(sorted({_tick_topic(lower) for lower, _ in ranges})),
            tuple(sorted({_tick_topic(upper) for _, upper in ranges})),
        )
        return HistoryQuery(pool, topics, tuple(ids), self._turns)

    def _lives_query(self) -> HistoryQuery | None:
        """Return the query for events of positions of which only these are wanted."""
        ids = tuple(list(self._load_life)[:_AT_ONCE])
        return self._events_query(ids) if ids else None

    def _events_query(self, ids: tuple[TokenId, ...]) -> HistoryQuery:
        topics = (EVENT_TOPICS, tuple(f"0x{token_id:064x}" for token_id in ids))
        return HistoryQuery(self._manager, topics, ids, self._turns)

    def _absorb_lives(self, query: HistoryQuery, logs: Sequence[Log] | None) -> None:
        """Take all events of positions, oldest first; None where they could not be read: their past stays unknown."""
        if query.turn != self._turns:
            return  # asked before a reorganisation, so still wanted
        found = {token_id: Unpaid([], []) for token_id in query.token_ids if token_id in self._load_life}
        for token_id in found:
            del self._load_life[token_id]
        if logs is None:
            return
        for log in logs:
            if log.topics[0] in _KIND_OF and (one := found.get(TokenId(int(log.topics[1], 16)))) is not None:
                one.events.append(event_of(log))
                one.transactions.append(log.tx_hash)
        for token_id, one in found.items():
            if any(event.kind == "collect" for event in one.events):
                self._unpaid[token_id] = one
            else:
                self._complete_life(token_id, one.events)

    def _absorb_payments(self, query: HistoryQuery, logs: Sequence[Log] | None) -> None:
        """Take what a pool paid; None where that could not be read."""
        if query.turn != self._turns:
            return
        paid: dict[tuple[BlockHash, str, Tick, Tick], list[Log]] = {}
        for log in logs or ():
            place = log.block_hash, log.tx_hash, ev.topic_int24(log.topics[2]), ev.topic_int24(log.topics[3])
            paid.setdefault(place, []).append(log)
        for token_id in query.token_ids:
            one = self._unpaid.pop(token_id, None)
            if one is None or logs is None:
                continue
            rng = self._nfts[token_id].range
            if _pay(one, paid, rng.lower, rng.upper):
                self._complete_life(token_id, one.events)

    def _complete_life(self, token_id: TokenId, past: Collection[Event]) -> None:
        nft = self._nfts.get(token_id)
        if nft is not None:
            life = nft.lived()
            life.complete(past)
            life.shorten(self._journal.hashes())

    # --- what is told ---------------------------------------------------------------------------------

    def life(self, token_id: TokenId) -> Life | None:
        """Return what went into a position and came out of it; None while its past is unknown."""
        nft = self._nfts.get(token_id)
        return None if nft is None or (life := nft.whole_life) is None else life.told()


def event_of(log: Log) -> Event:
    """Return what an event of the manager says; a collect as if all that was asked had been paid."""
    amount0, amount1 = ev.word(log.data, 1), ev.word(log.data, 2)
    return Event(
        kind=_KIND_OF[log.topics[0]], number=log.block_number, block_hash=log.block_hash, index=log.index,
        amount0=amount0, amount1=amount1, paid0=amount0, paid1=amount1,
    )  # fmt: skip


def _pay(one: Unpaid, paid: Mapping[tuple[BlockHash, str, Tick, Tick], list[Log]], lower: Tick, upper: Tick) -> bool:
    """Give each collect what was paid just before it; return whether that was found for all of them."""
    for event, transaction in zip(one.events, one.transactions, strict=True):
        if event.kind == "collect":
            logs = paid.get((event.block_hash, transaction, lower, upper), ())
            before = [log for log in logs if log.index < event.index]
            if not before:
                return False
            last = max(before, key=lambda log: log.index)
            event.paid0, event.paid1 = ev.word(last.data, 1), ev.word(last.data, 2)
    return True


def _tick_topic(tick: Tick) -> str:
    return f"0x{tick & ((1 << 256) - 1):064x}"
