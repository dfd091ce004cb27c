"""Reads what earlier blocks held, beside everything else and one block at a time: nobody waits for it.

What a book asks for may be of a block by its hash, or of whatever block was there at a time: that one is looked for by
its height. A node that keeps no state that old says so once a question, and the book decides what that means.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from ..domain.chain import Header, Log
from ..domain.errors import PermanentError, RetryableError
from ..protocols.base import Book, LogFilter, PastAnswer, PastQuery
from .core import EngineCore
from .ports import Reader

__all__ = ["Earlier", "Headers", "header_at"]

log = structlog.get_logger(__name__)

_RETRY_S: Final = 0.25
_TRIES: Final = 5
# Looks for a height: each divides what is left by the chain's own pace, so that three or four are enough.
_LOOKS: Final = 8
# How far back it is looked first, to learn the chain's pace.
_FIRST_LOOK: Final = 1000
# A block that is so much older than the time that was asked for is near enough: a part of how long ago that is.
_NEAR: Final = 50


class Headers(Protocol):
    """Where headers are read by height."""

    async def headers(self, first: int, last: int) -> list[Header]:
        """Return the headers of a range of heights, without those that are not to be had."""


class Earlier:
    """One chain's.

    Args:
        name: The chain's name in logs.
        core: Who asks.
        reader: Who is asked.
        wake: Called when something has come of it.
    """

    def __init__(self, name: str, core: EngineCore, reader: Reader, wake: Callable[[], None]) -> None:
        self._name = name
        self._core = core
        self._reader = reader
        self._wake = wake
        self._task: asyncio.Task[None] | None = None
        self._failures = 0
        self._has_news = False

    def start(self, group: asyncio.TaskGroup, head: Header) -> bool:
        """Begin the next read, if one is wanted; return whether a book knows more than when this was last asked."""
        if self._task is None or self._task.done():
            wanted = self._core.past_query()
            if wanted is not None:
                self._task = group.create_task(self._read(*wanted, head))
        news, self._has_news = self._has_news, False
        return news

    async def _read(self, book: Book, query: PastQuery, head: Header) -> None:
        answer: PastAnswer | None = None
        try:
            answer = await self._ask(query, head)
        except RetryableError as error:
            self._failures += 1
            if self._failures <= _TRIES:
                log.info("earlier block not readable yet", chain=self._name, error=str(error))
                await asyncio.sleep(_RETRY_S * self._failures)
                self._wake()
                return
            log.warning("earlier block not readable, what it tells stays unknown", chain=self._name, error=str(error))
        except PermanentError as error:
            log.info("earlier block refused, what it tells stays unknown", chain=self._name, error=str(error))
        self._failures = 0
        book.absorb_past(query, answer)
        self._has_news = True
        self._wake()

    async def _ask(self, query: PastQuery, head: Header) -> PastAnswer | None:
        if query.block is None:
            header = await header_at(self._reader, query.at, head)
            if header is not None and header.timestamp > query.at:
                return PastAnswer(block=header.ref, timestamp=header.timestamp, has_state=False)
        else:
            header = await self._reader.header(query.block)
        if header is None:
            return None
        try:
            calls = await self._reader.call(query.calls, header.hash, "load")
            before = await self._reader.call(query.before, header.parent_hash, "load")
            logs: list[Log] = []
            if query.logs is not None:
                address, topic = query.logs
                wanted = LogFilter(frozenset([address]), frozenset([topic]))
                (logs,) = await self._reader.logs([header.hash], wanted)
        except PermanentError as error:
            # Its time is known all the same.
            log.info("earlier block's state is not kept", chain=self._name, block=header.number, error=str(error))
            return PastAnswer(block=header.ref, timestamp=header.timestamp, has_state=False)
        return PastAnswer(block=header.ref, timestamp=header.timestamp, calls=calls, before=before, logs=logs)


async def header_at(reader: Headers, at: int, head: Header) -> Header | None:
    """Return a block that is not later than a time and not much earlier, None where nobody tells.

    Not much is a fiftieth of how long ago it is. Block 1 where that is later, too: nothing happens before it.

    Args:
        reader: Where headers are read.
        at: The time in seconds.
        head: A newer block.

    Raises:
        RetryableError, PermanentError: Nobody answers.
    """
    older: Header | None = None
    newer, number = head, max(head.number - _FIRST_LOOK, 1)
    for look in range(_LOOKS):
        found = await reader.headers(number, number)
        if not found:
            return older  # before what the nodes keep
        if found[0].timestamp > at:
            newer = found[0]
            if newer.number <= 1:
                return newer
        else:
            older = found[0]
        if older is None:
            # Further back, at the pace until here and a little more.
            pace = max((head.timestamp - newer.timestamp) // max(head.number - newer.number, 1), 1)
            number = max(newer.number - (newer.timestamp - at) * 21 // (20 * pace) - 1, 1)
            continue
        blocks = newer.number - older.number
        if at - older.timestamp <= (head.timestamp - at) // _NEAR or blocks <= 1:
            return older
        # At the pace between the two, and sometimes in the middle: a chain's pace may have changed.
        step = blocks * (at - older.timestamp) // max(newer.timestamp - older.timestamp, 1)
        number = older.number + (blocks // 2 if look % 3 == 2 else min(max(step, 1), blocks - 1))
    return older
