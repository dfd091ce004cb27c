"""The past where it is not recorded: a gateway reads the database itself, and asks the engine for what is not in there.

So it answers what the engine's own process would: records that still wait to be written, or that are in the database
and left the chain, are the engine's to tell. Without its word nothing is read: it might be of another branch.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from ..broker.asks import ask_key
from ..domain.diff import JsonObject
from ..domain.errors import ClientError
from ..domain.ids import ChainId, TokenId
from ..protocols.channels import PositionChannel
from .reading import Reads, Shelf, Unwritten, unproved

__all__ = ["PastApart", "past_answer"]

_RETRY_MS: Final = 2000


class _Said(msgspec.Struct, frozen=True):
    """What an engine answers: whether it records any past, and what its database lacks of a position."""

    kept: bool
    unwritten: Unwritten | None = None


def past_answer(unwritten: Unwritten | None, *, is_kept: bool) -> bytes:
    """Return what an engine answers a gateway, as JSON.

    Args:
        unwritten: What its database lacks; None while it isn't known what of it is on the chain.
        is_kept: Whether it records any past.
    """
    return msgspec.json.encode(_Said(is_kept, unwritten))


class Asked(Protocol):
    """Answers of an engine; see broker.asking."""

    async def get(self, keys: Sequence[str]) -> Mapping[str, Any]:
        """Return the answers that are to be had, all of the head on return."""


class PastApart:
    """The past of positions that an engine elsewhere records.

    Args:
        shelf: Where it writes.
        asked: Returns who asks the engine of a channel; None where there is none.
        identity: Returns what tells a chain's deployment of a protocol from others.
    """

    def __init__(
        self,
        shelf: Shelf,
        asked: Callable[[PositionChannel], Asked | None],
        identity: Callable[[ChainId, str], str],
    ) -> None:
        self._reads = Reads(shelf)
        self._asked = asked
        self._identity = identity

    async def read(self, chain_id: ChainId, protocol: str, token_id: TokenId, length_s: int, count: int) -> JsonObject:
        """Return a window that ends now, with at most so many points; as `Histories.read`.

        Raises:
            ClientError: `history_unavailable` while the database can't be read or no engine answers; `not_found` where
                the engine records none; `chain_unavailable` while it isn't known what of it is on the chain.
        """
        asked = self._asked(PositionChannel(chain_id, protocol, token_id))
        key = ask_key("past", protocol, token_id)
        answer = None if asked is None else (await asked.get([key])).get(key)
        if answer is None:
            raise ClientError("history_unavailable", "no engine answers now", retry_after_ms=_RETRY_MS)
        try:
            said = msgspec.convert(answer, _Said)
        except msgspec.ValidationError as error:
            raise ClientError(
                "history_unavailable", "the engine is of another version", retry_after_ms=_RETRY_MS
            ) from error
        if not said.kept:
            raise ClientError("not_found", "no history is kept: the engine has no store, or history.enabled is false")
        if said.unwritten is None:
            raise unproved()
        place = chain_id, protocol, self._identity(chain_id, protocol)
        return await self._reads.read(place, token_id, said.unwritten, length_s, count)
