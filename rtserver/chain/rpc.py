"""JSON-RPC over HTTP and WebSocket: requests out, results or typed errors back.

web3 follows the heads; reads go through here, because web3's provider spends a core while a request is
outstanding and mixes up concurrent batches. Never retries: the pool above decides that. No URL leaves
this module in an error or a log, since URLs carry keys: endpoints go by `name`.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import aiohttp
import orjson
import websockets
from websockets.asyncio.client import ClientConnection, connect

from ..domain.errors import PermanentError, RetryableError
from .refusals import Refusal, batch_limit, classify, rest_s

__all__ = [
    "BusyError",
    "Endpoint",
    "HttpEndpoint",
    "Request",
    "RpcError",
    "TransportError",
    "WsEndpoint",
    "endpoint_name",
    "make_endpoint",
    "node_of",
]

Request = tuple[str, list[Any]]

# One answer may carry a block's logs of many pools, or hundreds of reads.
_MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
# An endpoint that refused a batch is asked again after this: it may have been a bad moment, or one bad node of
# many behind a balancer. Doubled at each refusal up to the second.
_BATCH_AGAIN_S: Final = 60.0
_BATCH_AGAIN_MAX_S: Final = 3600.0
# Longer is more than a provider means: a day's quota comes back at midnight, not a day after it ran out.
_MAX_REST_S: Final = 3600.0


class TransportError(RetryableError):
    """The endpoint did not answer: connection, timeout, HTTP status, or an answer that is not JSON-RPC.

    Args:
        kind: A word for metrics: "connect", "timeout", "status", "malformed", "too large" or "busy".
    """

    def __init__(self, message: str, kind: str = "connect") -> None:
        super().__init__(message)
        self.kind = kind


class BusyError(TransportError):
    """The endpoint wants to be asked less.

    Args:
        rest_s: For how many seconds it wants to be left alone; None where it did not say.
    """

    def __init__(self, message: str, rest_s: float | None = None) -> None:
        super().__init__(message, "busy")
        self.rest_s = rest_s


class RpcError(PermanentError):
    """The endpoint answered with an error object.

    Args:
        code: JSON-RPC error code.
        message: The node's words, shortened.
        data: The node's data; revert data as 0x-hex where a call reverted.
    """

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(f"{message[:300]} ({code})")
        self.code = code
        self.message = message
        self.data = data

    @cached_property
    def kind(self) -> Refusal:
        """Return what the node means."""
        return classify(self.code, self.message[:2000], self.data)

    @property
    def is_unknown_block(self) -> bool:
        """Return whether the node says that it doesn't have the block: it lags, the block is orphaned or pruned."""
        return self.kind in (Refusal.UNKNOWN_BLOCK, Refusal.PRUNED)


def node_of(url: str) -> str:
    """Return what two endpoints of one node have in common: host and port."""
    parts = urlsplit(url)
    host = parts.hostname or "?"
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{parts.port}" if parts.port else host


def endpoint_name(url: str) -> str:
    """Return a URL without what may be a secret: scheme, host and port, as keys stand in paths of any length."""
    return f"{urlsplit(url).scheme}://{node_of(url)}"


class Endpoint(Protocol):
    """Something that answers JSON-RPC."""

    name: str

    async def send(self, requests: Sequence[Request]) -> list[Any]:
        """Return each request's result, or its RpcError in its place.

        Several requests travel as one JSON-RPC batch, or as few as the endpoint takes. Raises TransportError.
        """

    async def close(self) -> None:
        """Release the connection."""


def make_endpoint(url: str, *, timeout_s: float) -> "HttpEndpoint | WsEndpoint":
    """Return an endpoint for a URL, not connected yet."""
    return HttpEndpoint(url, timeout_s=timeout_s) if url.startswith("http") else WsEndpoint(url, timeout_s=timeout_s)


def _unpack(answer: Any) -> Any:
    if not isinstance(answer, dict):
        raise TransportError("the answer is not a JSON-RPC object", "malformed")
    error = answer.get("error")
    if error is None:
        if "result" in answer:
            return answer["result"]
        # Some balancers answer with the bare error object.
        error = answer
    if not isinstance(error, dict):
        return RpcError(-32603, str(error))
    if "code" not in error and "message" not in error:
        raise TransportError("the answer holds neither a result nor an error", "malformed")
    code = error.get("code")
    return RpcError(code if isinstance(code, int) else -32603, str(error.get("message", "")), error.get("data"))


def _unpack_one(answer: Any, request_id: int) -> Any:
    # An error may come without an id: the node could not read it.
    told = answer.get("id") if isinstance(answer, dict) else None
    if told is not None and told != request_id:
        raise TransportError("the answer is to another request", "malformed")
    return _unpack(answer)


class _BatchRefused(Exception):
    """The endpoint answered a batch with a single object."""

    def __init__(self, error: RpcError | None) -> None:
        super().__init__("batch refused")
        self.error = error


