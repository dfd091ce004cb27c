"""newHeads of one WebSocket endpoint through web3, a fresh AsyncWeb3 for each connection.

web3's subscription manager keeps a dead subscription after its own reconnect, so it never reconnects here:
the caller asks for a new stream. Nothing but the subscription goes over this connection, because web3's
provider spins while any other request is outstanding.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

from web3 import AsyncWeb3
from web3.middleware import ExtraDataToPOAMiddleware
from web3.providers.persistent import WebSocketProvider

from ..domain.chain import Header
from ..domain.errors import RetryableError
from .decode import header_of
from .rpc import TransportError, endpoint_name

__all__ = ["stream_heads"]

# A half-open connection (a frozen node, a lost route) is noticed within interval + timeout.
_PING_INTERVAL_S: Final = 5
_PING_TIMEOUT_S: Final = 10


async def stream_heads(url: str, connect_timeout_s: float, on_open: Callable[[], None]) -> AsyncGenerator[Header, None]:
    """Yield every new head until the connection ends; `on_open` is called once the node has subscribed us.

    Raises:
        TransportError: The connection could not be made, or it ended.
        MalformedAnswer: A head is not a header.
    """
    name = endpoint_name(url)
    provider = WebSocketProvider(
        url,
        request_timeout=connect_timeout_s,
        max_connection_retries=1,  # web3 counts attempts: 0 would never connect
        websocket_kwargs={"ping_interval": _PING_INTERVAL_S, "ping_timeout": _PING_TIMEOUT_S},
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
        await provider.disconnect()
    raise TransportError(f"{name}: the subscription ended")
