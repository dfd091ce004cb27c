"""One endpoint in the pool: every message to it goes through here, and leaves what is known of it behind."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from ...obs.metrics import Metrics
from ..rpc import BusyError, Endpoint, Request, TransportError
from .breaker import Breaker
from .budget import Budget
from .health import Health

__all__ = ["Member"]

# Rest after a "too fast" that names no time; doubled while it goes on.
_REST_S: Final = 1.0
_REST_MAX_S: Final = 60.0
# Longer waits for a slot or for the budget are told as what they are: too many calls.
_MAX_WAIT_S: Final = 5.0
_BREAKER_NUMBER: Final = {"closed": 0, "half-opened": 1, "opened": 2}


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
        parts = urlsplit(endpoint.name)
        # What two endpoints of one node have in common.
        self.node = parts.netloc
        self.is_socket = parts.scheme.startswith("ws")
        self.health = Health(clock)
        self.breaker = Breaker(name, clock)
        self.budget = Budget(per_s, max(per_s or 0.0, 1.0), clock)
        # Reads by block hash are refused there: by height then, with the hash looked at before and after.
        self.pins_by_hash = True
        self._clock = clock
        self._slots = asyncio.Semaphore(max_in_flight)
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
            lambda: float("nan") if self.health.head is None else self.health.head.number
        )

    @property
    def is_full(self) -> bool:
        """Return whether a message would have to wait."""
        return self._slots.locked() or self.budget.wait_s() > 0

    async def send(self, requests: Sequence[Request], purpose: str) -> list[Any]:
        """Return each request's result, or its RpcError in its place. Raises TransportError."""
        if self.budget.is_limited:
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
        health = self.health
        purpose = max(("block", "head", "load", "probe"), key=lambda each: health.p95_s(each) or -1.0)
        return {
            "name": self.name,
            "breaker": self.breaker.state,
            "view": health.view.value,
            "head": None if health.head is None else health.head.number,
            "meanMs": _ms(health.mean_s("block") or health.mean_s("head") or health.mean_s("probe")),
            "p95Ms": _ms(health.p95_s(purpose)),
            "errorRate": round(health.error_rate, 3),
            "lastError": health.last_error,
            "lastSuccessMsAgo": None if health.last_success_at is None else _ms(self._clock() - health.last_success_at),
            "inFlight": health.in_flight,
            "restsMs": _ms(health.rests_s),
        }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
