"""One endpoint in the pool: every message to it goes through here, and leaves what is known of it behind."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from ...obs.metrics import Metrics
from ..rpc import BusyError, Endpoint, Request, TransportError, node_of
from .breaker import Breaker
from .budget import Budget
from .health import Health, View

__all__ = ["Member"]

# Rest after a "too fast" that names no time; doubled while it goes on.
_REST_S: Final = 1.0
_REST_MAX_S: Final = 60.0
# Longer waits for a slot or for the budget are told as what they are: too many calls.
_MAX_WAIT_S: Final = 5.0
_BREAKER_NUMBER: Final = {"closed": 0, "half-opened": 1, "opened": 2}
_VIEW_NUMBER: Final = {View.UNKNOWN: 0, View.SAME: 1, View.BEHIND: 2, View.OTHER: 3}


class Member:
    """An endpoint, its limits and its health.

    Args:
        endpoint: What answers.
        name: Unique in the pool; no secret in it.
        chain: The chain's name in metrics.
        metrics: Where calls are counted.
        max_in_flight: Messages that may be outstanding at once.
        per_s: Calls a second that it may be asked for; None is no limit.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        name: str,
        chain: str,
        metrics: Metrics,
        max_in_flight: int,
        per_s: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.endpoint = endpoint
        self.name = name
        self.node = node_of(endpoint.name)
        self.is_socket = endpoint.name.startswith("ws")
        self.health = Health(clock)
        self.breaker = Breaker(name, clock)
        self.budget = Budget(per_s, max(per_s or 0.0, 1.0), clock)
        # Reads by block hash are refused there: by height then, with the hash looked at before and after.
        self.pins_by_hash = True
        self._clock = clock
        self._slots = asyncio.Semaphore(max_in_flight)
        self._max_in_flight = max_in_flight
        self._rest_s = _REST_S
        self._metrics = metrics
        self._chain = chain
        labels = (chain, name)
        self._requests = metrics.endpoint_requests.labels(*labels)
        self._seconds = metrics.endpoint_seconds.labels(*labels)
        # Asked for when they are looked at: setting them at every call took a tenth of a short one.
        metrics.endpoint_breaker.labels(*labels).set_function(lambda: _BREAKER_NUMBER[self.breaker.state])
        metrics.endpoint_in_flight.labels(*labels).set_function(lambda: self.health.in_flight)
        metrics.endpoint_head.labels(*labels).set_function(
            lambda: math.nan if self.health.head is None else self.health.head.number
        )
        metrics.endpoint_view.labels(*labels).set_function(lambda: _VIEW_NUMBER[self.health.view])
        metrics.endpoint_error_rate.labels(*labels).set_function(lambda: self.health.error_rate)
        metrics.endpoint_success_age.labels(*labels).set_function(lambda: _or_nan(self.health.last_success_s))
        metrics.endpoint_rests.labels(*labels).set_function(lambda: self.health.rests_s)
        metrics.endpoint_budget.labels(*labels).set_function(lambda: self.budget.left)

    @property
    def is_full(self) -> bool:
        """Return whether a message would have to wait."""
        return self._slots.locked() or self.budget.wait_s() > 0

    async def send(self, requests: Sequence[Request], purpose: str) -> list[Any]:
        """Return each request's result, or its RpcError in its place. Raises TransportError."""
        if self.budget.per_s is not None:
            await self._pace(len(requests))
        async with self._slots:
            health = self.health
            health.in_flight += 1
            self.breaker.begin()
            self._requests.inc(len(requests))
            started = self._clock()
            try:
                answers = await self.endpoint.send(requests)
            except BusyError as error:
                # It lives; it only wants to be asked less.
                self.breaker.succeeded()
                self._busy(error)
                raise
            except TransportError as error:
                self.breaker.failed(error)
                self.failed(error.kind)
                raise
            except asyncio.CancelledError:
                self.breaker.abandoned()
                raise
            else:
                seconds = self._clock() - started
                self.breaker.succeeded()
                health.succeeded(purpose, seconds)
                self._seconds.observe(seconds)
                self._rest_s = _REST_S
            finally:
                health.in_flight -= 1
        return answers

    async def _pace(self, calls: int) -> None:
        wait_s = self.budget.wait_s(calls)
        if wait_s > _MAX_WAIT_S:
            self._metrics.endpoint_errors.labels(self._chain, self.name, "budget").inc()
            raise BusyError(f"{self.name}: the budget is used up for {wait_s:.1f} s")
        self.budget.take(calls)
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    def _busy(self, error: BusyError) -> None:
        self.failed("busy")
        if error.rest_s is None:
            self.health.rest(self._rest_s)
            self._rest_s = min(2 * self._rest_s, _REST_MAX_S)
        else:
            self.health.rest(error.rest_s)

    def failed(self, kind: str) -> None:
        """Count a failure of this endpoint."""
        self.health.failed(kind)
        self._metrics.endpoint_errors.labels(self._chain, self.name, kind).inc()

    def refused(self, kind: str) -> None:
        """Count an error object that it answered; it is no failure of the connection."""
        self._metrics.endpoint_errors.labels(self._chain, self.name, kind).inc()

    def describe(self) -> dict[str, Any]:
        """Return its state for an operator; nothing in it is secret."""
        health, budget = self.health, self.budget
        median_s, p95_s = health.latency_s() or (None, None)
        return {
            "name": self.name,
            "breaker": self.breaker.state,
            "view": health.view.value,
            "head": None if health.head is None else health.head.number,
            "p50Ms": _ms(median_s),
            "p95Ms": _ms(p95_s),
            "errorRate": round(health.error_rate, 3),
            "lastError": health.last_error,
            "successAgeMs": _ms(health.last_success_s),
            "restsMs": _ms(health.rests_s),
            "inFlight": health.in_flight,
            "maxInFlight": self._max_in_flight,
            "callsPerS": budget.per_s,
            "callsLeft": None if budget.per_s is None else math.floor(budget.left),
        }


def _or_nan(seconds: float | None) -> float:
    return math.nan if seconds is None else seconds


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
