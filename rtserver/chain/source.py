"""The chain as a sequence of events: heads in, linked `Committed` and `Reorged` out, through lost connections.

The newest head wins: while a consumer is busy, heads are only noted, and the next event covers them all.
So a burst of heads, a gap and a reorg cost one event each, and a slow node never builds a queue.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

import structlog

from ..domain.chain import ChainEvent, Committed, Header, Reorged
from ..domain.errors import PermanentError, RetryableError
from ..domain.ids import ChainId
from ..obs.metrics import Metrics
from .heads import stream_heads
from .linker import MAX_UNDO_BLOCKS, Duplicate, Gap, Linker, Next, Reorg, TooDeep
from .reader import ChainReader
from .rpc import endpoint_name

__all__ = ["ChainSource"]

log = structlog.get_logger(__name__)

# Heads that are kept to fill gaps without asking: more than a reorg or a burst announces at once.
_RECENT_HEADS: Final = 128
_RETRY_MIN_S: Final = 0.2
_RETRY_MAX_S: Final = 5.0


class ChainSource:
    """The head of one chain, followed over every WebSocket endpoint that it has.

    Args:
        chain_id: The chain.
        name: Its name in logs and metrics.
        ws_urls: Endpoints for newHeads.
        reader: For headers that no subscription brought.
        silence_s: After this long without a head, the head is asked for.
        connect_timeout_s: Limit for opening a subscription.
        metrics: Where blocks are counted.
    """

    def __init__(
        self,
        *,
        chain_id: ChainId,
        name: str,
        ws_urls: Sequence[str],
        reader: ChainReader,
        silence_s: float,
        connect_timeout_s: float,
        metrics: Metrics,
        linker: Linker | None = None,
    ) -> None:
        self._chain_id = chain_id
        self._name = name
        self._ws_urls = list(ws_urls)
        self._reader = reader
        self._silence_s = silence_s
        self._connect_timeout_s = connect_timeout_s
        self._metrics = metrics
        self._linker = linker or Linker()
        self._recent: dict[str, Header] = {}
        self._newest: Header | None = None
        self._arrived = asyncio.Event()
        self._subscribed = asyncio.Event()
        self._ask = asyncio.Event()
        self.head_seen_at: float = 0.0
        self.forgotten: list[Header] = []

    @property
    def head(self) -> Header | None:
        """Return the newest block that was handed out."""
        return self._linker.head

    async def run(self) -> None:
        """Keep a subscription open on each endpoint, and ask for the head when all are silent. Never returns."""
        async with asyncio.TaskGroup() as group:
            for url in self._ws_urls:
                group.create_task(self._follow(url), name=f"heads {endpoint_name(url)}")
            group.create_task(self._watch_silence(), name=f"silence {self._name}")

    async def subscribed(self) -> None:
        """Wait until a subscription for heads is open, and what came before it was asked for."""
        await self._subscribed.wait()

    async def _follow(self, url: str) -> None:
        failures = 0
        while True:
            try:
                async with aclosing(stream_heads(url, self._connect_timeout_s, self._ask.set)) as heads:
                    async for header in heads:
                        failures = 0
                        self.offer(header)
            except RetryableError as error:
                failures += 1
                self._metrics.rpc_errors.labels(self._name, "heads").inc()
                if failures <= 3:
                    log.warning("heads interrupted", chain=self._name, error=str(error))
            # Full jitter: many servers behind one provider must not come back in step.
            limit = min(_RETRY_MAX_S, _RETRY_MIN_S * 2 ** min(failures, 10))
            await asyncio.sleep(random.uniform(_RETRY_MIN_S / 2, limit))
            await self._poll()

    async def _watch_silence(self) -> None:
        """Ask for the head when a subscription opened (what came before it is not announced), and after silence."""
        while True:
            wait_s = self._silence_s - (time.monotonic() - self.head_seen_at)
            try:
                async with asyncio.timeout(wait_s if wait_s > 0 else self._silence_s):
                    await self._ask.wait()
            except TimeoutError:
                if time.monotonic() - self.head_seen_at < self._silence_s:
                    continue
            is_opened = self._ask.is_set()
            self._ask.clear()
            await self._poll()
            if is_opened:
                self._subscribed.set()

    async def _poll(self) -> None:
        try:
            self.offer(await self._reader.latest())
        except (RetryableError, PermanentError) as error:
            log.debug("head not readable", chain=self._name, error=str(error))

    def offer(self, header: Header) -> None:
        """Note a head; the newest one noted becomes the next event."""
        if header.hash in self._recent or self._linker.holds(header.hash):
            return
        self.head_seen_at = time.monotonic()
        self._recent[header.hash] = header
        while len(self._recent) > _RECENT_HEADS:
            del self._recent[next(iter(self._recent))]
        self._newest = header
        self._arrived.set()

    async def start(self) -> Header:
        """Return the head to begin with."""
        head = await self._reader.latest()
        ancestors: list[Header] = []
        try:
            # So that a reorg right after the start is told as what it is.
            ancestors = await self._reader.headers(max(head.number - MAX_UNDO_BLOCKS, 0), head.number - 1)
        except (RetryableError, PermanentError) as error:
            log.info("no blocks before the first", chain=self._name, error=str(error))
        self._linker.restart(head, ancestors)
        self.head_seen_at = time.monotonic()
        return head

    async def next_event(self) -> ChainEvent:
        """Wait for the head to move; return how it moved. Not to be called twice at a time.

        Cancelling loses nothing: the head that was being linked is linked by the next call.
        """
        while True:
            await self._arrived.wait()
            newest = self._newest
            assert newest is not None
            try:
                event = await self._link(newest)
            except (RetryableError, PermanentError) as error:
                log.warning("head could not be linked", chain=self._name, block=newest.number, error=str(error))
                await asyncio.sleep(_RETRY_MIN_S)
                continue
            if self._newest is newest:
                self._arrived.clear()
            if event is not None:
                return event

    async def _link(self, newest: Header) -> ChainEvent | None:
        ancestry = [newest]
        while True:
            verdict = self._linker.classify(ancestry)
            match verdict:
                case Duplicate():
                    return None
                case Next(blocks):
                    self.forgotten += self._linker.accept(verdict)
                    self._metrics.blocks.labels(self._name, "next").inc(len(blocks))
                    return Committed(chain_id=self._chain_id, blocks=blocks)
                case Reorg(ancestor, dropped, blocks):
                    self.forgotten += self._linker.accept(verdict)
                    self._metrics.blocks.labels(self._name, "reorg").inc(len(dropped))
                    log.info("reorg", chain=self._name, depth=len(dropped), ancestor=ancestor.number)
                    return Reorged(chain_id=self._chain_id, ancestor=ancestor, dropped=dropped, blocks=blocks)
                case TooDeep(dropped):
                    self.forgotten += self._linker.restart(newest)
                    log.warning("chain restarted from its head", chain=self._name, block=newest.number)
                    return Reorged(chain_id=self._chain_id, ancestor=None, dropped=dropped, blocks=(newest,))
                case Gap():
                    ancestry = await self._lengthen(ancestry, verdict)

    async def _lengthen(self, ancestry: list[Header], gap: Gap) -> list[Header]:
        known = self._recent.get(gap.hash)
        if known is not None:
            return [known, *ancestry]
        if gap.count > 1:
            older = await self._reader.headers(gap.number - gap.count + 1, gap.number)
            linked: list[Header] = []
            parent = gap.hash
            for header in reversed(older):
                if header.hash != parent:
                    break
                linked.append(header)
                parent = header.parent_hash
            if linked:
                self._metrics.blocks.labels(self._name, "backfilled").inc(len(linked))
                return [*reversed(linked), *ancestry]
        header_found = await self._reader.header(gap.hash)
        if header_found is None:
            raise RetryableError(f"block {gap.number} {gap.hash} is not to be had")
        self._metrics.blocks.labels(self._name, "backfilled").inc()
        return [header_found, *ancestry]
