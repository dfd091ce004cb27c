"""Reads what is known of a position's past: what is in the database, what waits for it, and what it is now.

One view of the three: of a position that has records waiting, the database is read only below the first of them; and
never over a height that it has still to be taken back to.
"""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from ..domain.diff import JsonObject
from ..domain.errors import ClientError, PermanentError, RetryableError
from ..domain.ids import ChainId, TokenId
from ..protocols.earning import WINDOWS_S, PastSample
from ..store.records import Bucket
from .backlog import Backlog
from .recorder import Recorder
from .seeding import Seeding
from .windows import Recent, Window, bucket_of, merged, points_of, recent_of, share_text
from .writer import Writer

__all__ = [
    "ChainHistory",
    "Histories",
    "Past",
    "Place",
    "Reads",
    "Shelf",
    "Unwritten",
    "parts_until",
    "unproved",
]

# A deployment: chain, protocol, and what tells it from others.
Place: TypeAlias = tuple[ChainId, str, str]

# Queries at once: each takes some milliseconds, and a thread or a connection.
_AT_ONCE: Final = 4
# Requests that may wait for their turn; more are told to come back.
_WAITING: Final = 100
_READ_S: Final = 5.0
# Who begins to write proves what is there within a second or two.
_PROVED_S: Final = 1.5
_LOOK_S: Final = 0.05
_RETRY_MS: Final = 2000
# Records that a window of each length begins with one of: a week of minutes would be 3,000 of each position.
_STEPS: Final = (12, 24, 28)
# Higher than any block.
_ALL: Final = (1 << 63) - 1


class Shelf(Protocol):
    """Where records are; see store.history."""

    async def window(
        self, place: Place, token_id: TokenId, *, start: int, end: int, step: int, below: int
    ) -> list[Bucket]:
        """Return the last record of each part of a window, after the last one before the window."""

    async def samples(
        self, place: Place, token_ids: Sequence[TokenId], parts: Sequence[tuple[int, int, int]], below: int
    ) -> dict[TokenId, list[PastSample]]:
        """Return the first record of some positions in each step of some parts of time, oldest first."""


@dataclass(frozen=True, slots=True)
class ChainHistory:
    """The parts of one chain; `identities` tell its deployments from others, by protocol."""

    identities: Mapping[str, str]
    recorder: Recorder
    backlog: Backlog
    writer: Writer
    seeding: Seeding


class Unwritten(msgspec.Struct, frozen=True, array_like=True):
    """What a position's past has that the database hasn't, as of the head; it crosses between processes.

    Args:
        end: The head's timestamp, in seconds.
        below: Under this height the database is right, and holds none of `recent`.
        recent: Records that wait, oldest first, and what the position is now.
        every_s: The pace at which records are taken: no finer resolution makes sense.
    """

    end: int
    below: int
    recent: tuple[Recent, ...]
    every_s: int


