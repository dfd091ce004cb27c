"""An engine's side of what gateways ask for: which keys are answered next, and how much of its time goes into it.

Asks come first. What was asked for lately is answered again with each step, before anyone asks; within a share
of the time, so on a chain that is faster than that some have to ask. Never computes an answer itself.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from itertools import islice
from typing import Any, Final

import structlog

from ..domain.chain import Header
from ..domain.errors import PermanentError, RetryableError
from ..obs.metrics import Metrics
from .asks import HOT_S, AskLink, is_renewed
from .ports import Fenced

__all__ = ["Answering"]

log = structlog.get_logger(__name__)

# Answers in one go, up to 0.1 ms each: blocks don't wait for more than ten.
_PART: Final = 100
# Keys of interest, and keys that wait for an answer. Of more than these the oldest are asked for again when they are
# wanted: a gateway repeats its ask after a second.
_MAX_KEYS: Final = 5000
# Of its time an engine may spend so much on what nobody has asked for yet, on an average over some seconds: right after
# a block all of it is wanted at once.
_SHARE: Final = 0.15
_MAX_CREDIT_S: Final = 1.0
# Keys that may wait for something before they are answered; more are answered without.
_MAX_HELD: Final = 1000
# A book in the middle of a block is waited for, unless it is in the middle of one thing or another all the time.
_SETTLE_S: Final = 0.1
# Nobody waits for what is not known: that, too, is an answer, of this block.
_NOTHING: Final = b"{}"
_RETRY_S: Final = 0.25
# As long as a gateway waits until it asks again.
_LOOK_S: Final = 1.0


class Answering:
    """Answers for one engine, while it is in charge.

    Args:
        name: The chain's name in logs and metrics.
        link: To the gateways.
        reckon: Returns the answer to a key as of the newest step, as JSON; None for a key that says nothing.
        first: Returns what is to be waited for, a second at most, before a key is answered for the first time.
        head: Returns the block of the newest step.
        token: Returns what proves that this engine is in charge; None while it isn't.
        is_at_rest: Returns whether all that is known of the chain is in the newest step.
        metrics: Where answers are counted.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        *,
        name: str,
        link: AskLink,
        reckon: Callable[[str], bytes | None],
        first: Callable[[str], Coroutine[Any, Any, None] | None] = lambda key: None,
        head: Callable[[], Header | None],
        token: Callable[[], str | None],
        is_at_rest: Callable[[], bool],
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._link = link
        self._name = name
        self._reckon = reckon
        self._first = first
        # Keys whose answer waits for something.
        self._held: set[str] = set()
        self._head = head
        self._token = token
        self._is_at_rest = is_at_rest
        self._metrics = metrics
        self._clock = clock
        # In the order of asking. Of interest: until when.
        self._asked: dict[str, None] = {}
        self._hot: dict[str, float] = {}
        # Of these the ones that were not answered since the newest step.
        self._due: dict[str, None] = {}
        # The block of the step since which they are due, and when that was; and whether there was another step of it.
        self._renewed_of, self._renewed_at = "", 0.0
        self._is_behind = False
        # Seconds that may be spent ahead, and when that was so.
        self._credit_s, self._credit_at = _MAX_CREDIT_S, clock()
        self._call = asyncio.Event()
        self._news = asyncio.Event()
        self._step = asyncio.Event()

    def published(self) -> None:
        """Note that there is a new step: what is of interest is to be answered anew.

        At once where it is of another block. Of the same one an answer may have grown, which is told within a second:
        what is loaded for one client is no reason to compute everyone's answers again.
        """
        head = self._head()
        if head is not None and head.hash != self._renewed_of:
            self._renew(head)
        else:
            self._is_behind = True
        self._step.set()

    def _renew(self, head: Header) -> None:
        now = self._clock()
        self._renewed_of, self._renewed_at, self._is_behind = head.hash, now, False
        self._hot = {key: until for key, until in self._hot.items() if until > now}
        # Whatever was asked for last is looked at by most.
        self._due = dict.fromkeys(reversed(self._hot))
        self._news.set()

    async def run(self) -> None:
        """Answer until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            group.create_task(self._look(group))
            group.create_task(self._answer())

    async def _listen(self) -> None:
        while True:
            try:
                async with aclosing(self._link.asked()) as asked:  # type: ignore[type-var]
                    async for _ in asked:
                        self._call.set()
            except (RetryableError, PermanentError):
                await asyncio.sleep(_RETRY_S)  # told by whoever writes steps

    async def _look(self, group: asyncio.TaskGroup) -> None:
        """Take what is asked: when called, and every second in case the call was not heard."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._call.wait()
            self._call.clear()
            token = self._token()
            if token is None:
                self._hot.clear()
                continue
            head = self._head()
            if self._is_behind and head is not None and self._clock() - self._renewed_at >= _LOOK_S:
                self._renew(head)
            try:
                self._take(await self._link.take(token), group)
            except (RetryableError, PermanentError):
                await asyncio.sleep(_RETRY_S)

    def _take(self, keys: Sequence[str], group: asyncio.TaskGroup) -> None:
        until = self._clock() + HOT_S
        for key in keys:
            first = self._first(key) if len(self._held) < _MAX_HELD else None
            if first is not None:
                self._held.add(key)
                group.create_task(self._hold(key, first))
            elif key not in self._held:
                self._asked[key] = None
            self._hot.pop(key, None)
            if is_renewed(key):
                self._hot[key] = until
        known: dict[str, None] | dict[str, float]
        for known in (self._asked, self._hot):
            for key in list(islice(known, max(len(known) - _MAX_KEYS, 0))):
                del known[key]
        if keys:
            self._news.set()

    async def _hold(self, key: str, first: Coroutine[Any, Any, None]) -> None:
        try:
            await first
        finally:
            self._held.discard(key)
        self._asked[key] = None
        self._news.set()

    async def _answer(self) -> None:
        while True:
            rest_s = self._rest_s() if self._due else None
            if not self._asked and (rest_s is None or rest_s > 0):
                with suppress(TimeoutError):
                    async with asyncio.timeout(rest_s):
                        await self._news.wait()
                self._news.clear()
                continue
            self._step.clear()
            if not self._is_at_rest():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_SETTLE_S):
                        await self._step.wait()
            await self._answer_part()

    def _body(self, key: str) -> bytes:
        try:
            return self._reckon(key) or _NOTHING
        except Exception:
            # What is wrong with one position is no reason to end the engine of all: it is told as unknown.
            log.exception("no answer could be computed", chain=self._name, key=key[:120])
            return _NOTHING

    def _rest_s(self) -> float:
        """Return for how long nothing may be answered ahead; 0 where it may."""
        now = self._clock()
        self._credit_s = min(self._credit_s + (now - self._credit_at) * _SHARE, _MAX_CREDIT_S)
        self._credit_at = now
        return max(-self._credit_s / _SHARE, 0.0)

    async def _answer_part(self) -> None:
        asked = list(islice(self._asked, _PART))
        keys = asked or list(islice(self._due, _PART))
        for key in keys:
            self._asked.pop(key, None)
            self._due.pop(key, None)
        token, head = self._token(), self._head()
        if token is None or head is None:
            self._asked.clear()
            self._due.clear()
            return
        # Of the processor, not of the clock: a busy machine is no reason to answer less.
        began = time.thread_time()
        # In one go, so all of one block.
        bodies = {key: self._body(key) for key in keys}
        took_s = time.thread_time() - began
        if not asked:
            self._credit_s -= took_s
        self._metrics.answers.labels(self._name, "asked" if asked else "ahead").inc(len(bodies))
        try:
            await self._link.answer(token, head, bodies)
        except Fenced:
            log.info("answers refused: another engine is in charge", chain=self._name)
        except (RetryableError, PermanentError) as error:
            # Whoever still waits asks again.
            log.info("answers not written", chain=self._name, error=str(error))
            await asyncio.sleep(_RETRY_S)
        await asyncio.sleep(0)
