"""Keeps what one HTTP source says of watched tokens fresh, in the background: never in a block's way.

Decides which tokens to ask for, and when: one request at a time, within the source's budget; what is fresh is not
asked again, what the source doesn't know is not asked again for an hour. With one request at a time a breaker is
a pause: it doubles with each failure, and the first request after it is the trial. Retry-After is kept.
Never decides whether a price is believed.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import aiohttp
import structlog

from ..domain.errors import PermanentError, RetryableError
from ..domain.ids import Address, ChainId
from ..obs.metrics import Metrics
from .http_source import Ask, HttpSource, MalformedPrices
from .quotes import Quote

__all__ = ["FetchLimits", "PriceFetcher"]

log = structlog.get_logger(__name__)

# Between two looks at what is wanted while nothing is due: a new token waits no longer.
_IDLE_S: Final = 1.0
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
# A batch that was refused is halved; after so many good ones it may double again.
_GROW_AFTER: Final = 20


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


class _Refused(PermanentError):
    """The source does not take this request."""


class _Denied(PermanentError):
    """The source does not take this key."""


class PriceFetcher:
    """Asks one source.

    Args:
        source: Its interface.
        base_url: Where it is; may hold a key.
        wanted: Tokens by chain, those without any price first; asked anew at each step.
        offer: Takes the answers.
        limits: The budget.
        clock: Monotonic seconds.
        jitter: A number from 0 to 1, so that many servers don't come back at once.
        metrics: Where requests are counted.
    """

    def __init__(
        self,
        source: HttpSource,
        *,
        base_url: str,
        wanted: Callable[[], Iterable[tuple[ChainId, Sequence[Address]]]],
        offer: Callable[[ChainId, Mapping[Address, Quote]], None],
        limits: FetchLimits,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        metrics: Metrics | None = None,
    ) -> None:
        self._source = source
        self._base_url = base_url.rstrip("/")
        self._wanted = wanted
        self._offer = offer
        self._limits = limits
        self._clock = clock
        self._jitter = jitter
        self._session: aiohttp.ClientSession | None = None
        self._rest_until = 0.0
        self._ask_again: dict[tuple[ChainId, Address], float] = {}
        self._last_chain: ChainId | None = None
        self._batch = limits.tokens_per_request
        self._good = 0
        self.requests = 0
        self.errors = 0
        self.failures = 0  # in a row
        self._succeeded_at: float | None = None
        # Known from the start: what never happened is 0, not missing.
        self._metrics = metrics or Metrics()
        for outcome in _OUTCOMES:
            self._metrics.price_requests.labels(source.name, outcome)
        self._metrics.price_source_away.labels(source.name).set_function(lambda: self.is_away)
        age = self._metrics.price_source_age.labels(source.name)
        age.set_function(lambda: math.inf if self._succeeded_at is None else self._clock() - self._succeeded_at)

    @property
    def is_away(self) -> bool:
        """Return whether the source has failed so often that it is paused for longer and longer."""
        return self.failures >= _AWAY_AFTER

    def describe(self) -> dict[str, Any]:
        """Return how the source is doing, for an operator; nothing in it is secret."""
        now = self._clock()
        return {
            "source": self._source.name,
            "lastSuccessMs": None if self._succeeded_at is None else int((now - self._succeeded_at) * 1000),
            "breaker": "open" if self.is_away else "closed",
            "restingMs": max(int((self._rest_until - now) * 1000), 0),
            "requests": self.requests,
            "errors": self.errors,
        }

    async def run(self) -> None:
        """Ask until cancelled."""
        try:
            while True:
                await asyncio.sleep(await self.step())
        finally:
            await self.close()

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def step(self) -> float:
        """Send the request that is due, if one is; return the seconds until the next may be."""
        now = self._clock()
        if now < self._rest_until:
            return self._rest_until - now
        due = self._due(now)
        if due is None:
            return _IDLE_S
        chain_id, tokens = due
        # The budget counts requests, however they end.
        self._rest_until = now + 60 / self._limits.requests_per_minute
        self.requests += 1
        try:
            quotes = self._source.read(chain_id, tokens, await self._get(self._source.ask(chain_id, tokens)))
        except _Refused as error:
            self._count("refused")
            self._shrink(chain_id, tokens, error)
        except _Denied as error:
            self._count("denied")
            self._pause(error, _DENIED_PAUSE_S)
        except RetryableError as error:
            self._count("malformed" if isinstance(error, MalformedPrices) else "unavailable")
            self._pause(error, getattr(error, "retry_after_s", None))
        else:
            self._count("ok")
            self._succeed(chain_id, tokens, quotes)
        return max(self._rest_until - self._clock(), 0.0)

    def _count(self, outcome: str) -> None:
        self.errors += outcome != "ok"
        self._metrics.price_requests.labels(self._source.name, outcome).inc()

    def _due(self, now: float) -> tuple[ChainId, list[Address]] | None:
        """Return the next request's chain and tokens; chains take turns."""
        wanted = {chain_id: tokens for chain_id, tokens in self._wanted() if self._source.serves(chain_id)}
        if len(self._ask_again) > 2 * sum(map(len, wanted.values())):
            kept = {(chain_id, token) for chain_id, tokens in wanted.items() for token in tokens}
            self._ask_again = {key: at for key, at in self._ask_again.items() if key in kept}
        chain_ids = sorted(wanted)
        if self._last_chain in chain_ids:
            turn = chain_ids.index(self._last_chain) + 1
            chain_ids = chain_ids[turn:] + chain_ids[:turn]
        for chain_id in chain_ids:
            tokens = [token for token in wanted[chain_id] if self._ask_again.get((chain_id, token), now) <= now]
            if tokens:
                self._last_chain = chain_id
                return chain_id, tokens[: self._batch]
        return None

    def _succeed(self, chain_id: ChainId, tokens: Sequence[Address], quotes: Mapping[Address, Quote]) -> None:
        now = self._succeeded_at = self._clock()
        if self.is_away:
            log.info("price source answers again", source=self._source.name)
        self.failures = 0
        self._good += 1
        if self._good % _GROW_AFTER == 0:
            self._batch = min(self._batch * 2, self._limits.tokens_per_request)
        for token in tokens:
            wait_s = self._limits.refresh_s if token in quotes else self._limits.unknown_s
            self._ask_again[chain_id, token] = now + wait_s
        self._offer(chain_id, quotes)

    def _shrink(self, chain_id: ChainId, tokens: Sequence[Address], error: _Refused) -> None:
        """Ask for less at a time: one address in a batch may be wrong, or the account allows for fewer."""
        self._good = 0
        if len(tokens) > 1:
            self._batch = max(len(tokens) // 2, 1)
            log.info("price source takes fewer tokens", source=self._source.name, tokens=self._batch, error=str(error))
        else:
            self._ask_again[chain_id, tokens[0]] = self._clock() + self._limits.unknown_s

    def _pause(self, error: Exception, wait_s: float | None) -> None:
        self._good = 0
        self.failures += 1
        pause_s = min(_PAUSE_S * 2.0 ** min(self.failures - 1, 20), _MAX_PAUSE_S) * (1 + self._jitter()) / 2
        if wait_s is not None:
            pause_s = max(pause_s, min(wait_s, _MAX_RETRY_AFTER_S))
        self._rest_until = max(self._rest_until, self._clock() + pause_s)
        if self.failures == _AWAY_AFTER or isinstance(error, _Denied):
            log.warning(
                "price source does not answer", source=self._source.name, error=str(error), pause_s=round(pause_s)
            )

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
                asyncio.timeout(self._limits.timeout_s),
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
        raise _Denied(f"HTTP {status}: the key or the address is refused")
    if status in (400, 404, 413, 414, 422):
        raise _Refused(f"HTTP {status}")
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
