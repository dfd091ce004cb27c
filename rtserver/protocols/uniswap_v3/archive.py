"""Windows that begin before the server did: what positions and their pools were then, from a node that keeps it.

At first sight of a position, after what a history had of it: its state an hour, six hours, a day, three days and a week
ago, for many positions of one moment in one call. What a position earned until then follows from it and from its
own events, to the unit. Its value goes in a straight line between two of these moments, so a change of liquidity in
between is looked at, too: before it and after it. Of more than a few of those, the windows begin with the oldest
that was looked at.

Nobody waits for any of this, and one question is asked at a time. A node that doesn't keep that state is not asked for
anything as old for an hour; windows then begin with the server.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from ...domain.cents import pair_cents
from ...domain.clmath.amounts import amounts_at
from ...domain.clmath.fees import growth_inside, owed
from ...domain.ids import Address, BlockHash, Liquidity, RawAmount, TokenId
from ..base import Call, PastAnswer, PastQuery
from . import reads
from .life import Event, Lifetime
from .pricing import Pricing
from .ring import SAMPLE_EVERY_S
from .state import Nft, Pool

__all__ = ["AGES_S", "Archive"]

# How long ago is looked at, in seconds: where windows begin, and something between for the mean value. The answer comes
# a moment later, so the block is then old enough.
AGES_S: Final = (3_600, 21_600, 86_400, 259_200, 604_800)
# Positions a question: four reads each and some for their pools, about what a cold load asks for at once.
_AT_ONCE: Final = 40
# Positions that are looked at for whether they can be asked for, each time.
_LOOKS: Final = 200
# Changes of liquidity of one position that are looked at: a question each.
_CHANGES: Final = 4
# For how long a node that didn't keep a state is not asked for one as old, in chain seconds.
_REFUSED_S: Final = 3_600
# What was seen of blocks of the last two hours goes with them, should they leave the chain: chains that turn deeper are
# read anew as a whole.
_RECENT_S: Final = 7_200


@dataclass(frozen=True, slots=True)
class _Seen:
    """One position at the end of a block; counters without its events."""

    number: int
    block_hash: BlockHash
    time: int
    collectable0: int
    collectable1: int
    cents: int | None


@dataclass(slots=True)
class _Round:
    """Some positions that are looked at together. `floor` is the oldest block that was seen, None before the first."""

    token_ids: list[TokenId]
    began_at: int
    turns: int
    ages: list[int]
    # Positions and the blocks of their changes that have still to be asked for; None while ages are.
    changes: list[tuple[TokenId, BlockHash]] | None = None
    floor: int | None = None
    seen: dict[TokenId, list[_Seen]] = field(default_factory=dict)
    growth: dict[Address, list[tuple[int, int, int]]] = field(default_factory=dict)


class Archive(Pricing):
    """Old states in, older windows out."""

    _round: _Round | None = None
    _asked: PastQuery | None = None

    def await_seeds(self) -> None:
        """Look at nothing before a history has said what it has: `seed` is going to be called for every position."""
        self._awaits_seeds = True

    # --- out ------------------------------------------------------------------------------------------

    def past_query(self) -> PastQuery | None:
        """Return reads at an earlier block that are wanted, or None."""
        query = super().past_query()
        if query is None and self._looks_back:
            query = self._asked = self._archive_query()
        return query

    def _archive_query(self) -> PastQuery | None:
        while True:
            current = self._round
            if current is not None and current.turns != self._turns:
                # Blocks left the chain: what was seen may be of them.
                self._unlooked.update((nft.token_id, None) for nft in self._of(current))
                current = self._round = None
            if current is None:
                current = self._round = self._begin_round()
                if current is None:
                    return None
            while current.ages:
                found = [nft for nft in self._of(current) if _wants(nft, current.began_at - current.ages[0])]
                if found:
                    return PastQuery(at=current.began_at - current.ages[0], calls=tuple(self._calls(found)))
                current.ages.pop(0)
            if current.changes is None:
                current.changes = self._changes_of(current)
            while current.changes:
                token_id, block = current.changes[0]
                nft = self._nfts.get(token_id)
                if nft is not None:
                    calls = tuple(self._calls([nft]))
                    return PastQuery(block=block, calls=calls, before=calls)
                current.changes.pop(0)
            self._round = None
            self._lengthen(current)

    def _begin_round(self) -> _Round | None:
        if self._load_ids or self._load_ticks or self._load_cores or self._load_history:
            return None  # whoever waits for a channel comes first
        now = self._evaluated_at
        token_ids: list[TokenId] = []
        for token_id in [*islice(self._unlooked, _LOOKS)]:
            del self._unlooked[token_id]
            if self._is_ready(token_id) and len(token_ids) < _AT_ONCE:
                token_ids.append(token_id)
            else:
                self._unlooked[token_id] = None  # another time: first the others
        if not token_ids:
            return None
        refused = min((age for age, until in self._refused_ages.items() if until > now), default=AGES_S[-1] + 1)
        return _Round(token_ids, now, self._turns, [age for age in AGES_S if age < min(refused, now)])

    def _is_ready(self, token_id: TokenId) -> bool:
        return not (self._awaits_seeds and token_id in self._unseeded) and self._can_seed(self._nfts[token_id])

    def _of(self, current: _Round) -> Iterable[Nft]:
        return (nft for token_id in current.token_ids if (nft := self._nfts.get(token_id)) is not None)

    def _calls(self, nfts: Iterable[Nft]) -> Iterable[Call]:
        """Yield each read once that the state of these positions takes; the answers are looked up by the same reads."""
        calls: dict[Call, None] = {}
        for nft in nfts:
            rng, pool = nft.range, nft.range.pool
            calls.update(dict.fromkeys((quote.pool, reads.SLOT0) for quote in self._pricing_pools(nft)))
            calls[pool.address, reads.GROWTH0] = calls[pool.address, reads.GROWTH1] = None
            for tick in (rng.lower, rng.upper):
                calls[reads.tick_call(pool.address, tick)] = None
            calls[reads.core_call(pool.address, rng.core_key)] = None
            calls[reads.nft_call(self._manager, nft.token_id)] = None
        return calls

    def _changes_of(self, current: _Round) -> list[tuple[TokenId, BlockHash]]:
        """Return the newest changes of liquidity that happened after the oldest block seen, and before the windows."""
        if current.floor is None:
            return []
        found: list[tuple[TokenId, BlockHash]] = []
        for nft in self._of(current):
            life = nft.whole_life
            if life is None or nft.ring is None:
                continue
            blocks = {
                event.block_hash: None
                for event in reversed([*_resizing(life)])
                if event.number > current.floor and (event.timestamp is None or event.timestamp < nft.ring.oldest)
            }
            found += [(nft.token_id, block) for block in islice(blocks, _CHANGES)]
        return found

    # --- in -------------------------------------------------------------------------------------------

    def absorb_past(self, query: PastQuery, answer: PastAnswer | None) -> None:
        """Take their answer; None where the block is not on the chain, or nobody answers."""
        if query is not self._asked:
            super().absorb_past(query, answer)
            return
        current, self._asked = self._round, None
        if current is None or current.turns != self._turns:
            return
        if current.ages:
            self._absorb_age(current, query, answer)
        elif current.changes:
            self._absorb_change(current, query, answer)

    def _absorb_age(self, current: _Round, query: PastQuery, answer: PastAnswer | None) -> None:
        age = current.ages.pop(0)
        if answer is None or not answer.has_state:
            if answer is not None and answer.timestamp > query.at:
                current.floor = 0  # the chain is younger: all that ever happened came after it
            else:
                self._refused_ages[age] = self._evaluated_at + _REFUSED_S
            current.ages.clear()
            return
        current.floor = answer.block.number
        found = dict(zip(query.calls, answer.calls, strict=True))
        pools: set[Pool] = set()
        for nft in self._of(current):
            if self._see(current, nft, found, answer, answer.timestamp):
                pools.add(nft.range.pool)
        for pool in pools:
            growth = [reads.decode_uint(found[pool.address, name]) for name in (reads.GROWTH0, reads.GROWTH1)]
            if growth[0] is not None and growth[1] is not None:
                current.growth.setdefault(pool.address, []).append((answer.timestamp, growth[0], growth[1]))

    def _absorb_change(self, current: _Round, query: PastQuery, answer: PastAnswer | None) -> None:
        assert current.changes is not None
        token_id, block = current.changes.pop(0)
        nft = self._nfts.get(token_id)
        if nft is None:
            return
        if answer is None or not answer.has_state:
            # Nothing beyond it can be known: what is older is of no use.
            events = () if nft.life is None else nft.life.events
            number = max((event.number for event in events if event.block_hash == block), default=0)
            current.seen[token_id] = [one for one in current.seen.get(token_id, ()) if one.number >= number]
            current.changes = [change for change in current.changes if change[0] != token_id]
            return
        self._see(current, nft, dict(zip(query.calls, answer.calls, strict=True)), answer, answer.timestamp)
        before = dict(zip(query.before, answer.before, strict=True))
        self._see(current, nft, before, answer, answer.timestamp, is_before=True)

    def _see(
        self,
        current: _Round,
        nft: Nft,
        found: dict[Call, bytes | None],
        answer: PastAnswer,
        time: int,
        *,
        is_before: bool = False,
    ) -> bool:
        """Note what a position was in an answer; return whether it was there at all."""
        rng, pool = nft.range, nft.range.pool
        nft_call, core_call = reads.nft_call(self._manager, nft.token_id), reads.core_call(pool.address, rng.core_key)
        slot0 = reads.decode_slot0(found.get((pool.address, reads.SLOT0)))
        position = reads.decode_nft(found.get(nft_call))
        growth = [reads.decode_uint(found.get((pool.address, name))) for name in (reads.GROWTH0, reads.GROWTH1)]
        if core_call not in found or slot0 is None or not slot0[0] or position is None or None in growth:
            return False
        core = reads.decode_core(found[core_call])
        ticks = [reads.decode_tick(found[reads.tick_call(pool.address, tick)]) for tick in (rng.lower, rng.upper)]
        collectable = []
        for side, last, stored, core_last, core_stored in (
            (0, position.last0, position.owed0, core.last0, core.owed0),
            (1, position.last1, position.owed1, core.last1, core.owed1),
        ):
            inside = growth_inside(slot0[1], rng.lower, rng.upper, growth[side] or 0, ticks[0][side], ticks[1][side])
            mine, theirs = stored, core_stored
            if position.liquidity:
                mine = owed(inside, last, Liquidity(position.liquidity), RawAmount(stored))
                theirs = owed(inside, core_last, Liquidity(core.liquidity), RawAmount(core_stored))
            collectable.append(min(mine, theirs))
        amounts = amounts_at(slot0[0], rng.sqrt_lower, rng.sqrt_upper, Liquidity(position.liquidity))
        cents: dict[Address, int] = {}
        quotes = [*self._pricing_pools(nft)]
        self._price_pools(cents, quotes, [found.get((quote.pool, reads.SLOT0)) for quote in quotes])
        block = answer.block
        current.seen.setdefault(nft.token_id, []).append(
            _Seen(
                block.number - is_before,
                block.hash,
                time,
                collectable[0],
                collectable[1],
                pair_cents(*amounts, cents.get(pool.token0), cents.get(pool.token1)),
            )
        )
        return True

    def _lengthen(self, current: _Round) -> None:
        """Give windows what was seen."""
        old = [block for block, (time, _) in self._seen_in.items() if time <= self._evaluated_at - _RECENT_S]
        for block in old:
            del self._seen_in[block]
        pools: set[Pool] = set()
        for nft in self._of(current):
            if nft.whole_life is None or nft.ring is None or not current.seen.get(nft.token_id):
                continue
            seen = _unbroken(sorted(current.seen[nft.token_id], key=lambda one: (one.time, one.number)), nft)
            nft.ring.prepend([(one.time, *_counters_at(nft.whole_life, one), one.cents) for one in seen])
            pools.add(nft.range.pool)
            for one in seen:
                if one.time > self._evaluated_at - _RECENT_S:
                    self._seen_in.setdefault(one.block_hash, (one.time, set()))[1].add(nft.token_id)
        for pool in pools:
            if pool.ring is not None:
                pool.ring.prepend(sorted(current.growth.get(pool.address, ())))


def _counters_at(life: Lifetime, seen: _Seen) -> tuple[int, int]:
    """Return what a position had earned, as its ring counts it: what happened since is taken off again."""
    since = [event for event in life.events if event.number > seen.number]
    return (
        seen.collectable0 + life.net0 - life.shift0 - sum(event.flow0 for event in since),
        seen.collectable1 + life.net1 - life.shift1 - sum(event.flow1 for event in since),
    )


def _unbroken(seen: Sequence[_Seen], nft: Nft) -> list[_Seen]:
    """Return the newest of what was seen, oldest first, between which nothing is that was not looked at.

    Broken is the line by a change of liquidity with only one side known, by events that are not listed any more, and
    by a moment without a value, which would hide the value of all windows over it.
    """
    life, ring = nft.whole_life, nft.ring
    assert life is not None and ring is not None
    kept: list[_Seen] = []
    for one in reversed(seen):
        if one.time >= ring.oldest:
            continue
        is_listed = not any(life.older) or not life.events or one.number >= life.events[0].number
        if not is_listed or (one.cents is None and nft.value_cents is not None):
            break
        newer = kept[-1] if kept else None
        if newer is None:
            missed = any(
                event.number > one.number and (event.timestamp is None or event.timestamp < ring.oldest)
                for event in _resizing(life)
            )
        else:
            missed = newer.time != one.time and any(
                one.number < event.number <= newer.number for event in _resizing(life)
            )
        if missed:
            break
        kept.append(one)
    return kept[::-1]


def _resizing(life: Lifetime) -> Iterable[Event]:
    return (event for event in life.events if event.kind != "collect")


def _wants(nft: Nft, at: int) -> bool:
    return nft.ring is not None and nft.ring.oldest > at + SAMPLE_EVERY_S
