"""Heads from everywhere: subscriptions that are opened again, and polls where and while these say nothing.

Polls are the net under the subscriptions: after a silence of `silence_s` every node is asked for its head, and
again at the pace of the blocks until someone confirms ours. While no subscription is open, one node is asked at
that pace all the time. What is heard is handed on with its node's name; nothing is judged here.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from ..domain.chain import Header
from ..domain.errors import PermanentError, RetryableError
from ..domain.ids import BlockHash
from ..obs.metrics import Metrics
from .heads import stream_heads
from .rpc import endpoint_name, node_of

__all__ = ["HeadListener", "HeadReader"]

log = structlog.get_logger(__name__)


class HeadReader(Protocol):
    """One node that can be asked; see chain.reader."""

    async def latest(self) -> Header:
        """Return the node's head."""

    async def header(self, block_hash: BlockHash) -> Header | None:
        """Return a header by hash, None where the node doesn't have it."""

    async def headers(self, first: int, last: int) -> list[Header]:
        """Return the headers of a range of heights, oldest first."""


_RETRY_MIN_S: Final = 0.1
# Right again within a second of the node's return, as long as the outage was short; later it may take longer.
_RETRY_SHORT_S: Final = 0.5
_RETRY_MAX_S: Final = 5.0
_RETRY_SHARE: Final = 1 / 20
# A share of the silence: a third of a block's time where the silence is two and a half of them.
_POLL_SHARE: Final = 1 / 7.5
_POLL_MIN_S: Final = 0.2
_POLL_MAX_S: Final = 4.0


@dataclass(slots=True)
class _Subscription:
    """An open subscription: when it last said something, the highest head until then, and how to end it."""

    scope: asyncio.Timeout
    spoke_at: float
    highest: int


@dataclass(slots=True)
class _Polled:
    """One node that can be asked."""

    reader: HeadReader
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    failures: int = 0
    failing_since: float = 0.0
    asked_at: float = float("-inf")


