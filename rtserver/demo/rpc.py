"""JSON-RPC over HTTP to the local node, and nothing cleverer: one request, one answer or one error.

The server's own reading of chains lives elsewhere; this is the hand that drives the node under it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import orjson

__all__ = ["JsonRpc", "NodeUnreachable", "RpcError"]

# A local node answers in milliseconds, but the machine may be busy and a block may hold 500 transactions.
DEFAULT_TIMEOUT_S: Final = 20.0


class RpcError(Exception):
    """The node's own refusal. `data` is what a reverted call returned, as 0x-hex, if anything."""

    def __init__(self, method: str, code: int, message: str, data: object = None) -> None:
        super().__init__(f"{method}: {message} ({code})")
        self.method = method
        self.code = code
        self.message = message
        self.data = data


class NodeUnreachable(Exception):
    """The node did not answer: not started, stopped, frozen or too slow."""


class JsonRpc:
    """A client of one HTTP endpoint. Open it as a context manager, or call `open` and `close`."""

    def __init__(self, url: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self.url = url
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._ids = itertools.count(1)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def open(self) -> None:
        """Make the session; needs a running event loop, touches no network."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)

    async def close(self) -> None:
        """Close the session; calling again does nothing."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def call(self, method: str, params: Sequence[object] = ()) -> Any:
        """Return the result of one call.

        Raises:
            RpcError: The node answered with an error.
            NodeUnreachable: No answer in time.
        """
        return self._result(method, await self._post(self._request(method, params)))

    async def batch(self, calls: Sequence[tuple[str, Sequence[object]]]) -> list[Any]:
        """Return the results of read-only calls sent together, in order.

        The node runs a batch concurrently: two transactions of one sender in it may get the same nonce.
        """
        if not calls:
            return []
        requests = [self._request(method, params) for method, params in calls]
        answers = {answer["id"]: answer for answer in await self._post(requests)}
        return [self._result(str(r["method"]), answers[r["id"]]) for r in requests]

    def _request(self, method: str, params: Sequence[object]) -> dict[str, object]:
        return {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(params)}

    async def _post(self, body: object) -> Any:
        if self._session is None:
            raise NodeUnreachable(f"{self.url}: the client is closed")
        headers = {"Content-Type": "application/json"}
        try:
            async with self._session.post(self.url, data=orjson.dumps(body), headers=headers) as response:
                return orjson.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise NodeUnreachable(f"{self.url}: {error or type(error).__name__}") from error

    @staticmethod
    def _result(method: str, answer: dict[str, Any]) -> Any:
        if (error := answer.get("error")) is not None:
            raise RpcError(method, error.get("code", 0), error.get("message", ""), error.get("data"))
        return answer.get("result")
