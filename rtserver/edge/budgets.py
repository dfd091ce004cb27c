"""What each address may do a minute: one account for its requests and all its sockets, also over several gateways.

Decides where it is counted: in this process, and where there are several also in what joins them. A process that
can't reach that goes on with its own account.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from ..domain.errors import ClientError, RetryableError
from ..hub.limits import Limits
from ..obs.metrics import Metrics
from .admission import Rates, party

__all__ = ["Budget", "Budgets", "LocalBudget", "SharedBudget", "SharedRates", "local_budgets", "shared_budgets"]

log = structlog.get_logger(__name__)

# A client waits for this beside its own round trip: a Redis that takes longer is not asked for a while.
_SHARED_S: Final = 1.0
_ALONE_S: Final = 2.0


class Budget(Protocol):
    """What addresses may do a minute."""

    async def take(self, address: str) -> float:
        """Return 0 where an address may do it once more, else the seconds to wait."""


class SharedRates(Protocol):
    """Accounts that several processes share; see broker.rates."""

    async def take(self, name: str, key: str, per_minute: float, burst: int) -> float:
        """Return 0 where a party may do it once more, else the seconds to wait.

        Raises:
            RetryableError: They can't be reached.
        """


class LocalBudget:
    """An account in this process.

    Args:
        per_minute: What an address may do a minute; as much at once.
        clock: Monotonic seconds.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rates = Rates(per_minute)
        self._clock = clock

    async def take(self, address: str) -> float:
        """Take one; see the port."""
        return self._rates.take(address, self._clock())


class SharedBudget:
    """An account that this process shares with others.

    Its own account comes first: it can't allow less than the shared one, so a flood is refused here without asking. And
    it is all there is while the shared one is out of reach: an address then has as much at each gateway.

    Args:
        name: The account's name.
        per_minute: What an address may do a minute; as much at once.
        shared: The shared account.
        metrics: Where it is counted how often it was out of reach.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        per_minute: int,
        shared: SharedRates,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._per_minute = per_minute
        self._shared = shared
        self._metrics = metrics
        self._clock = clock
        self._rates = Rates(per_minute)
        self._alone_until = 0.0
        self._is_alone = False

    async def take(self, address: str) -> float:
        """Take one; see the port."""
        now = self._clock()
        wait_s = self._rates.take(address, now)
        if wait_s or now < self._alone_until:
            return wait_s
        try:
            async with asyncio.timeout(_SHARED_S):
                wait_s = await self._shared.take(self._name, party(address), self._per_minute, self._per_minute)
        except (RetryableError, TimeoutError) as error:
            self._alone_until = self._clock() + _ALONE_S
            self._metrics.limits_alone.labels(self._name).inc()
            if not self._is_alone:
                self._is_alone = True
                log.warning("limits are this gateway's own for now", limit=self._name, reason=str(error) or "too slow")
            return 0.0
        if self._is_alone:
            self._is_alone = False
            log.info("limits are shared again", limit=self._name)
        return wait_s


@dataclass(frozen=True, slots=True)
class Budgets:
    """The accounts of a process: channels that have to be loaded, and new sockets."""

    loads: Budget
    sockets: Budget
    loads_per_minute: int

    async def load(self, address: str) -> None:
        """Count what an address has read from the node or a database.

        Raises:
            ClientError: `rate`, when its account is empty.
        """
        wait_s = await self.loads.take(address)
        if wait_s:
            text = f"at most {self.loads_per_minute} channels that are not open yet a minute from an address"
            # A second more, because HTTP says whole seconds, rounded down.
            raise ClientError("rate", text, retry_after_ms=int(wait_s * 1000) + 1000)


def local_budgets(limits: Limits) -> Budgets:
    """Return the accounts of a process that is alone."""
    loads, sockets = LocalBudget(limits.loads_per_minute), LocalBudget(limits.connections_per_minute)
    return Budgets(loads, sockets, limits.loads_per_minute)


def shared_budgets(limits: Limits, shared: SharedRates, metrics: Metrics) -> Budgets:
    """Return the accounts of one gateway of several."""
    loads = SharedBudget("loads", limits.loads_per_minute, shared, metrics)
    sockets = SharedBudget("sockets", limits.connections_per_minute, shared, metrics)
    return Budgets(loads, sockets, limits.loads_per_minute)
