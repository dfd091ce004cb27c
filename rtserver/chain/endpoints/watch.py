"""Looks at every endpoint from time to time: how fast, how high, on our fork or not. It is how an endpoint that
was set aside, or was down at the start, comes back.

One round trip of two calls an endpoint (its head, and its block at a height of ours) each `every_s`; none where
there is only one endpoint to choose from. Purpose "probe" in the metrics, and no part of a block's calls.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog

from ...domain.chain import Header
from ...domain.errors import RetryableError
from ..decode import header_of
from ..rpc import Request, RpcError
from .member import Member
from .pool import EndpointPool

__all__ = ["watch", "watch_once"]

log = structlog.get_logger(__name__)

# Two endpoints on a plan with a million calls a day: 7 % of it.
EVERY_S: Final = 5.0
# Blocks below ours at which forks are told apart: at the very top honest endpoints differ for a moment.
_BELOW: Final = 2


async def watch(pool: EndpointPool, arrived: Callable[[Member], Awaitable[None]], *, every_s: float = EVERY_S) -> None:
    """Look at all endpoints for ever. `arrived` is awaited for each that answers, to find out what it can."""
    while True:
        await asyncio.sleep(every_s)
        if len(pool.members) > 1:
            await asyncio.gather(*(_look(pool, member, arrived, every_s) for member in pool.members))


async def watch_once(pool: EndpointPool, arrived: Callable[[Member], Awaitable[None]]) -> None:
    """Look at all endpoints now."""
    await asyncio.gather(*(_look(pool, member, arrived, EVERY_S) for member in pool.members))


async def _look(
    pool: EndpointPool, member: Member, arrived: Callable[[Member], Awaitable[None]], every_s: float
) -> None:
    if member.health.rests_s > 0 or not member.breaker.is_letting:
        return
    before = member.health.view
    try:
        await _ask(pool, member, every_s)
        await arrived(member)
    except RetryableError as error:
        log.debug("endpoint did not answer", endpoint=member.name, error=str(error))
    if member.health.view is not before:
        log.info("endpoint's view", endpoint=member.name, view=member.health.view.value)


async def _ask(pool: EndpointPool, member: Member, every_s: float) -> None:
    ours = pool.ours(_BELOW)
    requests: list[Request] = [("eth_getBlockByNumber", ["latest", False])]
    if ours is not None:
        requests.append(("eth_getBlockByNumber", [hex(ours.number), False]))
    answers = await member.send(requests, "probe")
    head = _header(answers[0])
    if head is not None:
        pool.saw(member, head)
    if ours is None or isinstance(answers[1], RpcError):
        return
    theirs = _header(answers[1])
    if theirs is None:
        # Too low to tell its fork.
        member.health.lacked(ours.number if head is None else head.number + 1, 2 * every_s)
    elif theirs.hash == ours.hash:
        member.health.had()
    else:
        member.health.is_other()


def _header(answer: Any) -> Header | None:
    return None if answer is None or isinstance(answer, RpcError) else header_of(answer)
