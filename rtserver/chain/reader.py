"""What a chain is asked: headers, logs and batched static calls, over the first endpoint that answers.

Every read of state is pinned to a block hash (EIP-1898), so an answer is either of that block or none.
Counts every call by purpose. Never decides what to read.
"""

import time
from collections.abc import Sequence
from typing import Any, Final

import structlog

from ..domain.chain import Header, Log
from ..domain.errors import BlockGone, ChainUnavailable, PermanentError, RetryableError
from ..domain.ids import Address, BlockHash
from ..obs.metrics import Metrics
from ..protocols.base import Call, LogFilter
from .decode import MalformedAnswer, header_of, log_of
from .evm_batch import MAX_CALLS, Way, decode_answer, encode_call
from .rpc import Endpoint, Request, RpcError, TransportError

__all__ = ["ChainReader"]

log = structlog.get_logger(__name__)

# Longer address lists are refused by providers; topics alone then select, and the rest is dropped here.
_MAX_FILTER_ADDRESSES: Final = 1000
# The identity precompile answers its own input; 0x06 reverts on a point that is not on the curve.
_ECHO: Final = Address("0x" + "0" * 39 + "4")
_REVERTS: Final = Address("0x" + "0" * 39 + "6")


class ChainReader:
    """Reads of one chain."""

    def __init__(self, chain: str, endpoints: Sequence[Endpoint], metrics: Metrics) -> None:
        self._chain = chain
        self._endpoints = list(endpoints)
        self._metrics = metrics
        # How each endpoint batches calls, by its name; found out by `probe`.
        self.ways: dict[str, Way] = {}
        self.calls_sent = 0

    async def _send(self, endpoint: Endpoint, requests: Sequence[Request], purpose: str) -> list[Any]:
        for method, _ in requests:
            self._metrics.rpc_calls.labels(self._chain, purpose, method).inc()
        self.calls_sent += len(requests)
        started = time.perf_counter()
        answers = await endpoint.send(requests)
        self._metrics.rpc_latency.labels(self._chain).observe(time.perf_counter() - started)
        return answers

    async def request(self, requests: Sequence[Request], purpose: str) -> list[Any]:
        """Return the results of requests, from the first endpoint that answers all of them.

        Raises:
            BlockGone: An endpoint answered that it doesn't have the block, and no other did better.
            PermanentError: An endpoint refused the request itself.
            ChainUnavailable: No endpoint answered.
        """
        failure: Exception | None = None
        for endpoint in list(self._endpoints):
            try:
                answers = await self._send(endpoint, requests, purpose)
            except TransportError as error:
                self._metrics.rpc_errors.labels(self._chain, "transport").inc()
                failure = failure or error
                self._set_aside(endpoint)
                continue
            refusal = next((answer for answer in answers if isinstance(answer, RpcError)), None)
            if refusal is None:
                return answers
            self._metrics.rpc_errors.labels(self._chain, "refused").inc()
            failure = refusal
        if isinstance(failure, RpcError):
            if failure.is_unknown_block:
                raise BlockGone(str(failure)) from failure
            raise failure
        raise ChainUnavailable(f"no endpoint of chain {self._chain} answered: {failure}") from failure

    def _set_aside(self, endpoint: Endpoint) -> None:
        """Ask this endpoint last from now on."""
        if endpoint in self._endpoints:
            self._endpoints.remove(endpoint)
            self._endpoints.append(endpoint)

    async def chain_id(self) -> int:
        """Return the chain id that the endpoints report."""
        (answer,) = await self.request([("eth_chainId", [])], "probe")
        try:
            return int(answer, 16)
        except (TypeError, ValueError) as error:
            raise MalformedAnswer(f"chain id: {answer!r:.60}") from error

    async def latest(self) -> Header:
        """Return the node's head."""
        (answer,) = await self.request([("eth_getBlockByNumber", ["latest", False])], "head")
        if answer is None:
            raise RetryableError("the node has no latest block")
        return header_of(answer)

    async def header(self, block_hash: BlockHash) -> Header | None:
        """Return a header by hash, None where no endpoint has it."""
        try:
            (answer,) = await self.request([("eth_getBlockByHash", [block_hash, False])], "head")
        except (BlockGone, RpcError):
            return None
        return None if answer is None else header_of(answer)

    async def headers(self, first: int, last: int) -> list[Header]:
        """Return the headers of a range of heights, oldest first; those that the node doesn't have are left out."""
        requests: list[Request] = [("eth_getBlockByNumber", [hex(number), False]) for number in range(first, last + 1)]
        if not requests:
            return []
        return [header_of(answer) for answer in await self.request(requests, "head") if answer is not None]

    async def logs(self, blocks: Sequence[BlockHash], wanted: LogFilter) -> list[list[Log]]:
        """Return each block's wanted logs, in order."""
        selection: dict[str, Any] = {"topics": [sorted(wanted.topics)]}
        if len(wanted.addresses) <= _MAX_FILTER_ADDRESSES:
            selection["address"] = sorted(wanted.addresses)
        requests: list[Request] = [("eth_getLogs", [{"blockHash": block, **selection}]) for block in blocks]
        answers = await self.request(requests, "block")
        return [
            [entry for entry in map(log_of, self._entries(answer)) if entry.address in wanted.addresses]
            for answer in answers
        ]

    async def history(self, address: Address, topics: Sequence[Sequence[str]], until: Header) -> list[Log]:
        """Return all past logs of an address with these topics, up to and including a block.

        Raises:
            BlockGone: The endpoint's block of that height is another: it lags, or follows another branch.
            PermanentError: The endpoint refuses the range.
        """
        height = hex(until.number)
        query = {"address": address, "topics": [list(t) for t in topics], "fromBlock": "0x0", "toBlock": height}
        # A range is asked for by height. The block after it in the same batch tells whose chain answered.
        logs, block = await self.request([("eth_getLogs", [query]), ("eth_getBlockByNumber", [height, False])], "load")
        if block is None or header_of(block).hash != until.hash:
            raise BlockGone(f"block {until.number} is another one there")
        return [log_of(entry) for entry in self._entries(logs)]

    @staticmethod
    def _entries(answer: Any) -> list[Any]:
        if not isinstance(answer, list):
            raise MalformedAnswer("eth_getLogs did not answer with a list")
        return answer

    async def probe(self, head: Header) -> None:
        """Find out, per endpoint, the best way to batch calls; log it."""
        for endpoint in self._endpoints:
            try:
                self.ways[endpoint.name] = await self._probe(endpoint, head)
            except TransportError as error:
                log.warning("endpoint did not answer the probe", chain=self._chain, error=str(error))
                continue
            log.info(
                "batching way chosen", chain=self._chain, endpoint=endpoint.name, way=self.ways[endpoint.name].value
            )

    async def _probe(self, endpoint: Endpoint, head: Header) -> Way:
        echo = bytes(range(100))
        calls: list[Call] = [(_ECHO, echo), (_REVERTS, b"\xff" * 128), (_ECHO, b"")]
        for way in (Way.OVERRIDE, Way.DEPLOYLESS, Way.MULTICALL3):
            (answer,) = await self._send(endpoint, [encode_call(way, calls, {"blockHash": head.hash})], "probe")
            if not isinstance(answer, str):
                continue
            try:
                if decode_answer(way, answer, len(calls)) == [echo, None, b""]:
                    return way
            except (ValueError, OverflowError) as error:
                log.debug("batching way does not work", chain=self._chain, way=way.value, error=str(error))
        return Way.JSON_BATCH

    async def call(self, calls: Sequence[Call], block: BlockHash, purpose: str) -> list[bytes | None]:
        """Return each static call's data at a block, None where it reverted, in as few requests as the way allows.

        Raises:
            BlockGone, PermanentError, ChainUnavailable: As `request`.
        """
        if not calls:
            return []
        failure: Exception | None = None
        for endpoint in list(self._endpoints):
            try:
                return await self._call_on(endpoint, calls, block, purpose)
            except TransportError as error:
                self._metrics.rpc_errors.labels(self._chain, "transport").inc()
                failure = failure or error
                self._set_aside(endpoint)
            except RpcError as error:
                self._metrics.rpc_errors.labels(self._chain, "refused").inc()
                failure = error
        if isinstance(failure, RpcError):
            if failure.is_unknown_block:
                raise BlockGone(str(failure)) from failure
            raise failure
        raise ChainUnavailable(f"no endpoint of chain {self._chain} answered: {failure}") from failure

    async def _call_on(
        self, endpoint: Endpoint, calls: Sequence[Call], block: BlockHash, purpose: str
    ) -> list[bytes | None]:
        way = self.ways.get(endpoint.name, Way.JSON_BATCH)
        pinned = {"blockHash": block}
        size = 1 if way is Way.JSON_BATCH else MAX_CALLS[way]
        parts = [calls[start : start + size] for start in range(0, len(calls), size)]
        results: list[bytes | None] = []
        # Several parts travel as one batch, so that a large read stays one round trip.
        per_request = MAX_CALLS[Way.JSON_BATCH]
        for start in range(0, len(parts), per_request):
            group = parts[start : start + per_request]
            answers = await self._send(endpoint, [encode_call(way, part, pinned) for part in group], purpose)
            for part, answer in zip(group, answers, strict=True):
                results += await self._part(endpoint, way, part, answer, block, purpose)
        return results

    async def _part(
        self, endpoint: Endpoint, way: Way, part: Sequence[Call], answer: Any, block: BlockHash, purpose: str
    ) -> list[bytes | None]:
        """Decode one part; halve it where the node refused it for its size or gas."""
        if isinstance(answer, RpcError):
            if answer.is_unknown_block:
                raise answer
            if way is Way.JSON_BATCH:
                if _is_revert(answer):
                    return [None]
                raise answer
            if len(part) == 1:
                raise answer
        elif isinstance(answer, str):
            try:
                return decode_answer(way, answer, len(part))
            except ValueError as error:
                if len(part) == 1:
                    raise PermanentError(f"{way.value} answered nonsense: {error}") from error
        else:
            raise MalformedAnswer("eth_call did not answer with a string")
        middle = len(part) // 2
        results: list[bytes | None] = []
        for half in (part[:middle], part[middle:]):
            (again,) = await self._send(endpoint, [encode_call(way, half, {"blockHash": block})], purpose)
            results += await self._part(endpoint, way, half, again, block, purpose)
        return results

    async def close(self) -> None:
        """Close all endpoints."""
        for endpoint in self._endpoints:
            await endpoint.close()


def _is_revert(error: RpcError) -> bool:
    return error.code == 3 or "revert" in error.message.lower() or "invalid opcode" in error.message.lower()
