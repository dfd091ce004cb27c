"""Many static calls on one endpoint: in what parts they travel, and what to do with parts that failed.

A part that is too much for the node is halved, a part that ran low on gas is gone on with, and a call that may
only have failed for its neighbours' gas is asked alone. What comes out is each call's data, None where it reverted.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from ..domain.errors import PermanentError
from ..protocols.base import Call
from .decode import MalformedAnswer
from .evm_batch import MAX_CALLS, MAX_RESULT, RAN_OUT, Way, decode_answer, encode_alone, encode_call
from .refusals import Refusal
from .rpc import Request, RpcError

__all__ = ["call_all"]

Send = Callable[[Sequence[Request]], Awaitable[list[Any]]]

# The call itself failed: that is an answer. Out of gas alone, with more than anything honest needs, is one too.
_FAILED = (Refusal.REVERTED, Refusal.OUT_OF_GAS)
# Said of the endpoint or the block and not of the call: halving would not help.
_NOT_ABOUT_SIZE = (Refusal.UNKNOWN_BLOCK, Refusal.PRUNED, Refusal.NO_PINNING, Refusal.DENIED)


async def call_all(send: Send, way: Way, calls: Sequence[Call], block: Any) -> list[bytes | None]:
    """Return each call's data at a block, None where it reverted.

    Args:
        send: Sends requests to the endpoint.
        way: How the endpoint batches calls.
        calls: What to call.
        block: An EIP-1898 object or a height.

    Raises:
        TransportError: The endpoint did not answer.
        RpcError: It refused a call for another reason than its size.
        MalformedAnswer: An answer is none.
        PermanentError: A single call is answered with nonsense.
    """
    size = 1 if way is Way.JSON_BATCH else MAX_CALLS[way]
    parts = [calls[start : start + size] for start in range(0, len(calls), size)]
    results: list[bytes | None] = []
    # Several parts travel as one batch, so that a large read stays one round trip.
    per_request = MAX_CALLS[Way.JSON_BATCH]
    for start in range(0, len(parts), per_request):
        group = parts[start : start + per_request]
        answers = await send([encode_call(way, part, block) for part in group])
        for part, answer in zip(group, answers, strict=True):
            results += await _part(send, way, part, answer, block)
    return results


async def _part(send: Send, way: Way, part: Sequence[Call], answer: Any, block: Any) -> list[bytes | None]:
    if isinstance(answer, RpcError):
        if answer.kind in _NOT_ABOUT_SIZE:
            raise answer
        if way is Way.JSON_BATCH:
            if answer.kind in _FAILED:
                return [None]
            raise answer
        if len(part) == 1:
            return await _alone(send, part, block)
        return await _halves(send, way, part, block)
    if not isinstance(answer, str):
        raise MalformedAnswer("eth_call did not answer with a string")
    try:
        found = decode_answer(way, answer, len(part))
    except ValueError as error:
        if len(part) == 1:
            raise PermanentError(f"{way.value} answered nonsense: {error}") from error
        return await _halves(send, way, part, block)
    if len(found) == len(part) and RAN_OUT not in found:
        return cast(list[bytes | None], found)
    unsure = [call for call, result in zip(part, found, strict=False) if result is RAN_OUT]
    told = iter(await _alone(send, unsure, block) if unsure else ())
    results: list[bytes | None] = [next(told) if result is RAN_OUT else result for result in found]
    rest = part[len(found) :]
    if rest:
        (more,) = await send([encode_call(way, rest, block)])
        results += await _part(send, way, rest, more, block)
    return results


async def _halves(send: Send, way: Way, part: Sequence[Call], block: Any) -> list[bytes | None]:
    middle = len(part) // 2
    results: list[bytes | None] = []
    for half in (part[:middle], part[middle:]):
        (again,) = await send([encode_call(way, half, block)])
        results += await _part(send, way, half, again, block)
    return results


async def _alone(send: Send, calls: Sequence[Call], block: Any) -> list[bytes | None]:
    results: list[bytes | None] = []
    for answer in await send([encode_alone(call, block) for call in calls]):
        if isinstance(answer, RpcError):
            if answer.kind not in _FAILED:
                raise answer
            results.append(None)
        elif isinstance(answer, str):
            results.append(bytes.fromhex(answer[2:])[:MAX_RESULT])
        else:
            raise MalformedAnswer("eth_call did not answer with a string")
    return results
