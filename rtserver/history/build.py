"""Joins one chain's parts of history."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..domain.chain import Header, Reorged
from ..domain.errors import ChainUnavailable
from ..domain.ids import BlockHash, ChainId
from ..obs.metrics import Metrics
from ..store.values import ALONE
from .backlog import Backlog
from .reading import ChainHistory, Past, Shelf
from .recorder import REST_S, Recorder, Sampled
from .seeding import Seeding, Seeds
from .writer import Keep, Records, Writer

__all__ = ["Chain", "Kept", "build_history"]

_HOUR_S = 3600
_DAY_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """How records are taken and how long they are kept; as the settings of the same names."""

    every_s: int
    keep_minutes_h: int
    keep_hours_d: int
    keep_days_d: int
    queue_rows: int


class Positions(Sampled, Seeds, Protocol):
    """A book, as far as its positions are recorded and begin from records."""


class Shelves(Records, Shelf, Protocol):
    """Where records are written and read; see store.history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A chain as its history sees it.

    `identities` tell its deployments from others, by protocol. `window` returns the blocks that can be undone one by
    one, oldest first. `headers` reads headers by height.
    """

    chain_id: ChainId
    name: str
    identities: Mapping[str, str]
    books: Mapping[str, "Positions"]
    is_at_rest: Callable[[], bool]
    window: Callable[[], Sequence[Header]]
    headers: Callable[[int, int], Awaitable[Sequence[Header]]]


class Followed(Recorder):
    """A recorder that has the database looked at again after what only that can tell."""

    writer: Writer
    seeding: Seeding

    def published(self, head: Header) -> None:
        """Take what has to be told of this very block, and have new positions' windows continued."""
        super().published(head)
        self.seeding.published()

    def reorged(self, event: Reorged) -> None:
        """Forget what was recorded of blocks that left the chain."""
        super().reorged(event)
        self.seeding.reorged()
        if event.ancestor is None:
            self.writer.doubt()


def build_history(
    chain: Chain,
    kept: Kept,
    records: Shelves,
    metrics: Metrics,
    *,
    charge: Callable[[], str | None] = lambda: ALONE,
    gather_s: float = 1.0,
) -> ChainHistory:
    """Return a chain's history; its recorder and its writer are to be run.

    Args:
        chain: The chain.
        kept: What is kept.
        records: Where.
        metrics: Where it is counted.
        charge: Returns what proves that this process is the one to write, None while another is; see `Writer`.
        gather_s: Seconds for which records are gathered before they are written.
    """
    backlog = Backlog(kept.queue_rows)
    recorder = Followed(
        name=chain.name,
        books=chain.books,
        backlog=backlog,
        every_s=kept.every_s,
        is_at_rest=chain.is_at_rest,
        metrics=metrics,
    )

    def final() -> Header | None:
        # What is undone block by block is not rolled up. What is final is not in the window any more.
        window = chain.window()
        return window[0] if window else None

    async def hash_at(number: int) -> BlockHash | None:
        head = recorder.head
        assert head is not None
        if number > head.number:
            return None
        for header in reversed((*chain.window(), head)):
            if header.number == number:
                return header.hash
        found = await chain.headers(number, number)
        if not found:
            raise ChainUnavailable(f"no endpoint has block {number}")
        return found[0].hash

    recorder.writer = Writer(
        chain_id=chain.chain_id,
        name=chain.name,
        identities=chain.identities,
        records=records,
        backlog=backlog,
        head=lambda: recorder.head,
        final=final,
        hash_at=hash_at,
        keep=Keep(
            minutes_s=kept.keep_minutes_h * _HOUR_S,
            hours_s=kept.keep_hours_d * _DAY_S,
            days_s=kept.keep_days_d * _DAY_S,
        ),
        metrics=metrics,
        charge=charge,
        reach_s=REST_S + 2 * kept.every_s,
        gather_s=gather_s,
    )
    recorder.seeding = Seeding(
        name=chain.name,
        books=chain.books,
        past=Past(records, chain.chain_id, chain.identities, backlog),
        is_proved=lambda: recorder.writer.is_proved,
        head=lambda: recorder.head,
    )
    return ChainHistory(chain.identities, recorder, backlog, recorder.writer, recorder.seeding)
