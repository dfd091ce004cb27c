"""Owed principal from a position's own past events: the one thing that no contract stores."""

from collections.abc import Sequence
from typing import Final

from ...domain.chain import Log
from ...domain.ids import TokenId
from ..base import HistoryQuery
from . import events as ev
from .folding import tally
from .staked import Staked

__all__ = ["Histories"]

# One history query names at most this many token ids: providers bound the length of a topic list.
_HISTORY_IDS: Final = 200


class Histories(Staked):
    """Past events in, owed principal out."""

    def history_query(self) -> HistoryQuery | None:
        """Return past logs that are wanted, or None."""
        # First whose the positions are: owed principal is asked of those that turn up.
        if self._staking is not None and (query := self._staking.history_query()) is not None:
            return query
        ids = tuple(sorted(self._load_history)[:_HISTORY_IDS])
        if not ids:
            return None
        self._history_touched.difference_update(ids)
        topics = ((ev.DECREASE_LIQUIDITY, ev.COLLECT_NFT), tuple(f"0x{token_id:064x}" for token_id in ids))
        return HistoryQuery(self._manager, topics, ids)

    def absorb_history(self, query: HistoryQuery, logs: Sequence[Log] | None) -> None:
        """Take the answer to a history query; None where it could not be read: fees stay unknown."""
        if query.address in self._holders:
            self._absorb_deposits(query, logs)
            return
        answered = [token_id for token_id in query.token_ids if token_id not in self._history_touched]
        self._load_history.difference_update(answered)
        if logs is None:
            return
        sums: dict[TokenId, tuple[int | None, int | None]] = dict.fromkeys(answered, (0, 0))
        for log in sorted(logs, key=lambda log: (log.block_number, log.index)):
            token_id = TokenId(int(log.topics[1], 16))
            if token_id in sums:
                amounts = ev.word(log.data, 1), ev.word(log.data, 2)
                sums[token_id] = tally(log.topics[0], *sums[token_id], *amounts)
        for token_id, (principal0, principal1) in sums.items():
            nft = self._nfts.get(token_id)
            if nft is not None:
                nft.set_principal(principal0, principal1)
                self._dirty_ranges.add(nft.range)