def _sort_batch(answers: Any, ids: Sequence[int]) -> list[Any]:
    if not isinstance(answers, list):
        error = _unpack(answers)
        if not isinstance(error, RpcError):
            raise _BatchRefused(None)
        if error.kind is Refusal.BUSY:
            # About the pace, not about batches: call by call would be worse.
            return [error] * len(ids)
        raise _BatchRefused(error)
    by_id = {one["id"]: one for one in answers if isinstance(one, dict) and isinstance(one.get("id"), int)}
    if any(request_id not in by_id for request_id in ids):
        raise TransportError("the answer to a batch lacks some of its ids", "malformed")
    return [_unpack(by_id[request_id]) for request_id in ids]


def _encode(requests: Sequence[Request], ids: Sequence[int]) -> bytes:
    messages = [
        {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
        for request_id, (method, params) in zip(ids, requests, strict=True)
    ]
    return orjson.dumps(messages if len(messages) > 1 else messages[0])


def _raise_if_busy(name: str, answers: Sequence[Any]) -> None:
    for answer in answers:
        if isinstance(answer, RpcError) and answer.kind is Refusal.BUSY:
            raise BusyError(f"{name}: {answer}", _bounded(rest_s(answer.message, answer.data)))


def _bounded(seconds: float | None) -> float | None:
    return None if seconds is None else min(max(seconds, 0.0), _MAX_REST_S)


class _Batches:
    """How many calls an endpoint takes at once, as far as it has said; a refusal is not for ever."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._limit: int | None = None
        self._until = 0.0
        self._again_s = _BATCH_AGAIN_S

    @property
    def limit(self) -> int | None:
        """Return how many calls may travel together now; None is any number."""
        if self._limit is not None and self._clock() >= self._until:
            self._limit = None
        return self._limit

    def refused(self, count: int, error: RpcError | None) -> None:
        """Note that a batch of so many was refused."""
        limit = None if error is None or error.kind is not Refusal.BATCH else batch_limit(error.message)
        if limit is None:
            # No number: half as many if it was too much, else one by one.
            is_much = error is not None and error.kind in (Refusal.BATCH, Refusal.TOO_LARGE, Refusal.TOO_MANY)
            limit = count // 2 if is_much else 1
        if self._limit is None:
            self._until = self._clock() + self._again_s
            self._again_s = min(2 * self._again_s, _BATCH_AGAIN_MAX_S)
        self._limit = max(min(limit, count - 1), 1)

    async def send(
        self, requests: Sequence[Request], exchange: Callable[[Sequence[Request]], Awaitable[list[Any]]]
    ) -> list[Any]:
        """Return the answers, sent in as few exchanges as the endpoint takes."""
        limit = self.limit
        if limit is None or len(requests) <= limit:
            try:
                return await exchange(requests)
            except _BatchRefused as refusal:
                self.refused(len(requests), refusal.error)
                return await self.send(requests, exchange)
        parts = [requests[start : start + limit] for start in range(0, len(requests), limit)]
        tasks = [asyncio.ensure_future(self.send(part, exchange)) for part in parts]
        try:
            answers = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return [answer for part in answers for answer in part]


class HttpEndpoint:
    """JSON-RPC over HTTP with kept-alive connections."""

    def __init__(self, url: str, *, timeout_s: float, max_answer_bytes: int = _MAX_ANSWER_BYTES) -> None:
        self.name = endpoint_name(url)
        self._url = url
        self._timeout_s = timeout_s
        self._max_answer_bytes = max_answer_bytes
        self._ids = itertools.count(1)
        self._batches = _Batches()
        self._session: aiohttp.ClientSession | None = None

    async def send(self, requests: Sequence[Request]) -> list[Any]:
        """See `Endpoint.send`."""
        answers = await self._batches.send(requests, self._exchange)
        _raise_if_busy(self.name, answers)
        return answers

    async def _exchange(self, requests: Sequence[Request]) -> list[Any]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                headers={"Content-Type": "application/json"},
                # The pool bounds what is outstanding.
                connector=aiohttp.TCPConnector(limit=0),
            )
        ids = [next(self._ids) for _ in requests]
        try:
            async with self._session.post(self._url, data=_encode(requests, ids)) as response:
                body = await self._body(response)
                status = response.status
                headers = response.headers
        except TimeoutError as error:
            raise TransportError(f"{self.name}: TimeoutError", "timeout") from error
        except (aiohttp.ClientError, OSError) as error:
            raise TransportError(f"{self.name}: {type(error).__name__}") from error
        if status in (429, 503):
            wait_s = _retry_after_s(headers)
            if status == 429 or wait_s is not None:
                raise BusyError(f"{self.name}: HTTP {status}", wait_s if wait_s is not None else _words_s(body))
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            if status == 413:
                return [RpcError(413, "request entity too large")] * len(requests)
            raise TransportError(f"{self.name}: HTTP {status}, not JSON", _kind(status)) from error
        if status >= 500 or not isinstance(answer, (dict, list)):
            raise TransportError(f"{self.name}: HTTP {status}", _kind(status))
        try:
            return [_unpack_one(answer, ids[0])] if len(ids) == 1 else _sort_batch(answer, ids)
        except TransportError as error:
            raise TransportError(f"{self.name}: {error}", error.kind) from error

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        """Return the whole body; counted after decompression, so that a small answer can't become a large one."""
        parts: list[bytes] = []
        size = 0
        async for part in response.content.iter_any():
            size += len(part)
            if size > self._max_answer_bytes:
                response.close()
                raise TransportError(f"{self.name}: the answer is over {self._max_answer_bytes} bytes", "too large")
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def close(self) -> None:
        """Close the kept-alive connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def _kind(status: int) -> str:
    return "malformed" if status == 200 else "status"


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return what Retry-After says, in seconds from now: it holds seconds or a date (RFC 9110, 10.2.3)."""
    text = headers.get("Retry-After")
    if text is None:
        return None
    try:
        return _bounded(
            float(text) if text.strip().isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
        )
    except ValueError:
        return None


def _words_s(body: bytes) -> float | None:
    try:
        refusal = _unpack(orjson.loads(body))
    except (orjson.JSONDecodeError, TransportError):
        return None
    return _bounded(rest_s(refusal.message, refusal.data)) if isinstance(refusal, RpcError) else None


class WsEndpoint:
    """JSON-RPC over one WebSocket, opened at first use and again after it broke."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self.name = endpoint_name(url)
        self._url = url
        self._timeout_s = timeout_s
        self._ids = itertools.count(1)
        self._batches = _Batches()
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        self._waiting: dict[int, asyncio.Future[Any]] = {}

    async def send(self, requests: Sequence[Request]) -> list[Any]:
        """See `Endpoint.send`."""
        answers = await self._batches.send(requests, self._exchange)
        _raise_if_busy(self.name, answers)
        return answers

    async def _exchange(self, requests: Sequence[Request]) -> list[Any]:
        ids = [next(self._ids) for _ in requests]
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._timeout_s):
                socket = await self._open()
                for request_id in ids:
                    self._waiting[request_id] = answer
                await socket.send(_encode(requests, ids).decode())
                message = await answer
        except TimeoutError as error:
            raise TransportError(f"{self.name}: TimeoutError", "timeout") from error
        except (websockets.WebSocketException, OSError) as error:
            raise TransportError(f"{self.name}: {type(error).__name__}") from error
        finally:
            for request_id in ids:
                self._waiting.pop(request_id, None)
            if answer.done() and not answer.cancelled():
                # Where sending failed, the reader may have failed it, too: one error is told, no other left unread.
                answer.exception()
        try:
            return [_unpack_one(message, ids[0])] if len(ids) == 1 else _sort_batch(message, ids)
        except TransportError as error:
            raise TransportError(f"{self.name}: {error}", error.kind) from error

    async def _open(self) -> ClientConnection:
        async with self._opening:
            if self._socket is None or self._reader is None or self._reader.done():
                await self.close()
                self._socket = await connect(
                    self._url, max_size=_MAX_ANSWER_BYTES, ping_interval=10, ping_timeout=10, compression=None
                )
                self._reader = asyncio.get_running_loop().create_task(self._read(self._socket))
            return self._socket

    async def _read(self, socket: ClientConnection) -> None:
        """Hand answers to whoever waits; ends with the connection, and then nobody waits any more."""
        try:
            async for text in socket:
                self._hand_out(orjson.loads(text))
        except (websockets.WebSocketException, orjson.JSONDecodeError, OSError):
            await socket.close()
        finally:
            for waiter in set(self._waiting.values()):
                if not waiter.done():
                    waiter.set_exception(TransportError(f"{self.name}: the connection closed"))

    def _hand_out(self, message: Any) -> None:
        first = message[0] if isinstance(message, list) and message else message
        request_id = first.get("id") if isinstance(first, dict) else None
        if isinstance(request_id, int):
            waiter = self._waiting.get(request_id)
            if waiter is not None and not waiter.done():
                waiter.set_result(message)
        elif request_id is None and isinstance(message, dict) and "method" not in message:
            # An error without an id: whose it is can't be told, so it is everyone's. Batches are then sent
            # call by call, and what was sent alone is refused and tried again elsewhere: reads bear both.
            for waiter in set(self._waiting.values()):
                if not waiter.done():
                    waiter.set_result(message)

    async def close(self) -> None:
        """Close the connection."""
        socket, reader, self._socket, self._reader = self._socket, self._reader, None, None
        if socket is not None:
            await socket.close()
        if reader is not None:
            reader.cancel()
            await asyncio.wait({reader})
