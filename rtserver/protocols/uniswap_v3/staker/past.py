"""What of the staker's past is wanted, asked and answered.

The contract enumerates nothing: not whose deposits it holds, not what a position is staked in, not the terms
of an incentive, of which it keeps the hash alone. All three are indexed in its events, so each is one log
query by topic, for many owners or positions at once. The other way, walking all NFTs that the staker holds
(`tokenOfOwnerByIndex`, `deposits`), costs two reads for each of them, again for every owner, begins anew with
every transfer, and still can't tell the terms: it would bring positions without rewards.

What is found is only where to look: every value is read from the contract at the head. So an answer may hold
too much (what left long ago, what a fork took away), never harmfully, and what comes after it is folded from
the blocks' own logs.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

from ....domain.chain import Log
from ....domain.ids import Address, TokenId
from ...base import HistoryQuery
from . import events as ev

__all__ = ["INCENTIVES", "Item", "Past", "deposits_to", "stakes_of", "unstakes_of"]

# (kind, of what): the incentives' terms, deposits to an owner, stakes of a position, its unstakes.
Item: TypeAlias = tuple[str, str | int]
INCENTIVES: Final[Item] = ("incentives", 0)
# One query names at most this many owners or ids: providers bound the length of a topic list.
_AT_ONCE: Final = 200
# Chain seconds after which what could not be read is asked for again.
_AGAIN_S: Final = 60


def deposits_to(owner: Address) -> Item:
    """Return the name of all deposits that ever came to an owner."""
    return "deposits", owner


def stakes_of(token_id: TokenId) -> Item:
    """Return the name of all incentives that a position was ever staked in."""
    return "stakes", token_id


def unstakes_of(token_id: TokenId) -> Item:
    """Return the name of all times that a position was unstaked."""
    return "unstakes", token_id


class Past:
    """Questions and whether they were answered."""

    def __init__(self, staker: Address) -> None:
        self._staker = staker
        self._open: dict[Item, None] = {}
        self._answered: set[Item] = set()
        self._failed: dict[Item, int] = {}
        self._asked: dict[bool, tuple[HistoryQuery, list[Item]]] = {}

    def want(self, item: Item) -> None:
        """Ask for it, unless it was."""
        if item not in self._answered and item not in self._failed:
            self._open[item] = None

    def forget(self, item: Item) -> None:
        """Nobody needs it any more."""
        self._open.pop(item, None)
        self._failed.pop(item, None)
        self._answered.discard(item)

    def is_open(self, item: Item) -> bool:
        """Return whether it is wanted and has no answer."""
        return item in self._open or item in self._failed

    def is_pending(self, item: Item) -> bool:
        """Return whether an answer may come soon: it is wanted, and has not just failed."""
        return item in self._open

    def restart(self) -> None:
        """Ask for everything again: the answers were of a chain that is no more."""
        self._open = dict.fromkeys([*self._open, *sorted(self._answered, key=str), *self._failed])
        self._answered.clear()
        self._failed.clear()
        self._asked.clear()

    def retry(self, now: int) -> None:
        """Ask again for what failed a while ago; `now` in chain seconds."""
        due = [item for item, at in self._failed.items() if at <= now]
        for item in due:
            del self._failed[item]
            self._open[item] = None

    def reopen(self, item: Item) -> None:
        """Ask for it again: its answer was of blocks that left the chain."""
        self._answered.discard(item)
        self._failed.pop(item, None)
        self._open[item] = None

    @property
    def late_count(self) -> int:
        """Return how many questions are open that nobody waits for."""
        return sum(1 for kind, _ in self._open if kind == "unstakes")

    def query(self, *, is_late: bool, turn: int) -> HistoryQuery | None:
        """Return the next question, or None. It replaces one of its kind that nobody answered.

        `is_late` asks for what nobody waits for; `turn` is noted in the question.
        """
        self._asked.pop(is_late, None)
        for kind in ("unstakes",) if is_late else ("incentives", "deposits", "stakes"):
            items = [item for item in self._open if item[0] == kind][:_AT_ONCE]
            if not items:
                continue
            topics: tuple[tuple[str, ...], ...]
            if kind == "incentives":
                topics = ((ev.INCENTIVE_CREATED,),)
            elif kind == "deposits":
                topics = ((ev.DEPOSIT_TRANSFERRED,), (), (), tuple(f"0x{str(of)[2:]:0>64}" for _, of in items))
            else:
                topics = (
                    (ev.TOKEN_STAKED if kind == "stakes" else ev.TOKEN_UNSTAKED,),
                    tuple(f"0x{of:064x}" for _, of in items),
                )
            query = HistoryQuery(self._staker, topics, (), turn)
            self._asked[is_late] = query, items
            return query
        return None

    def answer(self, query: HistoryQuery, logs: Sequence[Log] | None, now: int) -> list[Item]:
        """Note an answer, None where it could not be read; return what it answers, nothing for an old question."""
        is_late = next((kind for kind, asked in self._asked.items() if asked[0] is query), None)
        if is_late is None:
            return []
        items = [item for item in self._asked.pop(is_late)[1] if item in self._open]
        for item in items:
            del self._open[item]
            if logs is None:
                self._failed[item] = now + _AGAIN_S
            else:
                self._answered.add(item)
        return items
