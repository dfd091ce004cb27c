"""The broker's contract: what an engine and a gateway of one chain may ask of whatever joins them.

Two keep it, and pass one suite (tests/contracts): `memory`, within a process, and `redis_link`, between processes.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from ..domain.chain import Header
from ..domain.errors import RetryableError
from .steps import Heard, Held, Step

__all__ = ["BrokerAway", "ChainLink", "Fenced", "Interests", "Place", "Reading"]

# What a reader has of a channel: epoch and seq; None for nothing.
Place: TypeAlias = tuple[str, int] | None


class BrokerAway(RetryableError):
    """The broker does not answer, or refuses for now; whether a write was taken is not known."""


class Fenced(RetryableError):
    """The writer is not in charge (any more), or what it wrote last is not there: only a new run can go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Channels as of one step; `channels` lacks those that are not there.

    `age_s` is how long ago the block became the head, by the broker's clock. All of it is empty where there is no run.
    """

    run: str = ""
    number: int = 0
    is_complete: bool = False
    header: Header | None = None
    age_s: float = 0.0
    channels: Mapping[str, Held] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interests:
    """What somebody wishes for: all of it, or how that changed since the reader looked last.

    `cursor` is where the next look goes on; `gateways` is how many live. Where it `is_whole`, `added` is all there is.
    """

    cursor: str
    gateways: int
    is_whole: bool
    added: Set[str]
    removed: Set[str] = frozenset()


class ChainLink(Protocol):
    """One chain's steps and wishes.

    Every call may raise BrokerAway; its time is bounded.
    """

    # --- the engine's side ----------------------------------------------------------------------------

    async def acquire(self, holder: str, ttl_ms: int) -> str | None:
        """Take the lease, or take it anew; return the token of a new generation, None while another has it.

        One that ran out is its holder's still for a third of `ttl_ms`, from when another first asks for it.
        """

    async def renew(self, token: str, ttl_ms: int, number: int = 0) -> bool:
        """Keep the lease and let gateways and engines hear that the line lives.

        Returns:
            False where another was in charge since, or where the step `number`, which was written, is there no more.
        """

    async def release(self, token: str) -> None:
        """Give the lease back, if it is still this one."""

    async def publish(self, token: str, number: int, step: Step) -> None:
        """Write and notify, all or nothing. The same number again is taken once.

        Raises:
            Fenced: The token is not the newest, or the step before is not there.
        """

    async def close(self, token: str, channels: Iterable[str]) -> list[str]:
        """Remove those of the channels that no gateway wishes for; return which these were.

        Raises:
            Fenced: The token is not the newest.
        """

    async def interests(self, since: str = "") -> Interests:
        """Return what is wished for, or what changed in that since a look's `cursor`, if that is still known.

        Gateways that were silent for too long are forgotten before.
        """

    def wishes(self) -> AsyncIterator[Sequence[str]]:
        """Yield channels that gateways wish for and that are not there; the first item, empty, says that it listens.

        Nothing that is wished for after the first item is missed, until it raises BrokerAway. Further empty ones come
        with each renewal of the lease.
        """

    # --- a gateway's side -----------------------------------------------------------------------------

    async def announce(self, gateway: str, add: Iterable[str], remove: Iterable[str], ttl_ms: int) -> bool:
        """Change and renew a gateway's wishes.

        Returns:
            Whether its earlier wishes were still there, all of them; if not, only `add` is.
        """

    async def leave(self, gateway: str) -> None:
        """Forget a gateway's wishes."""

    def steps(self) -> AsyncIterator[Heard | None]:
        """Yield steps as they are published; the first item, None, says that it listens.

        Nothing that is published after the first item is missed, until it raises BrokerAway. A beat comes with each
        renewal of the lease, so silence means that nobody is in charge, or that the line is dead.
        """

    async def read(self, places: Mapping[str, Place]) -> Reading:
        """Return channels as of one step, each from the place that the reader has, if that leads on, or whole."""
