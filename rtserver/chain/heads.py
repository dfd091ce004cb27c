"""newHeads of one WebSocket endpoint through web3, a fresh AsyncWeb3 for each connection.

web3's traps are closed here: its provider spins while an answer is outstanding (this one waits), its
subscription manager keeps a dead subscription after its own reconnect (it never reconnects here: the caller asks
for a new stream), no attempts at all mean no connection, and a goodbye to a frozen node has no end of its own.
Nothing but the subscription goes over this connection.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

import structlog
from web3 import AsyncWeb3
from web3.middleware import ExtraDataToPOAMiddleware
from web3.providers.persistent import WebSocketProvider
from web3.types import RPCRequest, RPCResponse

from ..domain.chain import Header
from ..domain.errors import RetryableError
from .decode import header_of
from .rpc import TransportError, endpoint_name

__all__ = ["stream_heads"]

log = structlog.get_logger(__name__)

# A half-open connection (a frozen node, a lost route) is noticed within interval + timeout.
_PING_INTERVAL_S: Final = 5
_PING_TIMEOUT_S: Final = 10
# A goodbye that is not answered: the next connection waits for it.
_CLOSE_TIMEOUT_S: Final = 0.5


class _PatientProvider(WebSocketProvider):
    """Waits for the answer to its one request; web3's own turns the event loop until it is there."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._answered = asyncio.Event()

    async def socket_recv(self) -> RPCResponse:
        """Return the next message."""
        try:
            message = await super().socket_recv()
        except BaseException:
            self._answered.set()
            raise
        if not isinstance(message, dict) or message.get("method") != "eth_subscription":
            self._answered.set()
        return message

    async def recv_for_request(self, rpc_request: RPCRequest) -> RPCResponse:
        """Return the answer to the request, once something came that may be it."""
        await self._answered.wait()
        return await super().recv_for_request(rpc_request)


async def stream_heads(url: str, connect_timeout_s: float, on_open: Callable[[], None]) -> AsyncGenerator[Header, None]:
    """Yield every new head until the connection ends; `on_open` is called once the node has subscribed us.

    Raises:
        TransportError: The connection could not be made, or it ended.
        MalformedAnswer: A head is not a header.
    """
    name = endpoint_name(url)
    provider = _PatientProvider(
        url,
        # What does not answer at once after something came (an answer that is not ours) is given up on soon:
        # until then web3 spins.
        request_timeout=min(connect_timeout_s, 0.2),
        use_text_frames=True,  # JSON is text: not every proxy looks into binary frames
        max_connection_retries=1,  # web3 counts attempts: 0 would never connect
        websocket_kwargs={
            "ping_interval": _PING_INTERVAL_S,
            "ping_timeout": _PING_TIMEOUT_S,
            "close_timeout": _CLOSE_TIMEOUT_S,
        },
    )
    web3: AsyncWeb3[Any] = AsyncWeb3(provider)
    # BNB Chain and Polygon sign their headers in extraData, which web3's formatters refuse as too long.
    web3.middleware_onion.inject(ExtraDataToPOAMiddleware, layer=0)
    try:
        async with asyncio.timeout(connect_timeout_s):
            await provider.connect()
            await web3.eth.subscribe("newHeads")
        on_open()
        async for message in web3.socket.process_subscriptions():
            result: Any = message["result"]
            yield header_of(result)
    except RetryableError:
        raise
    except Exception as error:
        raise TransportError(f"{name}: {type(error).__name__}") from error
    finally:
        await _say_goodbye(provider)
    raise TransportError(f"{name}: the subscription ended")


async def _say_goodbye(provider: WebSocketProvider) -> None:
    """Close the connection, whatever state it is in."""
    try:
        async with asyncio.timeout(4 * _CLOSE_TIMEOUT_S):
            await provider.disconnect()
    except Exception as error:  # noqa: BLE001 - one connection's end
        # A broken connection may not be closable: there is a new one anyway, and this one has no readers left.
        name = endpoint_name(str(provider.endpoint_uri))
        log.debug("connection not closed in order", endpoint=name, error=type(error).__name__)
