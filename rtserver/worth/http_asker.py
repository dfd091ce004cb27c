"""Asks one HTTP price source: one request at a time, within its budget, whoever asks.

With one request at a time a breaker is a pause: it doubles with each failure, and the first request after it is the
trial. Retry-After is kept. Decides nothing about what is asked.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

import aiohttp
import structlog

from ..domain.errors import PermanentError, RetryableError
from ..obs.metrics import Metrics
from .http_source import Ask, MalformedPrices

__all__ = ["Denied", "FetchLimits", "HttpAsker", "Refused"]

log = structlog.get_logger(__name__)

T = TypeVar("T")

# The first pause after a failure, and the longest: a source that is away for a day is tried every five minutes.
_PAUSE_S: Final = 2.0
_MAX_PAUSE_S: Final = 300.0
# A key that is refused will be refused again; someone has to look at it.
_DENIED_PAUSE_S: Final = 600.0
# A Retry-After of years would be a mistake.
_MAX_RETRY_AFTER_S: Final = 3600.0
# From here on the source counts as away, and is said to be.
_AWAY_AFTER: Final = 3
# 100 tokens are 20 KB; a body past this is no answer.
_MAX_BODY_BYTES: Final = 1 << 20
# How requests end: answered; not taken as they are; the key not taken; answered with rubbish; not at all.
_OUTCOMES: Final = ("ok", "refused", "denied", "malformed", "unavailable")


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """What may be asked of a source.

    `refresh_s` is the least time between two questions about a token, `unknown_s` the same for a token that the
    source did not know.
    """

    requests_per_minute: float
    tokens_per_request: int
    refresh_s: float
    unknown_s: float = 3600.0
    timeout_s: float = 10.0


class _Unavailable(RetryableError):
    """No answer, or one that says that it is too much; `retry_after_s` where the source names a time."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Refused(PermanentError):
    """The source does not take this request."""


class Denied(PermanentError):
    """The source does not take this key."""


class HttpAsker:
    """One account at one source.

    Args:
        source: The source's name.
        base_url: Where it is; may hold a key.
        limits: The budget.
        clock: Monotonic seconds.
        jitter: A number from 0 to 1, so that many servers don't come back at once.
        metrics: Where requests are counted.
    """

    def __init__(
        self,
        source: str,
        *,
        base_url: str,
        limits: FetchLimits,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        metrics: Metrics | None = None,
    ) -> None:
        self._source = source
        self._base_url = base_url.rstrip("/")
        self._spacing_s = 60 / limits.requests_per_minute
        self._timeout_s = limits.timeout_s
        self._clock = clock
        self._jitter = jitter
        self._session: aiohttp.ClientSession | None = None
        self._rest_until = 0.0
        self.requests = 0
        self.errors = 0
        self.failures = 0  # in a row
        self._succeeded_at: float | None = None
        # Known from the start: what never happened is 0, not missing.
        self._metrics = metrics or Metrics()
        for outcome in _OUTCOMES:
            self._metrics.price_requests.labels(source, outcome)
        self._metrics.price_source_away.labels(source).set_function(lambda: self.is_away)
        age = self._metrics.price_source_age.labels(source)
        age.set_function(lambda: math.inf if self._succeeded_at is None else self._clock() - self._succeeded_at)

    @property
    def is_away(self) -> bool:
        """Return whether the source has failed so often that it is paused for longer and longer."""
        return self.failures >= _AWAY_AFTER

    @property
    def rest_s(self) -> float:
        """Return for how long nothing may be asked: the budget's spacing, or a pause."""
        return max(self._rest_until - self._clock(), 0.0)

    def describe(self) -> dict[str, Any]:
        """Return how the source is doing, for an operator; nothing in it is secret."""
        now = self._clock()
        return {
            "source": self._source,
            "lastSuccessMs": None if self._succeeded_at is None else int((now - self._succeeded_at) * 1000),
            "breaker": "open" if self.is_away else "closed",
            "restingMs": max(int((self._rest_until - now) * 1000), 0),
            "requests": self.requests,
            "errors": self.errors,
        }

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, ask: Ask, read: Callable[[bytes], T]) -> T:
        """Return what a request answers, as `read` takes it; only to be called while there is no rest.

        Raises:
            Refused: The source does not take this request: it may take a smaller one.
            Denied: It does not take the key.
            RetryableError: No answer, or none that can be read.
        """
        # The budget counts requests, however they end.
        self._rest_until = self._clock() + self._spacing_s
        self.requests += 1
        try:
            found = read(await self._get(ask))
        except Refused:
            self._count("refused")
            raise
        except Denied as error:
            self._count("denied")
            self._pause(error, _DENIED_PAUSE_S)
            raise
        except RetryableError as error:
            self._count("malformed" if isinstance(error, MalformedPrices) else "unavailable")
            self._pause(error, getattr(error, "retry_after_s", None))
            raise
        self._count("ok")
        self._succeeded_at = self._clock()
        if self.is_away:
            log.info("price source answers again", source=self._source)
        self.failures = 0
        return found

    def _count(self, outcome: str) -> None:
        self.errors += outcome != "ok"
        self._metrics.price_requests.labels(self._source, outcome).inc()

    def _pause(self, error: Exception, wait_s: float | None) -> None:
        self.failures += 1
        pause_s = min(_PAUSE_S * 2.0 ** min(self.failures - 1, 20), _MAX_PAUSE_S) * (1 + self._jitter()) / 2
        if wait_s is not None:
            pause_s = max(pause_s, min(wait_s, _MAX_RETRY_AFTER_S))
        self._rest_until = max(self._rest_until, self._clock() + pause_s)
        if self.failures == _AWAY_AFTER or isinstance(error, Denied):
            log.warning("price source does not answer", source=self._source, error=str(error), pause_s=round(pause_s))

    async def _get(self, ask: Ask) -> bytes:
        if self._session is None:
            # Not compressed: a small body may else become any size. No cookies: there is no session.
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            )
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                # A redirect would carry the key to someone else.
                self._session.get(
                    self._base_url + ask.path, params=ask.query, headers=ask.headers, allow_redirects=False
                ) as response,
            ):
                _check(response.status, response.headers.get("Retry-After"))
                body = bytearray()
                async for chunk in response.content.iter_chunked(1 << 16):
                    body += chunk
                    if len(body) > _MAX_BODY_BYTES:
                        raise _Unavailable(f"the answer is larger than {_MAX_BODY_BYTES} bytes")
                return bytes(body)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            # Its words may hold the URL, and that a key.
            raise _Unavailable(type(error).__name__) from None


def _check(status: int, retry_after: str | None) -> None:
    if status == 200:
        return
    if status in (401, 403):
        raise Denied(f"HTTP {status}: the key or the address is refused")
    if status in (400, 404, 413, 414, 422):
        raise Refused(f"HTTP {status}")
    raise _Unavailable(f"HTTP {status}", _seconds(retry_after))


def _seconds(retry_after: str | None) -> float | None:
    """Return a Retry-After header in seconds: a number, or a date."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max((at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds(), 0.0)
