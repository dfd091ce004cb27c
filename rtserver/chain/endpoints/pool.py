"""Which endpoint is asked, which one after it, and when a second one is asked at the same time.

An attempt is anything that is done with one endpoint and ends in a good answer or an error. Endpoints are tried
in the order of `_rank`, each once; when none has answered, the round is made again a bounded number of times.
Who rests after a 429 is not asked at all. Who is out by its breaker, lags, or sits on another fork is asked last:
with no better one left, a try is worth more than certainty. A block is gone only when nobody has it.

Errors that are no endpoint's fault (a refused request) are told after all were asked, as nodes differ.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import stamina

from ...domain.chain import Header
from ...domain.errors import BlockGone, ChainUnavailable, HistoryPruned, PermanentError, RetryableError
from ...domain.ids import BlockHash
from ...obs.metrics import Metrics
from ..refusals import Refusal
from ..rpc import BusyError, Endpoint, Request, RpcError, TransportError
from .health import View
from .member import Member

__all__ = ["Attempt", "EndpointPool", "members_of"]

T = TypeVar("T")
Attempt = Callable[[Member], Awaitable[T]]

# Outstanding messages an endpoint: a block takes two, a cold start some dozens; free plans allow about this.
_MAX_IN_FLIGHT: Final = 32
# More rounds when no endpoint answered. A connection that the other side had closed meanwhile is mended by the
# first; what takes longer is for the caller, who knows whether the question is still worth asking.
_RETRIES: Final = 2
_RETRY_FIRST_S: Final = 0.05
_RETRY_MAX_S: Final = 0.5
# After this long no round is begun again.
_PATIENCE_S: Final = 2.0
# Extra load by hedging: one call in twenty, and no burst of them when all is slow.
_HEDGE_SHARE: Final = 0.05
_HEDGE_BURST: Final = 3.0
# A second endpoint is not asked before this: on a fast network the tail is noise.
_HEDGE_MIN_S: Final = 0.02
# After a refused key.
_DENIED_REST_S: Final = 60.0
# Headers whose height is remembered by hash.
_HEADERS: Final = 512
# Below our newest block by more than this, a state that is missing was pruned; nearer, it may not be there yet.
_RECENT_BLOCKS: Final = 64


@dataclass(slots=True)
class _Round(Generic[T]):
    """One pass over the endpoints: whom it asked, and what went wrong."""

    attempt: Attempt[T]
    purpose: str
    block: BlockHash | None
    is_ours: bool = True
    tried: list[Member] = field(default_factory=list)
    lacking: list[Member] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)


def members_of(
    chain: str,
    endpoints: Sequence[Endpoint],
    metrics: Metrics,
    *,
    max_in_flight: int = _MAX_IN_FLIGHT,
    per_s: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> list[Member]:
    """Return the endpoints of one chain with their limits, in the same order.

    Args:
        chain: The chain's name in metrics.
        endpoints: What answers.
        metrics: Where calls are counted.
        max_in_flight: Outstanding messages an endpoint.
        per_s: Calls a second an endpoint; None is no limit.
        clock: Monotonic seconds.
    """
    members: list[Member] = []
    for endpoint in endpoints:
        again = sum(member.endpoint.name == endpoint.name for member in members)
        # Two keys of one provider look alike without the keys.
        name = f"{endpoint.name}#{again + 1}" if again else endpoint.name
        members.append(
            Member(
                endpoint,
                name=name,
                chain=chain,
                metrics=metrics,
                max_in_flight=max_in_flight,
                per_s=per_s,
                clock=clock,
            )
        )
    return members


class EndpointPool:
    """The endpoints of one chain.

    Args:
        chain: The chain's name in logs and metrics.
        members: In order of preference; HTTP goes before WebSocket all the same.
        metrics: Where calls are counted.
        patience_s: After this long an unanswered question is not asked again.
        on_calls: Told of every message for somebody's question how many calls it holds.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        chain: str,
        members: Sequence[Member],
        metrics: Metrics,
        *,
        patience_s: float = _PATIENCE_S,
        on_calls: Callable[[int], None] = lambda count: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._chain = chain
        self._metrics = metrics
        self._patience_s = patience_s
        self._clock = clock
        self.members = list(members)
        self._seconds = metrics.rpc_latency.labels(chain)
        self._hedges = 1.0
        self._may_hedge = len({member.node for member in self.members}) > 1
        self._headers: dict[BlockHash, Header] = {}
        self._newest: Header | None = None
        self._on_calls = on_calls
        # Retries are counted by us; the library's own hooks would log each and count them in a global registry.
        stamina.instrumentation.set_on_retry_hooks(())

    def part(self, members: Sequence[Member]) -> "EndpointPool":
        """Return a pool of some of these endpoints, with questions of its own and the limits and health of them all.

        What height a block has is the same for all: it is remembered once.
        """
        part = EndpointPool(self._chain, members, self._metrics, patience_s=self._patience_s, clock=self._clock)
        part._headers = self._headers
        return part

    # --- what is known of the chain -------------------------------------------------------------------

    @property
    def newest(self) -> Header | None:
        """Return the newest header of ours that a read was pinned to."""
        return self._newest

    def follow(self, header: Header) -> None:
        """Take a header as our newest one."""
        self.know(header)
        self._newest = header

    def ours(self, below: int) -> Header | None:
        """Return a header of ours so far below the newest one, or as far as its ancestors are known."""
        newest = self._newest
        while newest is not None and below > 0 and newest.parent_hash in self._headers:
            newest, below = self._headers[newest.parent_hash], below - 1
        return newest

    def know(self, header: Header) -> None:
        """Remember a block's height."""
        if header.hash not in self._headers:
            self._headers[header.hash] = header
            while len(self._headers) > _HEADERS:
                del self._headers[next(iter(self._headers))]

    def known(self, block: BlockHash) -> Header | None:
        """Return a header that was seen."""
        return self._headers.get(block)

    def saw(self, member: Member, header: Header) -> None:
        """Note the head that an endpoint told."""
        self.know(header)
        member.health.saw(header)

    # --- asking ---------------------------------------------------------------------------------------

    async def send(self, member: Member, requests: Sequence[Request], purpose: str) -> list[Any]:
        """Send to one endpoint, counted; raises TransportError."""
        for method, _ in requests:
            self._metrics.rpc_calls.labels(self._chain, purpose, method).inc()
        self._on_calls(len(requests))
        started = time.perf_counter()
        answers = await member.send(requests, purpose)
        self._seconds.observe(time.perf_counter() - started)
        return answers

    async def results(self, member: Member, requests: Sequence[Request], purpose: str) -> list[Any]:
        """Send to one endpoint, counted; raises TransportError, and the first refusal."""
        answers = await self.send(member, requests, purpose)
        refusal = next((answer for answer in answers if isinstance(answer, RpcError)), None)
        if refusal is not None:
            raise refusal
        return answers

    async def ask(
        self,
        attempt: Attempt[T],
        purpose: str,
        *,
        block: BlockHash | None = None,
        is_ours: bool = True,
        may_hedge: bool = True,
    ) -> T:
        """Return the first good answer.

        Args:
            attempt: Asks one endpoint; may be called for several, two at a time.
            purpose: For metrics, and for what is slow for this kind of question.
            block: The block that the question is pinned to.
            is_ours: Whether it is of our chain: then who has it is on our chain, too, and who has not lags or is not.
            may_hedge: Whether a second endpoint may be asked while the first is slow.

        Raises:
            BlockGone: No endpoint has the block.
            HistoryPruned: The endpoints that know the block don't keep its state any more.
            PermanentError: The request itself is refused.
            ChainUnavailable: No endpoint answered, or all rest.
        """
        self._hedges = min(self._hedges + _HEDGE_SHARE, _HEDGE_BURST)
        give_up_at = self._clock() + self._patience_s
        try:
            return await self._round(_Round(attempt, purpose, block, is_ours), may_hedge)
        except ChainUnavailable as error:
            failure = error
        rounds = stamina.retry_context(
            on=lambda error: self._again_in(error, give_up_at),
            attempts=_RETRIES + 1,
            timeout=None,
            wait_initial=_RETRY_FIRST_S,
            wait_max=_RETRY_MAX_S,
            wait_jitter=_RETRY_FIRST_S,
        )
        async for again in rounds:
            with again:
                if again.num == 1:
                    # Was made above: the library costs 26 µs, which a question that is answered need not pay.
                    raise failure
                self._metrics.retries.labels(self._chain).inc()
                return await self._round(_Round(attempt, purpose, block, is_ours), may_hedge)
        raise failure

    def _again_in(self, error: Exception, give_up_at: float) -> bool | float:
        """Return whether to make another round, and after how long if that is known."""
        if not isinstance(error, ChainUnavailable) or self._clock() >= give_up_at:
            return False
        rests_s = min(member.health.rests_s for member in self.members)
        if rests_s <= 0:
            return True
        return False if self._clock() + rests_s > give_up_at else rests_s

    async def _round(self, made: _Round[T], may_hedge: bool) -> T:
        block = made.block
        while (member := self._next(block, made.tried)) is not None:
            made.tried.append(member)
            try:
                if may_hedge and self._may_hedge:
                    answer = await self._hedged(member, made)
                else:
                    answer = await self._try(member, made)
            except (RetryableError, PermanentError):
                continue
            if made.lacking and made.is_ours:
                header = None if block is None else self._headers.get(block)
                for other in made.lacking:
                    other.health.lacked(None if header is None else header.number)
            return answer
        raise self._verdict(made.failures, block)

    async def _try(self, member: Member, made: _Round[T]) -> T:
        """Return an endpoint's answer; note what an error says of it, and pass it on."""
        try:
            answer = await made.attempt(member)
        except (RetryableError, PermanentError) as error:
            made.failures.append(error)
            self._blame(member, error, made)
            raise
        if made.block is not None and made.is_ours:
            member.health.had()
            header = self._headers.get(made.block)
            if header is not None:
                member.health.reached(header)
                if self._newest is None or header.number >= self._newest.number - _RECENT_BLOCKS:
                    self._newest = header
        return answer

    def _next(self, block: BlockHash | None, tried: Sequence[Member], *, well: bool = False) -> Member | None:
        """Return the best endpoint that was not tried, None if there is none; `well`: only one without a blemish."""
        if len(self.members) == 1:
            (only,) = self.members
            return None if tried or only.health.rests_s > 0 else only
        candidates = [member for member in self.members if member not in tried and member.health.rests_s <= 0]
        if well:
            nodes = {member.node for member in tried}
            candidates = [
                member
                for member in candidates
                if member.node not in nodes and not any(self._rank(member, block)[:4]) and not member.is_full
            ]
        if len(candidates) < 2:
            return candidates[0] if candidates else None
        return min(candidates, key=lambda member: self._rank(member, block))

    def _rank(self, member: Member, block: BlockHash | None) -> tuple[bool, bool, bool, bool, bool, bool, int]:
        header = None if block is None else self._headers.get(block)
        health = member.health
        return (
            not member.breaker.is_letting,
            health.view is View.OTHER,
            health.lacks(None if header is None else header.number),
            health.is_failing,
            member.is_socket,
            member.is_full,
            # Less than a factor of two is no difference; then the order in the settings holds.
            health.pace(),
        )

    # --- a second one at the same time ----------------------------------------------------------------

    async def _hedged(self, first: Member, made: _Round[T]) -> T:
        slow_s = first.health.p95_s(made.purpose)
        if slow_s is None or self._hedges < 1:
            return await self._try(first, made)
        task = asyncio.ensure_future(self._try(first, made))
        hedge: asyncio.Future[T] | None = None
        try:
            await asyncio.wait({task}, timeout=max(slow_s, _HEDGE_MIN_S))
            second = None if task.done() else self._next(made.block, made.tried, well=True)
            if second is None:
                return await task
            self._hedges -= 1
            made.tried.append(second)
            hedge = asyncio.ensure_future(self._try(second, made))
            winner = await _first_good(task, hedge)
            outcome = "won" if winner is hedge else "lost"
            if winner is hedge:
                first.health.given_up()
            self._metrics.hedges.labels(self._chain, second.name, outcome).inc()
            return winner.result()
        finally:
            await _end(task, hedge)

    # --- what an error means --------------------------------------------------------------------------

    def _blame(self, member: Member, error: Exception, made: _Round[Any]) -> None:
        if isinstance(error, TransportError):
            # By endpoint it was counted where it was sent.
            self._metrics.rpc_errors.labels(self._chain, "transport").inc()
        elif isinstance(error, RpcError):
            member.refused(error.kind.value)
            self._metrics.rpc_errors.labels(self._chain, "refused").inc()
            if error.kind is Refusal.UNKNOWN_BLOCK:
                made.lacking.append(member)
            elif error.kind is Refusal.DENIED:
                # A wrong key stays wrong, and asking on may be held against us.
                member.health.rest(_DENIED_REST_S)
        elif isinstance(error, BlockGone):
            made.lacking.append(member)
        elif isinstance(error, RetryableError):
            # An answer that was none.
            member.failed("malformed")

    def _verdict(self, failures: Sequence[Exception], block: BlockHash | None) -> Exception:
        refusals = [error for error in failures if isinstance(error, RpcError)]
        gone = [error for error in refusals if error.kind is Refusal.UNKNOWN_BLOCK]
        pruned = [error for error in refusals if error.kind is Refusal.PRUNED]
        told = [error for error in failures if not isinstance(error, (RpcError, TransportError))]
        if gone or any(isinstance(error, BlockGone) for error in told):
            return _from(BlockGone(str((gone or told)[-1])), (gone or told)[-1])
        if pruned:
            header = None if block is None else self._headers.get(block)
            is_recent = (
                header is not None and self._newest is not None and header.number > self._newest.number - _RECENT_BLOCKS
            )
            if is_recent:
                return _from(BlockGone(f"its state is not to be had: {pruned[-1]}"), pruned[-1])
            return _from(HistoryPruned(str(pruned[-1])), pruned[-1])
        if refusals:
            return refusals[-1]
        permanent = [error for error in told if isinstance(error, PermanentError)]
        if permanent:
            return permanent[-1]
        if told:
            return told[-1]
        rests_s = min(member.health.rests_s for member in self.members)
        if rests_s > 0:
            busy = next((error for error in failures if isinstance(error, BusyError)), None)
            text = f"all endpoints of chain {self._chain} rest for {rests_s:.1f} s"
            return _from(ChainUnavailable(f"{text}: {busy}" if busy else text), busy)
        cause = failures[0] if failures else None
        return _from(ChainUnavailable(f"no endpoint of chain {self._chain} answered: {cause}"), cause)

    def describe(self) -> list[dict[str, Any]]:
        """Return the state of every endpoint; nothing in it is secret."""
        return [member.describe() for member in self.members]

    async def close(self) -> None:
        """Close all endpoints."""
        for member in self.members:
            await member.endpoint.close()


def _from(error: Exception, cause: BaseException | None) -> Exception:
    error.__cause__ = cause
    return error


async def _first_good(first: "asyncio.Future[T]", second: "asyncio.Future[T]") -> "asyncio.Future[T]":
    """Return whichever ends well first; the first one if none does."""
    await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
    for one, other in ((first, second), (second, first)):
        if one.done():
            if one.exception() is None:
                return one
            await asyncio.wait({other})
            return first if other.exception() is not None else other
    return first


async def _end(*tasks: "asyncio.Future[Any] | None") -> None:
    """Cancel what still runs, and take its end."""
    begun = [task for task in tasks if task is not None]
    left = [task for task in begun if not task.done()]
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left)
    for task in begun:
        if not task.cancelled():
            # Its error was noted; nobody else asks for it.
            task.exception()
