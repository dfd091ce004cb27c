"""An engine's side of one chain: who is in charge, what is written in which order, what has to be kept open.

Synchronous towards the engine: `publish` takes what it says and returns. All that waits is in tasks of its own.
"""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Final, Protocol

import structlog

from ..domain.chain import Header
from ..domain.errors import ClientError, PermanentError, RetryableError
from ..domain.update import BlockUpdate
from ..obs.metrics import Metrics
from ..protocols.channels import Channel, parse_channel
from .ports import BrokerAway, ChainLink, Fenced
from .steps import Step

__all__ = ["Engine", "LeadLimits", "Leader", "LedgerPort"]

log = structlog.get_logger(__name__)

# Steps that wait for Redis: over it they are forgotten, and a new run tells all that they said.
_MAX_QUEUED: Final = 64


class LeadLimits:
    """How long an engine waits, in seconds.

    Args:
        lease_s: An engine that says nothing for so long has lost its charge.
        renew_s: So often it says that it lives, and gateways hear that the line does.
        warm_s: So long an engine that has not loaded all wishes yet leaves the lease to others.
        look_s: So often wishes are read again, and what nobody wishes for is closed.
        patience_s: After Redis was away, and in a new run, nothing is closed for so long: gateways wish anew.
        silence_s: After this without even a beat the line to wishes is taken anew.
        retry_s: Between two tries.
    """

    def __init__(
        self,
        lease_s: float = 3.0,
        renew_s: float = 0.7,
        warm_s: float = 20.0,
        look_s: float = 5.0,
        patience_s: float = 10.0,
        silence_s: float = 3.0,
        retry_s: float = 0.25,
    ) -> None:
        self.lease_s: Final = lease_s
        self.renew_s: Final = renew_s
        self.warm_s: Final = warm_s
        self.look_s: Final = look_s
        self.patience_s: Final = patience_s
        self.silence_s: Final = silence_s
        self.retry_s: Final = retry_s


class LedgerPort(Protocol):
    """The engine's streams; see hub.ledger."""

    @property
    def head(self) -> Header | None:
        """Return the newest block."""

    @property
    def streams(self) -> Mapping[str, object]:
        """Return the open channels."""

    def take(self, update: BlockUpdate) -> Step:
        """Take what the engine says into the streams."""

    def begin_run(self) -> list[Step]:
        """Return the steps that begin a run."""

    def forget(self, names: Iterable[str]) -> None:
        """Let go of closed channels."""


class Engine(Protocol):
    """Who computes; see engine.runner."""

    def want(self, channel: Channel) -> None:
        """Open a channel."""

    def unwant(self, channel: Channel) -> None:
        """Close a channel."""


