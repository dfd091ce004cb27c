"""What a gateway asks of an engine beside steps: what nobody pushes, as it moves with time and few look at it.

Rates, gains and what history has not written yet are asked for by key, a position and a kind, and answered as JSON of
one block. This module is the contract; `asking` is a gateway's side, `answering` an engine's, `redis_asks` the line.

**An answer is of a block, by hash, and of a run.** It is used under that very block only, so neither a new block nor a
reorganisation nor another engine leaves anything behind that could be taken for fresh: nothing has to be deleted.

**One ask for all.** Where Redis has no answer of the block, the script that looks leaves a mark and puts the ask into a
list; whoever comes while the mark is there only waits. A mark is a lease: an ask that was lost is repeated after it.

**Ahead of expiry.** A key that was asked for stays of interest for a while, and the engine answers it anew with each
block, before anyone asks, within a share of its time; a hit in the second half of that while renews it.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeAlias, get_args

from ..domain.chain import Header
from ..domain.ids import TokenId

__all__ = ["AHEAD_S", "HOT_S", "Answer", "AskKind", "AskLink", "ask_key", "is_renewed", "parse_key"]

# `brief` is what a list of positions shows of what one earned, `full` all of it, `past` what its history in the
# database lacks.
AskKind: TypeAlias = Literal["brief", "full", "past"]
_KINDS: Final[tuple[AskKind, ...]] = get_args(AskKind)

# For so long a key is answered with each block after it was asked for: who reads a page looks again within it.
HOT_S: Final = 30.0
# An answer may be of a block that the gateway hears of in a moment. After so long it is of one that it never will.
AHEAD_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine answered as of a block, as parsed JSON; an empty object where it knows nothing."""

    number: int
    hash: str
    value: Any


class AskLink(Protocol):
    """One engine's asks and answers. Every call may raise BrokerAway; its time is bounded."""

    async def ask(self, head: Header, keys: Sequence[str]) -> list[Answer | None]:
        """Return the answers that are there of a block, or of a later one; have the others answered."""

    def answered(self) -> AsyncIterator[None]:
        """Yield whenever something was answered, once for several; first as soon as it listens."""

    def asked(self) -> AsyncIterator[None]:
        """Yield whenever something may have been asked; first as soon as it listens."""

    async def take(self, token: str) -> Sequence[str]:
        """Return the keys that were asked of a run and not taken yet."""

    async def answer(self, token: str, head: Header, bodies: Mapping[str, bytes]) -> None:
        """Put answers in place, all of one block, and tell that they are there.

        Raises:
            Fenced: The token is not the newest.
        """


def ask_key(kind: AskKind, protocol: str, token_id: TokenId) -> str:
    """Return what is asked for, as text."""
    return f"{kind}:{protocol}:{token_id}"


def is_renewed(key: str) -> bool:
    """Return whether a key is answered ahead: what is read beside a database is kept with what was read there."""
    return not key.startswith("past:")


def parse_key(key: str) -> tuple[AskKind, str, TokenId] | None:
    """Return what a key asks for; None where it is of another version."""
    kind, _, rest = key.partition(":")
    protocol, _, token_id = rest.rpartition(":")
    if not protocol or not (token_id.isascii() and token_id.isdigit()):
        return None
    known = next((one for one in _KINDS if one == kind), None)
    return None if known is None else (known, protocol, TokenId(int(token_id)))
