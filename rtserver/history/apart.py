"""The past where it is not recorded: a gateway reads the database itself, and asks the engine for what is not in there.

So it answers what the engine's own process would: records that still wait to be written, or that are in the database
and left the chain, are the engine's to tell. Without its word nothing is read: it might be of another branch.

Where engines share a chain any of them may have recorded a position, so all are asked, and what they tell is put
together. What one of them does not tell now is left out, as a gap is; if that leaves nothing, nothing is answered.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from ..broker.asks import ask_key
from ..domain.diff import JsonObject
from ..domain.errors import ClientError
from ..domain.ids import ChainId, TokenId
from ..domain.shards import label_of, named
from .reading import Place, Reads, Shelf, Unwritten, unproved

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
        asked: Returns who asks the engines of a chain, one for each shard; none while nobody follows it.
        identity: Returns what tells a chain's deployment of a protocol from others.
    """

    def __init__(
        self,
        shelf: Shelf,
        asked: Callable[[ChainId], Sequence[Asked]],
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
        key = ask_key("past", protocol, token_id)
        asked = self._asked(chain_id)
        answers = [answer.get(key) for answer in await asyncio.gather(*(one.get([key]) for one in asked))]
        said = [None if answer is None else _said(answer) for answer in answers]
        if all(one is None for one in said):
            raise ClientError("history_unavailable", "no engine answers now", retry_after_ms=_RETRY_MS)
        if not any(one is None or one.kept for one in said):
            raise ClientError("not_found", "no history is kept: the engine has no store, or history.enabled is false")
        identity = self._identity(chain_id, protocol)
        told: list[tuple[Place, Unwritten]] = []
        for shard, one in enumerate(said):
            if one is not None and one.unwritten is not None:
                place = chain_id, protocol, named(identity, label_of(shard, len(said)))
                told.append((place, one.unwritten))
        if not told:
            raise unproved()
        found = await self._reads.read(told, token_id, length_s, count)
        if not found["points"] and any(one is None or one.unwritten is None for one in said):
            raise ClientError(
                "history_unavailable", "not all engines of the chain answer now", retry_after_ms=_RETRY_MS
            )
        return found


def _said(answer: Any) -> _Said:
    try:
        return msgspec.convert(answer, _Said)
    except msgspec.ValidationError as error:
        raise ClientError(
            "history_unavailable", "the engine is of another version", retry_after_ms=_RETRY_MS
        ) from error
