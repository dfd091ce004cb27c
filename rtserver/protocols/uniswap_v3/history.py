"""What only a position's own past events tell: owed principal, which no contract stores, and its whole life."""

from collections.abc import Sequence
from typing import Final

from ...domain.chain import Log
from ...domain.errors import RetryableError
from ...domain.ids import TokenId
from ..base import HistoryQuery
from . import events as ev
from .folding import tally
from .living import Living

__all__ = ["Histories"]

# One history query names at most this many token ids: providers bound the length of a topic list.
_HISTORY_IDS: Final = 200


class Histories(Living):
    """Past events in; owed principal and lives out."""

    def history_query(self, *, is_late: bool = False) -> HistoryQuery | None:
        """Return past logs that are wanted, or None; `is_late` asks for those that no channel waits for."""
        if is_late:
            query = self._payments_query() or self._lives_query()
            return query if query is not None or self._staking is None else self._staking.history_query(is_late=True)
        # First whose the positions are: owed principal is asked of those that turn up.
        if self._staking is not None and (query := self._staking.history_query(is_late=False)) is not None:
            return query
        ids = tuple(sorted(self._load_history)[:_HISTORY_IDS])
        if not ids:
            return None
        self._history_touched.difference_update(ids)
        return self._events_query(ids)

    def absorb_history(self, query: HistoryQuery, logs: Sequence[Log] | None) -> None:
        """Take the answer to a history query; None where it could not be read: what it tells stays unknown."""
        if query.address in self._holders:
            self._absorb_deposits(query, logs)
            return
        try:
            for log in logs or ():
                ev.check_shape(log.topics, log.data)
        except RetryableError:
            logs = None  # as good as no answer: the log is not what its node says it is
        if query.address != self._manager:
            self._absorb_payments(query, logs)
            return
        if logs is not None:
            logs = sorted(logs, key=lambda log: (log.block_number, log.index))
        self._absorb_principals(query, logs)
        self._absorb_lives(query, logs)

    def _absorb_principals(self, query: HistoryQuery, logs: Sequence[Log] | None) -> None:
        wanted = self._load_history.intersection(query.token_ids)
        answered = [token_id for token_id in query.token_ids if token_id in wanted - self._history_touched]
        self._load_history.difference_update(answered)
        if logs is None:
            return
        sums: dict[TokenId, tuple[int | None, int | None]] = dict.fromkeys(answered, (0, 0))
        for log in logs:
            token_id = TokenId(int(log.topics[1], 16))
            if token_id in sums and log.topics[0] != ev.INCREASE_LIQUIDITY:
                amounts = ev.word(log.data, 1), ev.word(log.data, 2)
                sums[token_id] = tally(log.topics[0], *sums[token_id], *amounts)
        for token_id, (principal0, principal1) in sums.items():
            nft = self._nfts.get(token_id)
            if nft is not None:
                nft.set_principal(principal0, principal1)
                self._dirty_ranges.add(nft.range)
