"""What a staker contract tells once, in its events: the terms of incentives, and when positions were unstaked.

The rest of it is read from the contract whenever it may have changed: see `staker`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ....domain.chain import Log
from ....domain.diff import JsonObject
from ....domain.ids import Address, TokenId
from ...addresses import checksum
from ...base import HistoryQuery, PastAnswer, PastQuery
from . import events as ev
from .credits import Credits
from .events import IncentiveId, IncentiveKey
from .past import Past, unstakes_of

__all__ = ["Remembering"]

# Above this a JSON number is no integer any more. No canonical staker takes an incentive of that length.
_MAX_TIME: Final = (1 << 53) - 1


class Remembering:
    """The past of one v3-staker contract."""

    def __init__(self, staker: Address) -> None:
        self._past = Past(staker)
        # The name of a key is its hash, so what was once heard of one stays true on every branch.
        self._keys: dict[IncentiveId, IncentiveKey] = {}
        self._terms: dict[IncentiveId, JsonObject] = {}
        self._credits = Credits(staker, self._keys)
        # How often blocks left the chain.
        self._turns = 0

    def _learn(self, log: Log) -> IncentiveKey:
        key = ev.created_key(log)
        if key.end <= _MAX_TIME:
            self._keys.setdefault(key.id, key)
            self._credits.learned()
        return key

    def history_query(self, *, is_late: bool) -> HistoryQuery | None:
        """Return past logs that are wanted, or None; what could not be read is wanted again later."""
        return self._past.query(is_late=is_late, turn=self._turns)

    def _absorb_unstakes(self, token_id: TokenId, query: HistoryQuery, logs: Sequence[Log] | None) -> None:
        if query.turn != self._turns:
            self._past.reopen(unstakes_of(token_id))
        elif logs is not None:
            mine = [log for log in logs if int(log.topics[1], 16) == token_id]
            self._credits.complete(token_id, mine)

    @property
    def unread(self) -> int:
        """Return how much of the past is wanted that no channel waits for."""
        return self._past.late_count + self._credits.open_count

    def past_query(self) -> PastQuery | None:
        """Return reads at an earlier block that are wanted, or None."""
        return self._credits.past_query()

    def absorb_past(self, query: PastQuery, answer: PastAnswer | None) -> bool:
        """Take their answer; return whether this asked for it."""
        return self._credits.absorb_past(query, answer)

    def keep(self, *, whole: bool) -> dict[str, Any]:
        """Return what only the past tells: what was credited."""
        return self._credits.keep(whole=whole)

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Take what an earlier process kept of that."""
        self._credits.restore(facts)

    def credited(self, token_id: TokenId) -> dict[Address, int] | None:
        """Return what was credited for a position when it was unstaked, by token; None where unknown."""
        return self._credits.credited(token_id)

    def _terms_of(self, key: IncentiveKey) -> JsonObject:
        terms = self._terms.get(key.id)
        if terms is None:
            terms = self._terms[key.id] = {
                "incentive": key.id,
                "refundee": checksum(key.refundee),
                "startTime": key.start,
                "endTime": key.end,
            }
        return terms
