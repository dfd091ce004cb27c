"""Writes one chain's records beside the blocks, keeps them true to the chain, and rolls up what grew old.

Nothing here is waited for by the follower: whatever the database does, the queue in front of it is bounded. After a
failure all is tried again, more and more rarely; what was being written goes back into the queue.

Of several engines on one database only the one in charge writes. A standby keeps the newest records; when it gets the
charge it claims the chain, proves what is there, and then writes what of its records is not.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog

from ..domain.chain import BlockRef, Header
from ..domain.errors import PermanentError, RetryableError
from ..domain.ids import BlockHash, ChainId, TokenId
from ..obs.metrics import Metrics
from ..store.records import Record, Retention, Rewind, Vanished
from ..store.values import ALONE
from .backlog import Backlog

__all__ = ["Keep", "Records", "Writer"]

log = structlog.get_logger(__name__)

# Records a transaction: some ten milliseconds, and what is written again after a failure.
_BATCH: Final = 2000
# The longest pause after failures: a full disk is looked at once a minute.
_PAUSE_MAX_S: Final = 60.0
# A database that takes longer than that for a batch is not going to take it.
_WRITE_S: Final = 30.0
_ROLL_UP_EVERY_S: Final = 30.0
# The first step back, in seconds, in search of a record whose block is on the chain.
_STEP_BACK_S: Final = 16
# What a standby keeps, in seconds of the chain's time: an engine in charge whose database was away for longer and that
# then is lost takes with it what was before.
_SPARE_S: Final = 3600
# How often a standby looks whether it is in charge: whoever asks for the past waits for it.
_STANDBY_S: Final = 0.1


class Records(Protocol):
    """Where records are; see store.history."""

    async def claim(self, chain_id: ChainId, identities: Mapping[str, str], charge: str) -> None:
        """Become the one who writes a chain's records, unless a later charge than this does."""

    async def write(self, chain_id: ChainId, rewind: Rewind | None, records: list[Record]) -> None:
        """Take back what left the chain, then add records; all or nothing."""

    async def newest(self, chain_id: ChainId, until: int | None = None) -> tuple[BlockRef, int] | None:
        """Return the block and the timestamp of the newest record, of those not after `until`."""

    async def drop_after(self, chain_id: ChainId, rewind: Rewind | None) -> int:
        """Delete the records of blocks that are not on the chain any more; all of them for None."""

    async def ends(self, chain_id: ChainId, since: int) -> Mapping[tuple[str, TokenId], tuple[int, int]]:
        """Return timestamp and height of each position's newest record, where that is not before `since`."""

    async def roll_up(self, chain_id: ChainId, retention: Retention) -> int:
        """Merge some of the oldest records into the next coarser level; return how many were moved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """How long records are kept at each resolution, in seconds; of days, 0 is for ever."""

    minutes_s: int
    hours_s: int
    days_s: int

    def until(self, now: int, final: int) -> Retention:
        """Return what is old enough by a time, and final."""
        minutes, hours = (min(now - kept_s, final) for kept_s in (self.minutes_s, self.hours_s))
        return Retention(minutes_until=minutes, hours_until=hours, days_until=now - self.days_s if self.days_s else 0)


class Writer:
    """One chain's writer.

    Args:
        chain_id: The chain.
        name: Its name in logs and metrics.
        identities: What tells its deployments from others, by protocol.
        records: Where records go.
        backlog: Where they come from.
        head: Returns the newest published head.
        final: Returns the oldest block that may be undone step by step; older ones are rolled up.
        hash_at: Returns the hash that the chain has at a height, None above its head; raises RetryableError.
        keep: How long records are kept.
        metrics: Where they are counted.
        charge: Returns what proves that this process is in charge, None while it is not; see `Records.claim`. One
            that shares its database with no other is always in charge.
        reach_s: How long a record may be, in seconds of the chain's time.
        gather_s: Seconds for which records are gathered: they come one by one.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        *,
        chain_id: ChainId,
        name: str,
        identities: Mapping[str, str],
        records: Records,
        backlog: Backlog,
        head: Callable[[], Header | None],
        final: Callable[[], Header | None],
        hash_at: Callable[[int], Awaitable[BlockHash | None]],
        keep: Keep,
        metrics: Metrics,
        charge: Callable[[], str | None] = lambda: ALONE,
        reach_s: int = 0,
        gather_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._chain_id = chain_id
        self._name = name
        self._identities = identities
        self._records = records
        self._backlog = backlog
        self._head = head
        self._final = final
        self._hash_at = hash_at
        self._keep = keep
        self._charge = charge
        self._reach_s = reach_s
        self._gather_s = gather_s
        self._metrics = metrics
        self._clock = clock
        # The charges under which the chain was claimed, was proved, and was found to be another's.
        self._claimed: str | None = None
        self._lost: str | None = None
        self._proved: str | None = None
        self._doubts = 0
        self._failures = 0
        self._failing_since: float | None = None
        self._rolled_up_at = float("-inf")
        self.is_over = False
        self._told_dropped = 0
        # One batch at a time, also at the end.
        self._turn = asyncio.Lock()
        metrics.history_queue.labels(name).set_function(lambda: len(backlog))

    @property
    def is_proved(self) -> bool:
        """Return whether all that is in the database is known to be on the chain, but for what the backlog takes back.

        What was known in an earlier charge is not: another process has written since.
        """
        return self._proved is not None and self._proved == self._charge()

    def doubt(self) -> None:
        """Look again for the newest record that is on the chain before anything is written or read."""
        self._proved = None
        self._doubts += 1

    def report(self) -> dict[str, Any]:
        """Return what the health report says."""
        state = "writing"
        charge = self._charge()
        if charge is None:
            state = "standby"
        elif charge == self._lost:
            state = "reading only"
        elif self._failures:
            state = "not written"
        elif not self.is_proved:
            state = "starting"
        told: dict[str, Any] = {"state": state, "queued": len(self._backlog), "dropped": self._backlog.dropped}
        if self._failing_since is not None:
            told["forMs"] = int((self._clock() - self._failing_since) * 1000)
        return told

    async def finish(self) -> None:
        """Write what waits, and nothing after that; limit its time from outside."""
        self.is_over = True
        async with self._turn:
            while self._is_mine() and self.is_proved and not self._backlog.is_empty:
                try:
                    await self._write()
                except (RetryableError, PermanentError) as error:
                    log.warning("last records are not written", chain=self._name, reason=str(error))
                    return

    async def run(self) -> None:
        """Write what comes while this process is in charge, and hold it ready while it is not."""
        while not self.is_over:
            if await self._step():
                continue
            await asyncio.sleep(self._pause_s())

    def _pause_s(self) -> float:
        if self._charge() is None:
            return min(self._gather_s, _STANDBY_S)
        if not self._failures:
            return self._gather_s
        return min(self._gather_s * 2.0 ** min(self._failures, 30), _PAUSE_MAX_S)

    async def _step(self) -> bool:
        """Do the next thing; return whether there is more to do at once."""
        dropped, self._told_dropped = self._backlog.dropped - self._told_dropped, self._backlog.dropped
        self._metrics.history_dropped.labels(self._name).inc(dropped)
        head, charge = self._head(), self._charge()
        self._backlog.is_spare = charge is None
        if charge is None:
            self._stand_by(head)
            return False
        if head is None or charge == self._lost:
            return False
        try:
            async with self._turn, asyncio.timeout(_WRITE_S):
                is_more = await self._work(charge)
        except (RetryableError, TimeoutError) as error:
            if isinstance(error, Vanished):
                self._claimed = None
            self._failed(error)
            return False
        except PermanentError as error:
            self._backlog.give_back()
            self._lost = charge
            log.warning("history of this chain is not written any more", chain=self._name, reason=str(error))
            return False
        self._recovered()
        return is_more

    def _is_mine(self) -> bool:
        return self._claimed is not None and self._claimed == self._charge() != self._lost

    def _stand_by(self, head: Header | None) -> None:
        # What another one writes from now on is for that one to prove.
        self._claimed = self._proved = None
        self._failures, self._failing_since = 0, None
        if head is not None:
            self._backlog.forget_before(head.timestamp - _SPARE_S)

    async def _work(self, charge: str) -> bool:
        if self._claimed != charge and not await self._claim(charge):
            return True
        if self._proved is None and await self._prove():
            self._proved = charge
        if not self._backlog.is_empty:
            await self._write()
            return len(self._backlog) >= _BATCH
        if self._clock() - self._rolled_up_at >= _ROLL_UP_EVERY_S:
            if await self._roll_up():
                return True
            self._rolled_up_at = self._clock()
        return False

    async def _claim(self, charge: str) -> bool:
        """Begin to write where another one ended; return False where blocks left the chain meanwhile: again then."""
        await self._records.claim(self._chain_id, self._identities, charge)
        self._proved = None
        # What left the chain before now is in the database no more, or is found by the proof. Taking back what this
        # process remembers would take back also what another one wrote of the blocks that came instead.
        self._backlog.forget_rewind()
        is_proved = await self._prove()
        head = self._head()
        assert head is not None
        oldest = self._backlog.oldest
        since = head.timestamp - self._reach_s
        ends = await self._records.ends(self._chain_id, since if oldest is None else min(oldest, since))
        if not is_proved or self._backlog.reach is not None:
            return False
        self._backlog.follow(ends)
        self._claimed = self._proved = charge
        return True

    async def _write(self) -> None:
        batch = self._backlog.take(_BATCH)
        started = time.perf_counter()
        try:
            await self._records.write(self._chain_id, batch.rewind, batch.records)
        except BaseException:
            # Also when it took too long: written twice is written once.
            self._backlog.give_back()
            raise
        self._backlog.done()
        self._metrics.history_write.labels(self._name).observe(time.perf_counter() - started)
        self._metrics.history_rows.labels(self._name).inc(len(batch.records))

    async def _roll_up(self) -> bool:
        head, final = self._head(), self._final()
        if head is None or final is None:
            return False
        return bool(await self._records.roll_up(self._chain_id, self._keep.until(head.timestamp, final.timestamp)))

    # --- the chain and the database -------------------------------------------------------------------

    async def _prove(self) -> bool:
        """Delete what is not on the chain: a crash may have left it there, or a deep reorganisation.

        Returns:
            Whether that was all; False where there was another one meanwhile.
        """
        doubts = self._doubts
        newest = await self._records.newest(self._chain_id)
        if newest is not None and not await self._is_on_chain(newest[0]):
            last = await self._last_on_chain(newest[1])
            rewind = None if last is None else Rewind(last[0].number, last[1])
            count = await self._records.drop_after(self._chain_id, rewind)
            log.warning(
                "history of blocks that left the chain is deleted", chain=self._name, records=count,
                block=None if last is None else last[0].number,
            )  # fmt: skip
        return self._doubts == doubts

    async def _last_on_chain(self, bad: int) -> tuple[BlockRef, int] | None:
        """Return the newest record that is on the chain; that of the time `bad` is not. Records are of one branch."""
        good: tuple[BlockRef, int] | None = None
        top, step = bad, _STEP_BACK_S
        low = bad
        while good is None and low >= 0:
            low = top - step
            found = await self._records.newest(self._chain_id, low)
            if found is None:
                break
            if await self._is_on_chain(found[0]):
                good = found
            else:
                bad = found[1]
            step *= 4
        # The last one is after `low`, if it isn't `good`, and before `bad`.
        while bad - low > 1:
            middle = (low + bad) // 2
            found = await self._records.newest(self._chain_id, middle)
            if found is None or found[1] <= low:
                low = middle
            elif await self._is_on_chain(found[0]):
                good, low = found, middle
            else:
                bad = found[1]
        return good

    async def _is_on_chain(self, block: BlockRef) -> bool:
        return await self._hash_at(block.number) == block.hash

    # --- trouble --------------------------------------------------------------------------------------

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self._metrics.history_errors.labels(self._name).inc()
        if self._failing_since is None:
            self._failing_since = self._clock()
            reason = str(error) or "it took too long"
            log.warning("history is not written", chain=self._name, reason=reason, waiting=len(self._backlog))

    def _recovered(self) -> None:
        if self._failing_since is not None:
            log.info(
                "history is written again", chain=self._name, failures=self._failures, dropped=self._backlog.dropped,
                after_s=round(self._clock() - self._failing_since, 1),
            )  # fmt: skip
        self._failures, self._failing_since = 0, None