class Leader:
    """One chain's writer, or its standby.

    Args:
        chain_id: The chain.
        name: Its name in logs and metrics.
        kinds: The protocols that are served on it.
        link: To the gateways.
        ledger: The streams.
        engine: Who computes.
        metrics: Where it is shown who is in charge.
        limits: How long it waits.
    """

    def __init__(
        self,
        *,
        chain_id: int,
        name: str,
        kinds: frozenset[str],
        link: ChainLink,
        ledger: LedgerPort,
        engine: Engine,
        metrics: Metrics,
        limits: LeadLimits | None = None,
    ) -> None:
        self._known = {chain_id: kinds}
        self._name = name
        self._link = link
        self._ledger = ledger
        self._engine = engine
        self._metrics = metrics
        self._limits = limits or LeadLimits()
        self._holder = secrets.token_hex(8)
        self._token: str | None = None
        self._number = 0
        self._queue: deque[Step] = deque()
        self._bound = _MAX_QUEUED
        self._has_lost = False
        self._news = asyncio.Event()
        self._began = time.monotonic()
        # What gateways wish for, as of the last look, and where the next one goes on.
        self._wanted: set[str] = set()
        self._looked_at = ""
        self._gateways = 0
        self._has_looked = False
        self._open: dict[str, Channel] = {}
        self._refused: set[str] = set()
        # What nobody wishes for any more: closed between two steps, and not before.
        self._to_close: list[str] = []
        self._patient_until = 0.0
        self._look_now = asyncio.Event()
        metrics.in_charge.labels(name).set(0)

    @property
    def is_in_charge(self) -> bool:
        """Return whether this engine publishes, as far as it knows."""
        return self._token is not None

    @property
    def name(self) -> str:
        """Return what it is called in logs and metrics."""
        return self._name

    @property
    def token(self) -> str | None:
        """Return what proves that this engine is in charge; None while it is not, as far as it knows."""
        return self._token

    def report(self) -> dict[str, object]:
        """Return what the health report says."""
        return {"inCharge": self.is_in_charge, "gateways": self._gateways, "queuedSteps": len(self._queue)}

    # --- the engine's side ----------------------------------------------------------------------------

    def publish(self, update: BlockUpdate) -> None:
        """Take a step of the engine; written as soon as may be, if this engine is in charge."""
        step = self._ledger.take(update)
        for name in update.refused:
            self._open.pop(name, None)
            self._refused.add(name)
        if self._token is None:
            self._news.set()
            return
        if len(self._queue) >= self._bound:
            self._metrics.steps_lost.labels(self._name).inc(len(self._queue))
            self._queue.clear()
            self._has_lost = True
        if not self._has_lost:
            self._queue.append(step)
        self._news.set()

    def reopen(self, channel: Channel) -> None:
        """Wish for a channel that an earlier process had open; closed again if no gateway wishes for it."""
        self._want(channel.name, channel)

    # --- being in charge ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Lead, or stand by, until cancelled; then the lease is given back."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._lead())
                group.create_task(self._hear_wishes())
                group.create_task(self._look())
        finally:
            # In a task of its own, as a gateway's: see Follower.run.
            await asyncio.create_task(self._give_back())

    async def _give_back(self) -> None:
        token, self._token = self._token, None
        if token is not None:
            try:
                async with asyncio.timeout(1.0):
                    await self._link.release(token)
            except (RetryableError, TimeoutError):
                log.info("lease not given back; it expires", chain=self._name)

    async def _lead(self) -> None:
        failures = 0
        while True:
            try:
                if await self._take_charge():
                    await self._write()
                failures = 0
            except Fenced as error:
                log.warning("not in charge any more", chain=self._name, reason=str(error))
                self._metrics.fenced.labels(self._name).inc()
            except RetryableError as error:
                self._be_patient()
                failures += 1
                if failures & (failures - 1) == 0:
                    log.warning("redis does not answer", chain=self._name, error=str(error), failures=failures)
            if self._token is None:
                self._metrics.in_charge.labels(self._name).set(0)
            await asyncio.sleep(self._limits.retry_s)

    async def _take_charge(self) -> bool:
        """Get the lease and begin a run, or find that this is another's turn."""
        if self._token is not None:
            return True  # Redis was away, and what is queued is next
        if self._ledger.head is None or not self._is_warm():
            return False
        self._token = await self._link.acquire(self._holder, int(self._limits.lease_s * 1000))
        if self._token is None:
            return False
        self._be_patient()
        log.info("in charge", chain=self._name, run=self._token, channels=len(self._ledger.streams))
        self._metrics.in_charge.labels(self._name).set(1)
        # Between here and what the engine says next nothing comes: the run begins with all there is.
        self._queue = deque(self._ledger.begin_run())
        self._bound = len(self._queue) + _MAX_QUEUED
        self._number = 0
        self._has_lost = False
        return True

    def _is_warm(self) -> bool:
        """Return whether everything that is wished for is there; after a while an engine in charge is worth more."""
        if time.monotonic() - self._began > self._limits.warm_s:
            return True
        return self._has_looked and self._ledger.streams.keys() >= self._open.keys()

    async def _write(self) -> None:
        """Write what is queued, and keep the lease, for as long as this engine is in charge."""
        assert self._token is not None
        renew_s = self._limits.renew_s
        renewed_at = -1e9
        try:
            while not self._has_lost:
                now = time.monotonic()
                if now - renewed_at >= renew_s:
                    if not await self._link.renew(self._token, int(self._limits.lease_s * 1000), self._number):
                        raise Fenced("another engine took the lease, or what was written is lost")
                    renewed_at = now
                if not self._queue and self._to_close:
                    await self._close()
                if self._queue:
                    await self._link.publish(self._token, self._number + 1, self._queue[0])
                    # Not before: what was not answered is sent again under the same number.
                    self._queue.popleft()
                    self._number += 1
                    continue
                self._news.clear()
                try:
                    async with asyncio.timeout(max(renewed_at + renew_s - time.monotonic(), 0.0)):
                        await self._news.wait()
                except TimeoutError:
                    continue
            raise Fenced("too many steps waited for redis")
        except Fenced:
            self._token = None
            self._queue.clear()
            raise

    # --- wishes ---------------------------------------------------------------------------------------

    def _be_patient(self) -> None:
        """Close nothing for a while: an emptied Redis holds no wishes, and what is closed costs a load to have anew."""
        self._patient_until = time.monotonic() + self._limits.patience_s
        self._to_close = []

    async def _hear_wishes(self) -> None:
        """Open what a gateway begins to wish for, at once."""
        while True:
            try:
                async with aclosing(self._link.wishes()) as wishes:  # type: ignore[type-var]
                    is_new = True
                    while True:
                        # A line that is dead without a word looks like gateways that wish for nothing; beats differ.
                        async with asyncio.timeout(self._limits.silence_s):
                            names = await anext(wishes)
                        for name in names:
                            self._wish(name)
                        if is_new:
                            # What was wished for before may have been missed.
                            self._look_now.set()
                            is_new = False
            except (RetryableError, PermanentError, StopAsyncIteration, TimeoutError):
                # Told by whoever writes; until it is back, wishes are read every few seconds.
                await asyncio.sleep(self._limits.retry_s)

    async def _look(self) -> None:
        """Read all wishes again, every few seconds: what was not heard, and what is no more."""
        while True:
            try:
                interests = await self._link.interests(self._looked_at)
            except (RetryableError, PermanentError):
                self._be_patient()
                await asyncio.sleep(self._limits.retry_s)
                continue
            self._looked_at, self._gateways = interests.cursor, interests.gateways
            if interests.is_whole:
                self._wanted = set(interests.added)
            else:
                self._wanted -= interests.removed
                self._wanted |= interests.added
            wanted = self._wanted
            self._refused &= wanted
            for name in wanted - self._refused:
                self._wish(name)
            self._has_looked = True
            unwanted = [name for name in self._open if name not in wanted]
            if time.monotonic() < self._patient_until:
                unwanted = []
            if self._token is None:
                self._forget(unwanted)
            else:
                self._to_close = unwanted
                self._news.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.look_s):
                    await self._look_now.wait()
            self._look_now.clear()

    def _wish(self, name: str) -> None:
        if name in self._open:
            return
        try:
            channel = parse_channel(name, self._known)
        except ClientError as error:
            log.warning("a gateway wishes for what is not served", chain=self._name, error=error.message[:200])
            return
        self._want(name, channel)

    def _want(self, name: str, channel: Channel) -> None:
        if name not in self._open:
            self._open[name] = channel
            self._refused.discard(name)
            self._engine.want(channel)

    async def _close(self) -> None:
        """Close what nobody wishes for. Redis decides, so that no gateway is left with half of it.

        Called with an empty queue: what is said meanwhile of a channel that goes is taken out of it again.
        """
        assert self._token is not None
        names, self._to_close = self._to_close, []
        there = [name for name in names if name in self._ledger.streams]
        try:
            closed = await self._link.close(self._token, there)
        except BrokerAway:
            # Closed or not: only a new run says.
            self._has_lost = True
            return
        for step in self._queue:
            for name in closed:
                for part in (step.entries, step.snapshots, step.oldest):
                    part.pop(name, None)
            step.opened = [name for name in step.opened if name not in closed]
        self._forget(closed)

    def _forget(self, names: Sequence[str]) -> None:
        for name in names:
            channel = self._open.pop(name, None)
            if channel is not None:
                self._engine.unwant(channel)
        self._ledger.forget(names)
