"""Going on where an earlier process stopped: what it kept, carried from its last block to the head of now.

Reads first and decides then: until everything that has to be known is there, nothing is touched, so a failed
try leaves no trace. Afterwards everything known is stale, and read again at the head in shared batches.

1. The newest block of then that is still on the chain is found: by our own window, else by asking.
2. The contracts' logs between that block and the head are read. Nothing is enumerated again.
3. Wishes are made; books take their facts, undo the blocks of then that left the chain, fold the logs.
4. All is read at the head. What is first read there is undone with it, as on any other day.

Where any of that is not to be had, the wishes alone are kept: a cold start, in which nobody has to ask again.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Final, Protocol

import structlog

from ..domain.chain import BlockRef, Header, Log
from ..domain.errors import ClientError, PermanentError, RetryableError
from ..domain.ids import ChainId
from ..protocols.base import Book
from ..protocols.channels import Channel, parse_channel
from ..store.values import CHANNELS, Checkpoint, KeptStream
from .core import EngineCore
from .ports import Reader

__all__ = ["Loader", "Resuming"]

log = structlog.get_logger(__name__)

# After more blocks than that an enumeration costs less than the logs: two weeks of 12 s, half a day of 0.5 s.
MAX_AWAY_BLOCKS: Final = 100_000
# Past this many pieces the chain has been left alone for so long that asking for its state costs less.
_MAX_PIECES: Final = 64
# Reads a round: nobody waits for a block yet, so far more than a load may take beside one.
_BUDGET: Final = 4000
# Two or three do; the runner has its own way with what takes longer.
_MAX_ROUNDS: Final = 16


class Loader(Protocol):
    """Where the checkpoint comes from; see store.store."""

    async def load(self, chain_id: ChainId, identity: str, *, takes_over: bool) -> Checkpoint | None:
        """Return the last checkpoint; whoever takes it over is the one to write the next."""


class Resuming:
    """One chain's way from a checkpoint to the head.

    Args:
        chain_id: The chain.
        name: Its name in logs.
        core: The engine, empty but for wishes.
        books: Its books by kind.
        reader: The chain's reads.
        window: Returns the newest blocks of the chain as it is followed, oldest first.
        reopen: Wishes for a channel.
        go_on: Takes the streams that may go on under their epochs.
    """

    def __init__(
        self,
        *,
        chain_id: ChainId,
        name: str,
        core: EngineCore,
        books: Mapping[str, Book],
        reader: Reader,
        window: Callable[[], Sequence[Header]],
        reopen: Callable[[Channel], None],
        go_on: Callable[[Mapping[str, KeptStream]], None],
    ) -> None:
        self._chain_id = chain_id
        self._name = name
        self._core = core
        self._books = books
        self._reader = reader
        self._window = window
        self._reopen = reopen
        self._go_on = go_on

    async def resume(self, checkpoint: Checkpoint, head: Header) -> bool:
        """Bring the books to the head; return False where only the wishes could be kept.

        Raises:
            RetryableError: Something can't be read now; nothing was touched.
        """
        away: dict[str, list[Log]] | None = None
        common = await self._common(checkpoint.window, head)
        if common is None:
            log.warning("kept state is of another branch: begun anew", chain=self._name)
        elif head.number - common.number > MAX_AWAY_BLOCKS:
            log.info("away for too long: begun anew", chain=self._name, blocks=head.number - common.number)
        else:
            away = await self._logs(common, head)
        for name in checkpoint.facts.get(CHANNELS, {}):
            self._wish(name)
        if common is None or away is None:
            return False
        dropped = [block.hash for block in reversed(checkpoint.window) if block.number > common.number]
        try:
            for kind, book in self._books.items():
                book.restore(checkpoint.facts.get(kind, {}), dropped, common.hash)
        except ValueError as error:
            log.warning("kept state is not readable: begun anew", chain=self._name, error=str(error))
            # A book takes all or nothing, but another one may have taken its part already.
            self._core.mark_all()
            return False
        self._fold([entry for logs in away.values() for entry in logs], common, head)
        self._forget()
        if not dropped:
            self._go_on(checkpoint.streams)
        log.info(
            "resumed", chain=self._name, block=head.number, since=common.number, dropped=len(dropped),
            **self._core.tracked(),
        )  # fmt: skip
        await self._read(head)
        return True

    # --- reading --------------------------------------------------------------------------------------

    async def _common(self, saved: Sequence[BlockRef], head: Header) -> BlockRef | None:
        """Return the newest block of then that is on the chain of now."""
        ours = {block.number: block.hash for block in self._window() if block.number <= head.number}
        ours[head.number] = head.hash
        lowest = min(ours)
        older = []
        for block in reversed(saved):
            if block.number >= lowest:
                if ours.get(block.number) == block.hash:
                    return block
            else:
                older.append(block)
        # The newest alone first: nearly always it is that one.
        for part in (older[:1], older[1:]):
            if not part:
                continue
            try:
                found = {header.hash for header in await self._reader.headers(part[-1].number, part[0].number)}
            except PermanentError as error:
                log.info("blocks of the last run are not to be had", chain=self._name, error=str(error))
                return None
            common = next((block for block in part if block.hash in found), None)
            if common is not None:
                return common
        return None

    async def _logs(self, common: BlockRef, head: Header) -> dict[str, list[Log]] | None:
        """Return what happened since a block, by kind of book; None where nobody tells it."""
        if common.number == head.number:
            return {}
        try:
            logs = {}
            for kind, book in self._books.items():
                contract, topics = book.restored_topics()
                logs[kind] = await self._reader.history(contract, [topics], head, common, _MAX_PIECES)
        except PermanentError as error:
            log.warning("logs since the last run are refused: begun anew", chain=self._name, error=str(error))
            return None
        for kind, book in self._books.items():
            book.check(logs[kind])
        return logs

    # --- deciding -------------------------------------------------------------------------------------

    def _wish(self, name: str) -> None:
        try:
            self._reopen(parse_channel(name, {int(self._chain_id): frozenset(self._books)}))
        except ClientError as error:
            log.info("channel is not served any more", chain=self._name, error=error.message)

    def _fold(self, logs: list[Log], common: BlockRef, head: Header) -> None:
        logs.sort(key=lambda entry: (entry.block_number, entry.index))
        last = common.hash
        for block_hash, entries in groupby(logs, key=lambda entry: entry.block_hash):
            self._core.fold(block_hash, list(entries))
            last = block_hash
        if last != head.hash:
            # What is read from now on is first read at the head.
            self._core.fold(head.hash, [])

    def _forget(self) -> None:
        """Let go of what no reorganisation can reach: the follower only forgets blocks that it has seen itself."""
        ours = {block.hash for block in self._window()}
        for book in self._books.values():
            for block_hash in book.remembered():
                if block_hash not in ours:
                    book.forget(block_hash)

    async def _read(self, head: Header) -> None:
        """Read what holds the first publication back; the runner goes on where this has to stop."""
        try:
            for _ in range(_MAX_ROUNDS):
                if self._core.is_settled():
                    return
                plan = self._core.plan(_BUDGET)
                self._core.absorb(plan, await self._reader.call(plan.calls, head.hash, "load"))
        except (RetryableError, PermanentError) as error:
            log.info("not all read yet", chain=self._name, block=head.number, error=str(error))
