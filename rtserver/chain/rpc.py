"""JSON-RPC over HTTP and WebSocket: requests out, results or typed errors back.

web3 follows the heads; reads go through here, because web3's provider spends a core while a request is
outstanding and mixes up concurrent batches. Never retries: the pool above decides that. No URL leaves
this module in an error or a log, since URLs carry keys: endpoints go by `name`.
"""

import asyncio
import itertools
import re
from collections.abc import Sequence
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import aiohttp
import orjson
import websockets
from websockets.asyncio.client import ClientConnection, connect

from ..domain.errors import PermanentError, RetryableError

__all__ = ["Endpoint", "HttpEndpoint", "Request", "RpcError", "TransportError", "WsEndpoint", "endpoint_name"]

Request = tuple[str, list[Any]]

# One answer may carry a block's logs of many pools, or hundreds of reads.
_MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
_SECRET_PATH: Final = re.compile(r"[^/]{12,}")


class TransportError(RetryableError):
    """The endpoint did not answer: connection, timeout, HTTP status, or an answer that is not JSON-RPC."""


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

    @property
    def is_unknown_block(self) -> bool:
        """Return whether the node says that it doesn't have the block: it lags, or the block is orphaned."""
        text = self.message.lower()
        # -32001: resource not found (EIP-1474), what anvil answers for an orphan.
        return self.code == -32001 or any(
            words in text
            for words in ("header not found", "unknown block", "block not found", "not found for hash", "missing trie",
                          "blockoutofrange", "block out of range", "no state available", "header for hash")
        )  # fmt: skip


def endpoint_name(url: str) -> str:
    """Return a URL without what may be a secret: no user, no query, no long path parts."""
    parts = urlsplit(url)
    host = parts.hostname or "?"
    port = f":{parts.port}" if parts.port else ""
    path = _SECRET_PATH.sub("…", parts.path.rstrip("/"))
    return f"{parts.scheme}://{host}{port}{path}"


class Endpoint(Protocol):
    """Something that answers JSON-RPC."""

    name: str

    async def send(self, requests: Sequence[Request]) -> list[Any]:
        """Return each request's result, or its RpcError in its place.

        Several requests travel as one JSON-RPC batch. Raises TransportError.
        """

    async def close(self) -> None:
        """Release the connection."""


def _unpack(answer: Any) -> Any:
    if not isinstance(answer, dict):
        raise TransportError("the answer is not a JSON-RPC object")
    error = answer.get("error")
    if error is None:
        return answer.get("result")
    if not isinstance(error, dict):
        return RpcError(-32603, str(error))
    code = error.get("code")
    return RpcError(code if isinstance(code, int) else -32603, str(error.get("message", "")), error.get("data"))


class _NoBatches(Exception):
    """The endpoint answered a batch with a single object: it takes none."""


def _sort_batch(answers: Any, ids: Sequence[int]) -> list[Any]:
    if not isinstance(answers, list):
        raise _NoBatches
    by_id = {one["id"]: one for one in answers if isinstance(one, dict) and isinstance(one.get("id"), int)}
    if any(request_id not in by_id for request_id in ids):
        raise TransportError("the answer to a batch lacks some of its ids")
    return [_unpack(by_id[request_id]) for request_id in ids]


def _encode(requests: Sequence[Request], ids: Sequence[int]) -> bytes:
    messages = [
        {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
        for request_id, (method, params) in zip(ids, requests, strict=True)
    ]
    return orjson.dumps(messages if len(messages) > 1 else messages[0])


class HttpEndpoint:
    """JSON-RPC over HTTP with kept-alive connections."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self.name = endpoint_name(url)
        self._url = url
        self._timeout_s = timeout_s
        self._ids = itertools.count(1)
        self._takes_batches = True
        self._session: aiohttp.ClientSession | None = None

    async def send(self, requests: Sequence[Request]) -> list[Any]:
        """See `Endpoint.send`."""
        if len(requests) > 1 and not self._takes_batches:
            return await self._one_by_one(requests)
        try:
            return await self._exchange(requests)
        except _NoBatches:
            self._takes_batches = False
            return await self._one_by_one(requests)

    async def _one_by_one(self, requests: Sequence[Request]) -> list[Any]:
        answers = await asyncio.gather(*(self._exchange([request]) for request in requests))
        return [answer for (answer,) in answers]

    async def _exchange(self, requests: Sequence[Request]) -> list[Any]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                headers={"Content-Type": "application/json"},
            )
        ids = [next(self._ids) for _ in requests]
        try:
            async with self._session.post(self._url, data=_encode(requests, ids)) as response:
                body = await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TransportError(f"{self.name}: {type(error).__name__}") from error
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise TransportError(f"{self.name}: HTTP {status}, not JSON") from error
        if status == 429 or status >= 500 or not isinstance(answer, (dict, list)):
            raise TransportError(f"{self.name}: HTTP {status}")
        return [_unpack(answer)] if len(ids) == 1 else _sort_batch(answer, ids)

    async def close(self) -> None:
        """Close the kept-alive connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


class WsEndpoint:
    """JSON-RPC over one WebSocket, opened at first use and again after it broke."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self.name = endpoint_name(url)
        self._url = url
        self._timeout_s = timeout_s
        self._ids = itertools.count(1)
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        self._waiting: dict[int, asyncio.Future[Any]] = {}

    async def send(self, requests: Sequence[Request]) -> list[Any]:
        """See `Endpoint.send`."""
        ids = [next(self._ids) for _ in requests]
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._timeout_s):
                socket = await self._open()
                for request_id in ids:
                    self._waiting[request_id] = answer
                await socket.send(_encode(requests, ids).decode())
                message = await answer
        except (websockets.WebSocketException, TimeoutError, OSError) as error:
            raise TransportError(f"{self.name}: {type(error).__name__}") from error
        finally:
            for request_id in ids:
                self._waiting.pop(request_id, None)
        if len(ids) == 1:
            return [_unpack(message)]
        try:
            return _sort_batch(message, ids)
        except _NoBatches as error:
            # Which request a lone error belongs to can't be told on a socket.
            raise TransportError(f"{self.name}: takes no batches; add an http endpoint") from error

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
                message = orjson.loads(text)
                first = message[0] if isinstance(message, list) and message else message
                request_id = first.get("id") if isinstance(first, dict) else None
                waiter = self._waiting.get(request_id) if isinstance(request_id, int) else None
                if waiter is not None and not waiter.done():
                    waiter.set_result(message)
        except (websockets.WebSocketException, orjson.JSONDecodeError, OSError):
            await socket.close()
        finally:
            for waiter in set(self._waiting.values()):
                if not waiter.done():
                    waiter.set_exception(TransportError(f"{self.name}: the connection closed"))

    async def close(self) -> None:
        """Close the connection."""
        socket, reader, self._socket, self._reader = self._socket, self._reader, None, None
        if socket is not None:
            await socket.close()
        if reader is not None:
            reader.cancel()
            await asyncio.wait({reader})
