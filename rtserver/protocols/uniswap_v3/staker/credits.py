"""What positions were credited when they were unstaked: the contract tells neither how much, nor for which position.

TokenUnstaked names the position and the incentive. What the incentive had left before that block and after it gives
the amount, by the contract's own formula; it counts only if it leads from the one to the other to the unit. So what
is told is what was credited, whichever blocks were seen, as long as someone keeps the state of that one. Two reads
a block, of which only the past is needed; where they fail, or don't add up, the sum over the life stays unknown.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from ....domain.chain import Log
from ....domain.ids import Address, BlockHash, Tick, TokenId
from ...earning import PastAnswer, PastQuery
from . import events as ev
from .events import IncentiveId, IncentiveKey

__all__ = ["Credits"]

_MASK_160: Final = (1 << 160) - 1
# Unstakes of one incentive in one block; more than a transaction has room for.
_MAX_GROUP: Final = 200

_Place: TypeAlias = tuple[BlockHash, int]  # block and index of a log
_Group: TypeAlias = tuple[BlockHash, IncentiveId]


@dataclass(slots=True, eq=False)
class _Unstake:
    """One TokenUnstaked; `amount` is None until it is known."""

    token_id: TokenId
    block_hash: BlockHash
    index: int
    incentive: IncentiveId
    amount: int | None = None


@dataclass(slots=True)
class _Seen:
    """What blocks tell of an unstake by themselves: its incentive's sums before and after."""

    before: tuple[int, int]
    after: tuple[int, int] | None = None


@dataclass(slots=True)
class _Reads:
    """What was read of a group: sums before and after; per position its stake and its ticks before."""

    timestamp: int
    before: tuple[int, int]
    after: tuple[int, int]
    stakes: dict[TokenId, tuple[int, int]]
    ticks: dict[TokenId, tuple[Tick, Tick]]


