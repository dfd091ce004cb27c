"""The chain as a sequence of events: heads in, linked `Committed` and `Reorged` out, through lost connections.

The newest head wins: while a consumer is busy, heads are only noted, and the next event covers them all.
So a burst of heads, a gap and a reorg cost one event each, and a slow node never builds a queue.
Which head is followed when nodes disagree is `voices`' to say; how heads get here is `listener`'s.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final

import structlog

from ..domain.chain import ChainEvent, Committed, Header, Reorged
from ..domain.errors import PermanentError, RetryableError
from ..domain.ids import BlockHash, ChainId
from ..obs.metrics import Metrics
from .finality import Finality
from .linker import MAX_UNDO_BLOCKS, Gap, Linker, Next, Reorg, TooDeep, Verdict
from .listener import HeadListener, HeadReader
from .reader import ChainReader
from .rpc import node_of
from .voices import Move, Place, Proposal, Voices

__all__ = ["ChainSource"]

log = structlog.get_logger(__name__)

_RETRY_S: Final = 0.2
_RETRY_MAX_S: Final = 3.0
# The voice of whoever named the first head, where there are several who may have been it.
_STARTER: Final = "start"
# A lag that is shorter is nothing to conclude from, however fast the blocks are.
_PATIENCE_MIN_S: Final = 2.0
# Of the silence: words are asked for anew after one silence, and have to have had time to arrive.
_PATIENCE_SILENCES: Final = 2.0
# Heads that are remembered as not to be had; a chain has fewer nodes.
_UNLINKABLE: Final = 64
# What is final is waited for at the start, but not at the price of a slow node: a round trip, and some.
_FINALITY_AT_START_S: Final = 1.0
# Headers that a branch's ancestors are asked for at a time: most reorganisations are of one block, a few of many.
_WALKS: Final = (1, 4, 16, MAX_UNDO_BLOCKS)


class _NotOurs(Exception):
    """A head does not link to ours."""


class ChainSource:
    """The head of one chain, followed over every endpoint that it has.

    Args:
        chain_id: The chain.
        name: Its name in logs and metrics.
        ws_urls: Endpoints for newHeads.
        reader: For headers that no subscription brought.
        silence_s: After this long without a word for our head, it is asked for.
        connect_timeout_s: Limit for opening a subscription.
        metrics: Where blocks are counted.
        nodes: Readers of one node each, by `node_of` its URL: asked for their heads, and for the blocks before a
            head that they named. By default `reader` is asked, as the one node that there is.
        patience_s: See `voices`; by default two silences and at least two seconds.
        finality_every_blocks: How often finality is asked for; 0 never.
        heard: Told of each head, and of the node that said it.
        clock: Monotonic seconds.
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
        nodes: Mapping[str, HeadReader] | None = None,
        patience_s: float | None = None,
        finality_every_blocks: int = 0,
        heard: Callable[[str, Header], None] = lambda node, header: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._chain_id = chain_id
        self._heard = heard
        self._clock = clock
        self._name = name
        self._reader = reader
        self._metrics = metrics
        self._linker = linker or Linker()
        names = {node_of(url) for url in ws_urls}
        if nodes is None:
            nodes = {next(iter(names)) if len(names) == 1 else "reader": reader}
        names |= nodes.keys()
        self._nodes = dict(nodes)
        self._only_node = next(iter(names)) if len(names) == 1 else None
        self._voices = Voices(
            self._linker,
            patience_s=patience_s or max(_PATIENCE_SILENCES * silence_s, _PATIENCE_MIN_S),
            nodes=len(names),
        )
        self._listener = HeadListener(
            name=name,
            ws_urls=ws_urls,
            nodes=nodes,
            silence_s=silence_s,
            connect_timeout_s=connect_timeout_s,
            hear=self.hear,
            confirmed_at=lambda: self.confirmed_at,
            metrics=metrics,
        )
        self.finality = Finality(
            name=name, reader=reader, every_blocks=finality_every_blocks, metrics=metrics, clock=clock
        )
        self._finality_due = asyncio.Event()
        self._arrived = asyncio.Event()
        # Heads that could not be linked: when to try again, and how long to wait after that.
        self._unlinkable: dict[BlockHash, tuple[float, float]] = {}
        # When our head was last confirmed by anyone; monotonic seconds.
        self.confirmed_at: float = 0.0
        self.forgotten: list[Header] = []

    @property
    def head(self) -> Header | None:
        """Return the newest block that was handed out."""
        return self._linker.head

    @property
    def window(self) -> tuple[Header, ...]:
        """Return the blocks that can be undone, oldest first."""
        return self._linker.blocks

    @property
    def announced(self) -> Header | None:
        """Return the highest block that a node says there is, None while nothing was heard."""
        return self._voices.announced(self._clock())

    @property
    def tags(self) -> Mapping[str, Header]:
        """Return the newest blocks that the nodes call "safe" and "finalized", where known."""
        return self.finality.tags

    @property
    def subscriptions(self) -> int:
        """Return how many subscriptions are open; with none, heads are polled."""
        return self._listener.subscriptions

    def places(self) -> dict[str, Place]:
        """Return where each node is, seen from our head; a node that said nothing lately is left out."""
        return self._voices.places(self._clock())

    async def run(self) -> None:
        """Keep a subscription open on each endpoint, and ask for the head when all are silent. Never returns."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listener.run(), name=f"listener {self._name}")
            group.create_task(self._follow_finality(), name=f"finality {self._name}")

    async def subscribed(self) -> None:
        """Wait until a subscription for heads is open, and what came before it was asked for."""
        await self._listener.subscribed()

    def hear(self, node: str, header: Header) -> None:
        """Note what a node says its head is."""
        now = self._clock()
        self._heard(node, header)
        place = self._voices.hear(node, header, now)
        if place is Place.HEAD:
            self.confirmed_at = now
        else:
            self._arrived.set()

    async def start(self) -> Header:
        """Return the head to begin with."""
        head = await self._reader.latest()
        ancestors = await self._ancestors(head)
        self._linker.restart(head, ancestors)
        self.confirmed_at = self._clock()
        # Whoever it was that answered: until it speaks for itself, nobody else moves us to another branch.
        self._voices.hear(self._only_node or _STARTER, head, self.confirmed_at)
        # A first state without it would be told once more with the next block.
        with suppress(TimeoutError):
            async with asyncio.timeout(_FINALITY_AT_START_S):
                await self._learn_finality(head)
        return head

    async def _ancestors(self, head: Header, node: str = "") -> list[Header]:
        """Return the blocks before a first head, so that a reorg right after it is told as what it is."""
        reader = self._nodes.get(node, self._reader)
        try:
            return await reader.headers(max(head.number - MAX_UNDO_BLOCKS, 0), head.number - 1)
        except (RetryableError, PermanentError) as error:
            log.info("no blocks before the first", chain=self._name, error=str(error))
            return []

    # --- events ---------------------------------------------------------------------------------------

    async def next_event(self) -> ChainEvent:
        """Wait for the head to move; return how it moved. Not to be called twice at a time.

        Cancelling loses nothing: the head that was being linked is linked by the next call.
        """
        while True:
            self._arrived.clear()
            now = self._clock()
            proposal = self._voices.choose(now, {block for block, (at, _) in self._unlinkable.items() if at > now})
            if proposal is None:
                await self._wait(now)
                continue
            try:
                event = await self._take(proposal)
            except _NotOurs:
                self._voices.refute(proposal.header)
                continue
            except (RetryableError, PermanentError) as error:
                # Others may be linked meanwhile: one node's unknown block must not hold up the chain.
                self._put_off(proposal.header.hash)
                log.warning(
                    "head could not be linked", chain=self._name, block=proposal.header.number, error=str(error)
                )
                continue
            if event is not None:
                self._unlinkable.clear()
                return event

    def _put_off(self, block: BlockHash) -> None:
        """Try a head again later, and later each time."""
        _, wait_s = self._unlinkable.pop(block, (0.0, _RETRY_S))
        self._unlinkable[block] = (self._clock() + wait_s, min(2 * wait_s, _RETRY_MAX_S))
        while len(self._unlinkable) > _UNLINKABLE:
            del self._unlinkable[next(iter(self._unlinkable))]

    async def _wait(self, now: float) -> None:
        """Wait for a word, or until a head may be tried again."""
        again = min((at for at, _ in self._unlinkable.values() if at > now), default=None)
        try:
            async with asyncio.timeout(None if again is None else max(again - now, 0.0)):
                await self._arrived.wait()
        except TimeoutError:
            return

    async def _take(self, proposal: Proposal) -> ChainEvent | None:
        """Move the head as proposed.

        Raises:
            _NotOurs: The head is of another branch, and was proposed as onward only.
            RetryableError: A header that is needed can't be had.
        """
        newest = proposal.header
        if proposal.move is Move.BACK and self._linker.holds(newest.hash):
            return self._accept(self._linker.retreat(newest.hash), newest)
        ancestry = [newest]
        walks = iter(_WALKS)
        while True:
            verdict = self._linker.classify(ancestry)
            match verdict:
                case Gap():
                    head = self._linker.head
                    if proposal.move is Move.ONWARD and head is not None and verdict.number <= head.number:
                        raise _NotOurs
                    ancestry = await self._lengthen(ancestry, verdict, _count_of(verdict, walks), proposal.node)
                case Reorg() | TooDeep() if proposal.move is Move.ONWARD:
                    raise _NotOurs
                case TooDeep():
                    return self._accept(verdict, newest, await self._ancestors(newest, proposal.node))
                case _:
                    return self._accept(verdict, newest)

    def _accept(self, verdict: Verdict, newest: Header, ancestors: Sequence[Header] = ()) -> ChainEvent | None:
        """Move the window as a verdict says; synchronous, so that nothing comes between."""
        event: ChainEvent
        match verdict:
            case Next(blocks):
                self.forgotten += self._linker.accept(verdict)
                self._metrics.blocks.labels(self._name, "next").inc(len(blocks))
                event = Committed(chain_id=self._chain_id, blocks=blocks)
            case Reorg(ancestor, dropped, blocks):
                self.forgotten += self._linker.accept(verdict)
                self._metrics.blocks.labels(self._name, "reorg").inc(len(dropped))
                log.info("reorg", chain=self._name, depth=len(dropped), ancestor=ancestor.number)
                self.finality.unwind(ancestor.number)
                event = Reorged(chain_id=self._chain_id, ancestor=ancestor, dropped=dropped, blocks=blocks)
            case TooDeep(dropped):
                self.forgotten += self._linker.restart(newest, ancestors)
                log.warning("chain restarted from its head", chain=self._name, block=newest.number)
                self.finality.unwind(None)
                event = Reorged(chain_id=self._chain_id, ancestor=None, dropped=dropped, blocks=(newest,))
            case _:
                return None
        now = self.confirmed_at = self._clock()
        self._voices.moved(has_crossed=isinstance(event, Reorged), now=now)
        if self.finality.is_due(event.head):
            self._finality_due.set()
        return event

    async def _lengthen(self, ancestry: list[Header], gap: Gap, count: int, node: str) -> list[Header]:
        """Return an ancestry that reaches further back, by up to `count` blocks: what was seen, or what is read."""
        known: list[Header] = []
        parent = gap.hash
        while (header := self._voices.seen.get(parent)) is not None and header.number == gap.number - len(known):
            known.append(header)
            parent = header.parent_hash
            if self._linker.holds(parent):
                break
        if not known:
            known = await self._fetch(gap, count, node)
        return [*reversed(known), *ancestry]

    async def _fetch(self, gap: Gap, count: int, node: str) -> list[Header]:
        """Return up to `count` blocks, newest first, from who named their descendant, or from anyone."""
        failure: Exception | None = None
        for reader in (self._nodes.get(node), self._reader):
            if reader is None:
                continue
            try:
                found = await self._fetch_from(reader, gap, count)
            except (RetryableError, PermanentError) as error:
                failure = error
                continue
            if found:
                for header in found:
                    self._voices.note(header)
                self._metrics.blocks.labels(self._name, "backfilled").inc(len(found))
                return found
        raise RetryableError(f"block {gap.number} {gap.hash} is not to be had") from failure

    async def _fetch_from(self, reader: HeadReader, gap: Gap, count: int) -> list[Header]:
        found: list[Header] = []
        if count > 1:
            parent = gap.hash
            for header in reversed(await reader.headers(max(gap.number - count + 1, 0), gap.number)):
                if header.hash != parent or self._linker.holds(parent):
                    break
                found.append(header)
                parent = header.parent_hash
        if not found:
            header_found = await reader.header(gap.hash)
            if header_found is not None:
                found = [header_found]
        return found

    # --- finality -------------------------------------------------------------------------------------

    async def _follow_finality(self) -> None:
        while True:
            await self._finality_due.wait()
            self._finality_due.clear()
            head = self._linker.head
            if head is not None:
                await self._learn_finality(head)

    async def _learn_finality(self, head: Header) -> None:
        if not self.finality.is_due(head):
            return
        await self.finality.ask(head, self._is_ours)
        finalized = self.finality.tags.get("finalized")
        if finalized is not None:
            # Below it nothing is ever undone: its journal is not needed.
            self.forgotten += self._linker.settle(finalized.hash)

    def _is_ours(self, header: Header) -> bool:
        head, base = self._linker.head, self._linker.base
        if head is None or base is None or header.number > head.number:
            return False
        return header.number < base.number or self._linker.holds(header.hash)


def _count_of(gap: Gap, walks: Iterator[int]) -> int:
    """Return how many headers to ask for: what is missing at least, and more with each step back on a branch."""
    return gap.count if gap.count > 1 else next(walks, MAX_UNDO_BLOCKS)