class HeadListener:
    """Subscriptions to all WebSocket endpoints of a chain, and polls of its nodes.

    Args:
        name: The chain's name in logs and metrics.
        ws_urls: Endpoints for newHeads.
        nodes: Each node to ask, by `node_of` its URL.
        silence_s: After this long without a word for our head, it is asked for.
        connect_timeout_s: Limit for opening a subscription.
        hear: Takes each head, with the node that said it.
        confirmed_at: Returns when our head was last confirmed by anyone, on the monotonic clock.
        metrics: Where failures are counted.
    """

    def __init__(
        self,
        *,
        name: str,
        ws_urls: Sequence[str],
        nodes: Mapping[str, HeadReader],
        silence_s: float,
        connect_timeout_s: float,
        hear: Callable[[str, Header], None],
        confirmed_at: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self._name = name
        self._ws_urls = list(ws_urls)
        self._polls = {node: _Polled(reader) for node, reader in nodes.items()}
        self._silence_s = silence_s
        # Without subscriptions the silence is the pace.
        self._pace_s = min(max(silence_s * _POLL_SHARE, _POLL_MIN_S), _POLL_MAX_S) if ws_urls else silence_s
        self._connect_timeout_s = connect_timeout_s
        self._hear = hear
        self._confirmed_at = confirmed_at
        self._metrics = metrics
        self._open: dict[str, _Subscription] = {}
        # When a node last announced a head, and when an endpoint last had a subscription; monotonic seconds.
        self._announced_at: dict[str, float] = {}
        self._alive_at: dict[str, float] = {}
        metrics.subscriptions.labels(name).set_function(lambda: len(self._open))
        self._highest = 0
        self._retry = asyncio.Event()
        self._subscribed = asyncio.Event()

    @property
    def subscriptions(self) -> int:
        """Return how many subscriptions are open."""
        return len(self._open)

    async def subscribed(self) -> None:
        """Wait until a subscription for heads is open, and what came before it was asked for."""
        await self._subscribed.wait()

    async def run(self) -> None:
        """Listen. Never returns."""
        async with asyncio.TaskGroup() as group:
            for url in self._ws_urls:
                group.create_task(self._follow(url), name=f"heads {endpoint_name(url)}")
            for node, polled in self._polls.items():
                group.create_task(self._ask(node, polled), name=f"polls {self._name}")

    def ask(self) -> None:
        """Ask every node for its head, now."""
        for polled in self._polls.values():
            polled.wake.set()

    # --- subscriptions --------------------------------------------------------------------------------

    async def _follow(self, url: str) -> None:
        self._alive_at[url] = time.monotonic()
        failures, alive_at = 0, self._alive_at[url]
        while True:
            try:
                await self._listen(url)
            except RetryableError as error:
                if self._alive_at[url] != alive_at:
                    failures, alive_at = 0, self._alive_at[url]
                failures += 1
                self._metrics.rpc_errors.labels(self._name, "heads").inc()
                if failures <= 3:
                    log.warning("heads interrupted", chain=self._name, error=str(error))
            # What it had not said yet is asked for; polls go on from here.
            self.ask()
            # An event that was set while we were connected is of the past.
            self._retry.clear()
            try:
                async with asyncio.timeout(_retry_in(time.monotonic() - self._alive_at[url])):
                    await self._retry.wait()
            except TimeoutError:
                continue

    async def _listen(self, url: str) -> None:
        """Hand on the heads of one connection until it ends, or is given up for its silence."""
        node = node_of(url)

        def opened() -> None:
            self._open[url] = _Subscription(scope, time.monotonic(), self._highest)
            self.ask()

        try:
            async with (
                asyncio.timeout(None) as scope,
                aclosing(stream_heads(url, self._connect_timeout_s, opened)) as heads,
            ):
                async for header in heads:
                    subscription = self._open[url]
                    subscription.spoke_at = self._announced_at[node] = time.monotonic()
                    self._take(node, header)
                    subscription.highest = self._highest
        except TimeoutError:
            self._metrics.rpc_errors.labels(self._name, "silent").inc()
            log.warning("heads went silent", chain=self._name, endpoint=endpoint_name(url))
        finally:
            if self._open.pop(url, None) is not None:
                self._alive_at[url] = time.monotonic()

    def _take(self, node: str, header: Header) -> None:
        self._highest = max(self._highest, header.number)
        self._hear(node, header)

    def _end_silent(self, header: Header) -> None:
        """End subscriptions that said nothing while the chain moved: they are dead, however open they look."""
        now = time.monotonic()
        for subscription in self._open.values():
            is_silent = now - subscription.spoke_at > self._silence_s and subscription.highest < header.number
            # One that was told a moment ago is on its way out.
            if is_silent and not subscription.scope.expired():
                subscription.scope.reschedule(asyncio.get_running_loop().time())

    # --- polls ----------------------------------------------------------------------------------------

    async def _ask(self, node: str, polled: _Polled) -> None:
        while True:
            try:
                async with asyncio.timeout(self._wait_s(polled)):
                    await polled.wake.wait()
            except TimeoutError:
                if not self._is_due(polled):
                    continue
            polled.wake.clear()
            is_open = bool(self._open)
            asked_at = polled.asked_at = time.monotonic()
            try:
                header = await polled.reader.latest()
            except (RetryableError, PermanentError) as error:
                polled.failures += 1
                polled.failing_since = polled.failing_since or asked_at
                log.debug("head not readable", chain=self._name, error=str(error))
            else:
                if polled.failures:
                    polled.failures, polled.failing_since = 0, 0.0
                    # The node is back: subscriptions need not wait for their turn.
                    self._retry.set()
                # What was announced meanwhile is newer than what was answered.
                if self._announced_at.get(node, 0.0) < asked_at:
                    self._take(node, header)
                self._end_silent(header)
            if is_open:
                self._subscribed.set()

    def _wait_s(self, polled: _Polled) -> float:
        """Return how long this node need not be asked."""
        now = time.monotonic()
        if polled.failures:
            return _retry_in(now - polled.failing_since)
        since_asked = now - polled.asked_at
        if not self._open and self._is_first(polled):
            return max(self._pace_s - since_asked, 0.0)
        quiet_s = now - self._confirmed_at()
        if quiet_s >= self._silence_s:
            return max(self._pace_s - since_asked, 0.0)
        return self._silence_s - quiet_s

    def _is_due(self, polled: _Polled) -> bool:
        """Return whether a wait that ran out was for asking: it may have been confirmed meanwhile."""
        if polled.failures:
            return True
        return self._wait_s(polled) <= 0.0

    def _is_first(self, polled: _Polled) -> bool:
        """Return whether this is the first node that answers: one is enough while heads come from nowhere else."""
        return next((one for one in self._polls.values() if not one.failures), polled) is polled


def _retry_in(failing_s: float) -> float:
    """Return how long to wait before the next try. Jittered: many servers must not come back in step."""
    limit = min(max(failing_s * _RETRY_SHARE, _RETRY_SHORT_S), _RETRY_MAX_S)
    return random.uniform(max(limit / 2, _RETRY_MIN_S), limit)
