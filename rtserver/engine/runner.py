"""The engine's shell: one loop per chain that turns events and wishes into published steps.

Blocks and cold loads share one lane, so every answer is absorbed at the head it was read at. A load's call
overlaps the log query of the block that arrives meanwhile, and its next round rides in that block's own
call: a cold load never costs a block more than what is left of one round trip.
Whatever fails is kept and tried again: logs not yet folded, reads still stale, a rollback not yet told.
"""

import asyncio
import time
from typing import Final, TypeAlias

import structlog

from ..domain.chain import ChainEvent, Header, Log, Reorged
from ..domain.errors import BlockGone, PermanentError, RetryableError
from ..domain.ids import TokenId
from ..obs.metrics import Metrics
from ..protocols.base import Book, HistoryQuery, Plan
from ..protocols.bloom import may_hold
from ..protocols.channels import Channel
from .core import EngineCore
from .earlier import Earlier
from .gone import Gone
from .ports import Reader, Records, Remembers, Sink, Source

__all__ = ["ChainRunner"]

log = structlog.get_logger(__name__)

# Reads of cold loads per round: about 20 ms of a node's time, and what fits into one call at its best. An owner with
# 200 positions takes 600 for their ticks alone.
_LOAD_BUDGET: Final = 800
# What a block may carry along of them: about 10 ms.
_CARRIED_BUDGET: Final = 400
# A block settles in one or two rounds; a mint into an unknown pool in three.
_MAX_ROUNDS: Final = 8
_RETRY_S: Final = 0.25
# Tries for past events before fees are shown as unknown: channels wait for them.
_HISTORY_TRIES: Final = 5

_Load: TypeAlias = asyncio.Task[tuple[Plan, list[bytes | None]] | None]