class Credits:
    """Unstakes and their amounts.

    Args:
        staker: The contract.
        keys: The incentives' terms, as far as they are known.
    """

    def __init__(self, staker: Address, keys: Mapping[IncentiveId, IncentiveKey]) -> None:
        self._at = staker
        self._keys = keys
        self._tracked: set[TokenId] = set()
        # Of which all unstakes are known.
        self._known: set[TokenId] = set()
        self._unstakes: dict[TokenId, dict[_Place, _Unstake]] = {}
        # All unstakes of blocks that were seen, also of positions that nobody asks for: they share the sums.
        self._groups: dict[_Group, dict[int, _Unstake]] = {}
        self._blocks: dict[BlockHash, set[IncentiveId]] = {}
        # Of these nobody's unstake is missing: of blocks that were seen, and of those whose logs were asked for.
        self._whole: set[_Group] = set()
        self._open: dict[_Group, None] = {}
        self._waiting: set[_Group] = set()
        self._reads: dict[_Group, _Reads] = {}
        self._asked: tuple[PastQuery, _Group] | None = None
        self._seen: dict[_Group, _Seen] = {}
        # What an earlier process found out, and which of it the next one has to be told.
        self._kept: dict[_Place, int] = {}
        self._kept_facts: dict[TokenId, list[Any]] = {}
        self._unkept: set[TokenId] = set()

    # --- whose ----------------------------------------------------------------------------------------

    def track(self, token_id: TokenId) -> bool:
        """Keep a position's credits; return whether its past has to be asked for."""
        is_new = token_id not in self._tracked
        self._tracked.add(token_id)
        return is_new

    def untrack(self, token_id: TokenId) -> None:
        """Forget a position."""
        self._tracked.discard(token_id)
        self._known.discard(token_id)
        self._kept_facts.pop(token_id, None)
        for unstake in self._unstakes.pop(token_id, {}).values():
            self._unkept.add(token_id)
            group = unstake.block_hash, unstake.incentive
            members = self._groups.get(group)
            if members is not None and not any(one.token_id in self._tracked for one in members.values()):
                self._discard(group)

    def unknow(self) -> None:
        """Nothing that was told of the past is true any more."""
        self._known.clear()
        for token_id in self._tracked:
            self._forget(token_id, self._unstakes.get(token_id, {}).values())
        self._groups.clear()
        self._blocks.clear()
        self._whole.clear()
        self._open.clear()
        self._waiting.clear()
        self._reads.clear()
        self._seen.clear()

    # --- events ---------------------------------------------------------------------------------------

    def fold(self, log: Log, before: tuple[int, int] | None) -> None:
        """Take a TokenUnstaked of a new block; `before` is its incentive's sums until then, None where unknown."""
        group = log.block_hash, log.topics[2].lower()
        if not self._groups.get(group) and before is not None:
            self._seen[group] = _Seen(before)
        else:
            # Shared with another of the same block: the amounts are read, see `past_query`.
            self._seen.pop(group, None)
        self._take(log)
        self._whole.add(group)

    def saw(self, incentive: IncentiveId, sums: tuple[int, int]) -> None:
        """Take an incentive's sums at the newest block."""
        for group, seen in self._seen.items():
            if group[1] == incentive:
                seen.after = sums

    def settle(self, head: BlockHash, now: int) -> None:
        """Credit what was unstaked alone in the newest block, by what was read for that block anyway."""
        for group, seen in self._seen.items():
            key, members = self._keys.get(group[1]), self._groups.get(group)
            if group[0] != head or key is None or seen.after is None or not members or group not in self._open:
                continue
            (one,) = members.values()
            reads = _Reads(now, seen.before, seen.after, {}, {})
            if self._settle(key, reads, {one: (seen.after[1] - seen.before[1]) & _MASK_160}):
                del self._open[group]
        self._seen.clear()

    def complete(self, token_id: TokenId, logs: Iterable[Log]) -> None:
        """Take all of a position's unstakes up to some block; those folded since are known."""
        if token_id in self._tracked:
            for log in logs:
                self._take(log)
            self._known.add(token_id)
            self._kept_facts.pop(token_id, None)

    def _take(self, log: Log) -> None:
        token_id, incentive = TokenId(int(log.topics[1], 16)), log.topics[2].lower()
        place, group = (log.block_hash, log.index), (log.block_hash, incentive)
        members = self._groups.setdefault(group, {})
        self._blocks.setdefault(log.block_hash, set()).add(incentive)
        unstake = members.get(log.index)
        if unstake is None:
            unstake = members[log.index] = _Unstake(token_id, log.block_hash, log.index, incentive)
        if token_id in self._tracked:
            mine = self._unstakes.setdefault(token_id, {})
            if place not in mine:
                mine[place] = unstake
                unstake.amount = self._kept.get(place, unstake.amount)
                self._unkept.add(token_id)
                if unstake.amount is None:
                    self._open[group] = None

    def drop(self, block_hashes: Collection[BlockHash]) -> None:
        """Take back the unstakes of blocks that left the chain."""
        for block_hash in block_hashes:
            for incentive in self._blocks.pop(block_hash, ()):
                group = block_hash, incentive
                for unstake in self._groups.pop(group).values():
                    self._forget(unstake.token_id, [unstake])
                self._leave(group)

    def forget(self, block_hash: BlockHash) -> None:
        """Let go of what only others' amounts could need: the block is too deep to be undone."""
        for incentive in list(self._blocks.get(block_hash, ())):
            group = block_hash, incentive
            if group not in self._open and group not in self._waiting:
                self._discard(group)

    def _discard(self, group: _Group) -> None:
        """Forget who shared an incentive's sums in a block; the amounts that are known stay known."""
        del self._groups[group]
        incentives = self._blocks[group[0]]
        incentives.discard(group[1])
        if not incentives:
            del self._blocks[group[0]]
        self._leave(group)

    def _leave(self, group: _Group) -> None:
        self._whole.discard(group)
        self._open.pop(group, None)
        self._waiting.discard(group)
        self._reads.pop(group, None)

    def _forget(self, token_id: TokenId, unstakes: Iterable[_Unstake]) -> None:
        mine = self._unstakes.get(token_id, {})
        for unstake in list(unstakes):
            if mine.pop((unstake.block_hash, unstake.index), None) is not None:
                self._unkept.add(token_id)

    # --- amounts --------------------------------------------------------------------------------------

    @property
    def open_count(self) -> int:
        """Return in how many blocks something was unstaked whose amount is still to be read."""
        return len(self._open)

    def learned(self) -> None:
        """More terms of incentives are known."""
        self._open.update(dict.fromkeys(sorted(self._waiting)))
        self._waiting.clear()

    def past_query(self) -> PastQuery | None:
        """Return reads that would tell an amount, or None."""
        while self._open:
            group = next(iter(self._open))
            key = self._keys.get(group[1])
            members = self._groups.get(group, {})
            if key is None or not 0 < len(members) <= _MAX_GROUP:
                del self._open[group]
                self._waiting.add(group)
                continue
            query = self._first_query(group, members) if group not in self._reads else self._second_query(group, key)
            self._asked = query, group
            return query
        return None

    def _first_query(self, group: _Group, members: Mapping[int, _Unstake]) -> PastQuery:
        incentive = ev.incentive_call(self._at, group[1])
        before = [incentive]
        for token_id in sorted({one.token_id for one in members.values()}):
            before += [ev.stake_call(self._at, token_id, group[1]), ev.deposit_call(self._at, token_id)]
        # Of an old block the positions are known that somebody asked for. Others shared the sums.
        logs = None if group in self._whole else (self._at, ev.TOKEN_UNSTAKED)
        return PastQuery(block=group[0], calls=(incentive,), before=tuple(before), logs=logs)

    def _second_query(self, group: _Group, key: IncentiveKey) -> PastQuery:
        ranges = sorted(set(self._reads[group].ticks.values()))
        return PastQuery(block=group[0], calls=tuple(ev.inside_call(key.pool, *range_) for range_ in ranges))

    def absorb_past(self, query: PastQuery, answer: PastAnswer | None) -> bool:
        """Take the answer, None where there is none; return whether this asked for it."""
        if self._asked is None or self._asked[0] is not query:
            return False
        group, self._asked = self._asked[1], None
        members = self._groups.get(group)
        if members is None or group not in self._open:
            return True  # undone meanwhile
        order = [members[index] for index in sorted(members)]
        reads = self._reads.get(group)
        del self._open[group]
        if answer is None or None in answer.before:
            self._reads.pop(group, None)
            return True
        if query.logs is not None:
            self._whole.add(group)
            for log in answer.logs:
                if len(log.topics) == 3 and log.topics[2].lower() == group[1]:
                    self._take(log)
            if len(members) > len(order):
                self._open[group] = None  # once more, with all of them
                return True
        if reads is None:
            reads = _first_reads(order, answer)
            if len(order) > 1:
                self._reads[group] = reads
                self._open[group] = None
                return True
            # Alone it is all that was claimed in this block.
            seconds = {order[0]: (reads.after[1] - reads.before[1]) & _MASK_160}
        else:
            del self._reads[group]
            inside = {
                range_: ev.decode_inside(result)
                for range_, result in zip(sorted(set(reads.ticks.values())), answer.calls, strict=True)
            }
            seconds = {}
            for one in order:
                growth = inside[reads.ticks[one.token_id]]
                if growth is None:
                    return True  # its ticks went with its liquidity, in the same block
                initial, liquidity = reads.stakes[one.token_id]
                # Who stakes and unstakes again in one second earns nothing.
                again = any(one.token_id == earlier.token_id for earlier in seconds)
                seconds[one] = 0 if again else ((growth - initial) & _MASK_160) * liquidity & _MASK_160
        self._settle(self._keys[group[1]], reads, seconds)
        return True

    def _settle(self, key: IncentiveKey, reads: _Reads, seconds: Mapping[_Unstake, int]) -> bool:
        """Credit by the contract's formula, one after the other, if that leads to what the contract says then.

        Returns:
            Whether it did.
        """
        unclaimed, claimed = reads.before
        amounts: dict[_Unstake, int] = {}
        for one, mine in seconds.items():
            left = ((max(key.end, reads.timestamp) - key.start) << 128) - claimed
            if left <= 0:
                return False
            amounts[one] = unclaimed * mine // left
            unclaimed -= amounts[one]
            claimed = (claimed + mine) & _MASK_160
        # Once an incentive is over and its last stake gone, what is left may be paid back in the same block.
        is_ended = reads.timestamp >= key.end and not reads.after[0]
        if claimed != reads.after[1] or not (is_ended or unclaimed == reads.after[0]):
            return False
        for one, amount in amounts.items():
            one.amount = amount
            self._unkept.add(one.token_id)
        return True

    def credited(self, token_id: TokenId) -> dict[Address, int] | None:
        """Return what was credited for a position so far, by token; None while some of it is unknown."""
        if token_id not in self._known:
            return None
        sums: dict[Address, int] = {}
        for unstake in self._unstakes.get(token_id, {}).values():
            key = self._keys.get(unstake.incentive)
            if key is None or unstake.amount is None:
                return None
            sums[key.reward_token] = sums.get(key.reward_token, 0) + unstake.amount
        return sums

    # --- over a restart -------------------------------------------------------------------------------

    def keep(self, *, whole: bool) -> dict[str, Any]:
        """Return the amounts that are known, by position: those that changed, or all."""
        changed = self._unstakes.keys() if whole else self._unkept
        # What was kept counts until the past tells that it is no more.
        facts: dict[str, Any] = {f"u:{token_id}": fact for token_id, fact in self._kept_facts.items() if whole}
        for token_id in changed:
            known = [one for one in self._unstakes.get(token_id, {}).values() if one.amount is not None]
            if token_id not in self._kept_facts:
                facts[f"u:{token_id}"] = [[one.block_hash, one.index, str(one.amount)] for one in known] or None
        self._unkept = set()
        return {key: fact for key, fact in facts.items() if fact is not None or not whole}

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Take what an earlier process found out: it counts for those unstakes that the past still tells."""
        mine = {TokenId(int(key[2:])): list(fact) for key, fact in facts.items() if key[:2] == "u:"}
        self._kept = {
            (BlockHash(block_hash), int(index)): int(amount)
            for fact in mine.values()
            for block_hash, index, amount in fact
        }
        self._kept_facts = mine


def _first_reads(order: list[_Unstake], answer: PastAnswer) -> _Reads:
    tokens = sorted({one.token_id for one in order})
    pairs = [answer.before[1 + 2 * index : 3 + 2 * index] for index in range(len(tokens))]
    return _Reads(
        timestamp=answer.timestamp,
        before=ev.decode_words(answer.before[0]),
        after=ev.decode_words(answer.calls[0]),
        stakes={token_id: ev.decode_words(stake) for token_id, (stake, _) in zip(tokens, pairs, strict=True)},
        ticks={token_id: ev.decode_ticks(deposit) for token_id, (_, deposit) in zip(tokens, pairs, strict=True)},
    )