class Reads:
    """Reads windows from the database, a few at once.

    Args:
        shelf: Where records are.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    async def read(
        self, told: Sequence[tuple[Place, Unwritten]], token_id: TokenId, length_s: int, count: int
    ) -> JsonObject:
        """Return a window that ends with what was not written, with at most so many points.

        Args:
            told: What each that records the position has not written, and where it writes: one deployment's places.
            token_id: The position.
            length_s: The window's length in seconds.
            count: How many points.

        Raises:
            ClientError: `history_unavailable` while the database can't be read.
        """
        step = max(-(-length_s // count), *(unwritten.every_s for _, unwritten in told))
        end = max(unwritten.end for _, unwritten in told)
        window = Window(start=end - length_s, end=end, step=step)
        lists = []
        for place, unwritten in told:
            buckets = await self._window(place, token_id, window, unwritten.below)
            buckets += [bucket_of(recent, window) for recent in unwritten.recent if recent.timestamp > window.start]
            lists.append(buckets)
        points, active_s, covered_s = points_of(merged(lists), window)
        chain_id, protocol, _ = told[0][0]
        return {
            "tokenId": str(token_id),
            "chainId": chain_id,
            "protocol": protocol,
            "resolution": step,
            "coveredSeconds": covered_s,
            "inRangeShare": share_text(active_s, covered_s),
            "points": list(points),
        }

    async def _window(self, place: Place, token_id: TokenId, window: Window, below: int) -> list[Bucket]:
        if self._waiting >= _WAITING:
            raise ClientError("history_unavailable", "too many ask at once", retry_after_ms=_RETRY_MS)
        self._waiting += 1
        try:
            async with asyncio.timeout(_READ_S), self._turn:
                return await self._shelf.window(
                    place, token_id, start=window.start, end=window.end, step=window.step, below=below
                )
        except (RetryableError, PermanentError, TimeoutError) as error:
            # What the database said may name it: that is for the log of whoever writes.
            raise ClientError(
                "history_unavailable", "the history can't be read now", retry_after_ms=_RETRY_MS
            ) from error
        finally:
            self._waiting -= 1


class Histories:
    """The past of all chains' positions, in the process that records it.

    Args:
        shelf: Where records are.
        chains: The chains, by id.
        every_s: The pace at which records are taken.
    """

    def __init__(self, shelf: Shelf, chains: Mapping[ChainId, ChainHistory], every_s: int) -> None:
        self._reads = Reads(shelf)
        self._chains = chains
        self._every_s = every_s

    def unwritten(self, chain_id: ChainId, protocol: str, token_id: TokenId) -> Unwritten | None:
        """Return what the database lacks of a position; None while it isn't known what of it is on the chain."""
        chain = self._chains[chain_id]
        if chain.recorder.head is None or not chain.writer.is_proved:
            return None
        waiting = chain.backlog.of(protocol, token_id)
        reach = chain.backlog.reach
        now = chain.recorder.now(protocol, token_id)
        if now is not None:
            now = chain.backlog.rest(now)
        below = min([record.block.number for record in waiting] + ([reach + 1] if reach is not None else []) + [_ALL])
        recent = tuple(map(recent_of, (*waiting, *([] if now is None else [now]))))
        return Unwritten(chain.recorder.head.timestamp, below, recent, self._every_s)

    def proof(self, chain_id: ChainId) -> Coroutine[Any, Any, None] | None:
        """Return what waits for a moment until it is known what is on the chain, None where it is."""
        writer = self._chains[chain_id].writer
        return None if writer.is_proved else _until_proved(writer)

    async def read(self, chain_id: ChainId, protocol: str, token_id: TokenId, length_s: int, count: int) -> JsonObject:
        """Return a window that ends now, with at most so many points.

        Args:
            chain_id: The chain.
            protocol: A protocol that is served on it.
            token_id: The position; it need not be tracked.
            length_s: The window's length in seconds.
            count: How many points.

        Raises:
            ClientError: `history_unavailable` while the database can't be read; `chain_unavailable` while it isn't
                known what of it is on the chain.
        """
        unwritten = self.unwritten(chain_id, protocol, token_id)
        if unwritten is None:
            raise unproved()
        place = chain_id, protocol, self._chains[chain_id].identities[protocol]
        return await self._reads.read([(place, unwritten)], token_id, length_s, count)


async def _until_proved(writer: Writer) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(_PROVED_S):
            while not writer.is_proved:
                await asyncio.sleep(_LOOK_S)


def unproved() -> ClientError:
    """Return why nothing is read while it isn't known what of it is on the chain."""
    message = "the chain has not told yet which records are on it"
    return ClientError("chain_unavailable", message, retry_after_ms=_RETRY_MS)


class Past:
    """What was kept of a chain's positions, for what is computed over windows of time.

    Args:
        shelf: Where records are.
        chain_id: The chain.
        identities: What tells its deployments from others, by protocol.
        backlog: What has still to be taken back of what is there.
    """

    def __init__(self, shelf: Shelf, chain_id: ChainId, identities: Mapping[str, str], backlog: Backlog) -> None:
        self._shelf = shelf
        self._chain_id = chain_id
        self._identities = identities
        self._backlog = backlog

    async def samples(
        self, protocol: str, token_ids: Sequence[TokenId], now: int
    ) -> Mapping[TokenId, list[PastSample]]:
        """Return what is kept of some positions, oldest first: the denser the nearer to `now`, as windows need it.

        Raises:
            RetryableError, PermanentError: The database can't be read.
        """
        place = self._chain_id, protocol, self._identities[protocol]
        reach = self._backlog.reach
        return await self._shelf.samples(place, token_ids, parts_until(now), _ALL if reach is None else reach + 1)


def parts_until(now: int) -> list[tuple[int, int, int]]:
    """Return the parts of time (after, until, step in seconds) of which one record a step is worth having."""
    parts, until = [], now
    for length_s, count in zip(WINDOWS_S, _STEPS, strict=True):
        step = length_s // count
        # One more, so that there is one that is old enough for the window.
        parts.append((now - length_s - step, until, step))
        until = now - length_s - step
    return parts