class ChainRunner:
    """Runs one chain's engine.

    Args:
        name: The chain's name in logs and metrics.
        core: The state.
        source: The chain's events.
        reader: The chain's reads.
        sink: Takes every published step.
        metrics: Where blocks are measured.
        memory: What outlives the process, if anything does.
        records: Who keeps the past, if anyone does.
    """

    def __init__(
        self,
        *,
        name: str,
        core: EngineCore,
        source: Source,
        reader: Reader,
        sink: Sink,
        metrics: Metrics,
        memory: Remembers | None = None,
        records: Records | None = None,
    ) -> None:
        self._name = name
        self._core = core
        self._source = source
        self._reader = reader
        self._sink = sink
        self._metrics = metrics
        self._wake = asyncio.Event()
        self._head: Header | None = None
        self._unfolded: list[Header] = []
        self._memory = memory
        self._records = records
        self._is_resumed = False
        self._gone = Gone()
        self._unpublished = False
        self._wanted = False
        # Past events may lead to more to read, though nobody waits for a channel.
        self._loading = False
        self._block_calls = 0
        # What channels wait for, and what nobody does.
        self._histories: dict[bool, asyncio.Task[None]] = {}
        self._history_failures = 0
        self._earlier = Earlier(name, core, reader, self._wake.set)
        # Set, and another one, with each answer about the past.
        self._learned = asyncio.Event()
        # Read when asked for: it grows while nothing is published.
        metrics.head_behind.labels(name).set_function(lambda: self.behind_blocks)
        metrics.tracked.labels(name, "events").set_function(core.events)

    @property
    def head(self) -> Header | None:
        """Return the head of the last published step."""
        return self._head

    @property
    def is_at_rest(self) -> bool:
        """Return whether all that is known of the chain has been read and published."""
        return self._head is not None and not self._unpublished and not self._unfolded and self._core.is_settled()

    @property
    def behind_blocks(self) -> int:
        """Return how many blocks there are that were not published yet, as far as the nodes say."""
        announced = self._source.announced
        if announced is None or self._head is None:
            return 0
        return max(announced.number - self._head.number, 0)

    def want(self, channel: Channel) -> None:
        """Open a channel as soon as its state has been read."""
        self._core.want(channel)
        self._wanted = True
        self._wake.set()

    def unwant(self, channel: Channel) -> None:
        """Close a channel."""
        self._core.unwant(channel)

    async def price_past(self, kind: str, token_id: TokenId) -> None:
        """Have a position's own events priced; returns once they are, as far as they can be. It may take long."""
        while self._core.want_prices(kind, token_id):
            learned = self._learned
            self._wake.set()
            await learned.wait()

    def _learn(self) -> None:
        self._learned.set()
        self._learned = asyncio.Event()

    async def run(self) -> None:
        """Follow the chain until cancelled."""
        head = await self._start()
        if not self._is_resumed:
            self._core.fold(head.hash, [])
        self._unpublished = True
        await self._catch_up(head, None, time.perf_counter())
        async with asyncio.TaskGroup() as group:
            event = group.create_task(self._source.next_event())
            load: _Load | None = None
            while True:
                if load is None and not self._unpublished:
                    load = self._start_load(group, head)
                self._start_history(group, head)
                if self._earlier.start(group, head):
                    self._unpublished = True
                    self._learn()
                wake = group.create_task(self._wake.wait())
                waiting = {event, wake} if load is None else {event, wake, load}
                timeout = _RETRY_S if self._unpublished else None
                await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                wake.cancel()
                self._wake.clear()
                started = time.perf_counter()
                if event.done():
                    while event.done():
                        happened = event.result()
                        event = group.create_task(self._source.next_event())
                        if load is not None and isinstance(happened, Reorged):
                            # Read at a block that left the chain: what it loaded is still unread.
                            await asyncio.wait({load})
                            load = None
                        head = self._take(happened)
                        # While we were busy the chain may have moved on from what was linked then:
                        # a node slower than its blocks is asked for the newest only.
                        await asyncio.sleep(0)
                    await self._catch_up(head, load, started)
                    load = None
                elif load is not None and load.done():
                    self._absorb_load(load)
                    load = None
                    if self._core.is_settled():
                        self._publish(head, started)
                    else:
                        self._unpublished = True
                elif self._unpublished and load is None:
                    await self._catch_up(head, None, started)

    def _start_load(self, group: asyncio.TaskGroup, head: Header) -> _Load | None:
        """Begin a round of cold loads at the head; open at once what needs no reading."""
        is_awaited = self._wanted or self._core.is_opening
        if not is_awaited and not self._loading:
            return None
        self._wanted = False
        plan = self._core.plan(_LOAD_BUDGET)
        if plan.calls:
            return group.create_task(self._read_load(plan, head))
        self._loading = False
        if is_awaited:
            self._publish(head, time.perf_counter())
        return None

    async def _start(self) -> Header:
        failures = 0
        while True:
            try:
                head = await self._source.start()
                await self._reader.probe(head)
                self._is_resumed = self._memory is not None and await self._memory.resume(head)
                return head
            except (RetryableError, PermanentError) as error:
                failures += 1
                if failures == 1 or failures % 20 == 0:
                    log.warning("chain does not answer yet", chain=self._name, error=str(error))
                await asyncio.sleep(min(_RETRY_S * failures, 5))

    def _take(self, event: ChainEvent) -> Header:
        """Note what an event leaves to do."""
        self._unpublished = True
        self._gone.take(event)
        if isinstance(event, Reorged):
            if self._records is not None:
                self._records.reorged(event)
            dropped = {header.hash for header in event.dropped}
            self._unfolded = [header for header in self._unfolded if header.hash not in dropped]
            if event.ancestor is None:
                self._core.mark_all()
                self._unfolded.clear()
                self._core.fold(event.head.hash, [])
                return event.head
            self._core.unwind([header.hash for header in reversed(event.dropped)])
        self._unfolded += event.blocks
        return event.head

    async def _catch_up(self, head: Header, load: _Load | None, started: float) -> None:
        """Fold what is unfolded, read what is stale, publish. Leaves the rest for the next try on failure."""
        calls_before = self._reader.calls_sent
        try:
            logs_by_block = await self._read_logs()
            if load is not None:
                await asyncio.wait({load})
                self._absorb_load(load)
                load = None
            for header, logs in logs_by_block:
                self._core.fold(header.hash, logs)
                self._unfolded.remove(header)
            # Without a block there is nothing that loads could hold up.
            budget = _CARRIED_BUDGET if logs_by_block else _LOAD_BUDGET
            for index in range(_MAX_ROUNDS):
                if self._core.is_settled():
                    break
                plan = self._core.plan(budget)
                # One round refreshes all that was known; more are first loads of positions that the block brought.
                purpose = "load" if index else "block"
                self._core.absorb(plan, await self._reader.call(plan.calls, head.hash, purpose))
        except (RetryableError, PermanentError) as error:
            log.warning("block not read yet", chain=self._name, block=head.number, error=str(error))
            if load is not None:
                await asyncio.wait({load})
                self._absorb_load(load)
            return
        if not self._core.is_settled():
            log.error("block did not settle", chain=self._name, block=head.number, rounds=_MAX_ROUNDS)
            return
        self._block_calls = self._reader.calls_sent - calls_before
        self._publish(head, started)

    async def _read_logs(self) -> list[tuple[Header, list[Log]]]:
        """Return the logs of all unfolded blocks; blocks whose bloom excludes every watched address have none."""
        wanted = self._core.log_filter()
        asked = [header for header in self._unfolded if may_hold(header.logs_bloom, wanted.addresses)]
        logs: dict[str, list[Log]] = {}
        if asked:
            answers = await self._reader.logs([header.hash for header in asked], wanted)
            logs = {header.hash: entries for header, entries in zip(asked, answers, strict=True)}
        return [(header, logs.get(header.hash, [])) for header in self._unfolded]

    async def _read_load(self, plan: Plan, head: Header) -> tuple[Plan, list[bytes | None]] | None:
        """Read a round of cold loads at the head; None where that failed and has to be tried again."""
        try:
            return plan, await self._reader.call(plan.calls, head.hash, "load")
        except (RetryableError, PermanentError) as error:
            log.warning("load not read yet", chain=self._name, block=head.number, error=str(error))
            await asyncio.sleep(_RETRY_S)
            return None

    def _absorb_load(self, load: _Load) -> None:
        answer = load.result()
        if answer is not None:
            self._core.absorb(*answer)

    def _start_history(self, group: asyncio.TaskGroup, head: Header) -> None:
        """Read past events beside the blocks: a provider may take seconds for them."""
        # A history counts up to its head; what is not folded yet would be counted again.
        if self._unfolded:
            return
        for is_late in (False, True):
            running = self._histories.get(is_late)
            if running is None or running.done():
                wanted = self._core.history_query(is_late=is_late)
                if wanted is not None:
                    self._histories[is_late] = group.create_task(self._read_history(*wanted, head))

    async def _read_history(self, book: Book, query: HistoryQuery, head: Header) -> None:
        logs: list[Log] | None = None
        try:
            logs = await self._reader.history(query.address, query.topics, head)
        except BlockGone as error:
            # Still wanted, and asked for again: by then we are where the node is, or it is where we are.
            log.info("history is of another branch", chain=self._name, error=str(error))
            await asyncio.sleep(_RETRY_S)
            self._wake.set()
            return
        except RetryableError as error:
            self._history_failures += 1
            if self._history_failures <= _HISTORY_TRIES:
                log.info("history not readable yet", chain=self._name, error=str(error))
                await asyncio.sleep(_RETRY_S * self._history_failures)
                self._wake.set()
                return
            log.warning("history not readable, what it tells stays unknown", chain=self._name, error=str(error))
        except PermanentError as error:
            log.warning("history refused, what it tells stays unknown", chain=self._name, error=str(error))
        self._history_failures = 0
        book.absorb_history(query, logs)
        self._learn()
        self._loading = True
        self._wake.set()
        self._unpublished = True

    def _publish(self, head: Header, started: float) -> None:
        is_new = self._head is None or self._head.hash != head.hash
        update = self._core.evaluate(head, self._gone.rollback(), is_new_head=is_new, tags=self._source.tags)
        self._gone = Gone()
        self._unpublished = False
        self._head = head
        self._core.forget(self._source.forgotten)
        self._source.forgotten.clear()
        self._sink.publish(update)
        self._metrics.recomputed.labels(self._name).inc(update.positions)
        if is_new:
            elapsed = time.perf_counter() - started
            self._metrics.block_calls.labels(self._name).observe(self._block_calls)
            self._metrics.block_latency.labels(self._name).observe(elapsed)
            self._metrics.head.labels(self._name).set(head.number)
            self._metrics.head_time.labels(self._name).set(head.timestamp)
            for kind, count in self._core.tracked().items():
                self._metrics.tracked.labels(self._name, kind).set(count)
        if self._unfolded:
            return
        if self._memory is not None:
            self._memory.published(head)
        if self._records is not None:
            self._records.published(head)
