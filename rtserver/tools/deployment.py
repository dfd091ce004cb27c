"""Which contracts a server follows: asked from the server, or told by the caller."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from ..client.errors import ConnectFailed, public_url
from ..domain.errors import ClientError, PermanentError
from ..domain.ids import Address
from ..protocols.addresses import parse_address

__all__ = ["Deployment", "fetch_deployment"]

_TIMEOUT_S: Final = 10.0
_KIND: Final = "uniswap-v3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A Uniswap v3 deployment on a chain; `staker` is the v3-staker that the server follows, if it does."""

    chain_id: int
    protocol: str
    manager: Address
    factory: Address
    staker: Address | None = None


async def fetch_deployment(base: str, chain_id: int, manager: str | None, factory: str | None) -> Deployment:
    """Return the deployment that the server at `base` follows on a chain; given addresses go first.

    The server says which staker it follows. Where both addresses are given it need not say anything.

    Raises:
        ConnectFailed: The server does not answer.
        PermanentError: It does not follow that chain, or an address is none.
    """
    found: dict[str, Any] = {}
    try:
        found = await _fetch(base, chain_id)
    except (ConnectFailed, PermanentError):
        if manager is None or factory is None:
            raise
    try:
        return Deployment(
            chain_id=chain_id,
            protocol=_KIND,
            manager=parse_address(manager or str(found.get("positionManager")), what="position manager"),
            factory=parse_address(factory or str(found.get("factory")), what="factory"),
            staker=parse_address(str(found["staker"]), what="staker") if "staker" in found else None,
        )
    except ClientError as error:
        raise PermanentError(error.message) from error


async def _fetch(base: str, chain_id: int) -> dict[str, Any]:
    url = f"{base}/api/v1/info"
    try:
        async with (
            asyncio.timeout(_TIMEOUT_S),
            aiohttp.ClientSession() as session,
            session.get(url) as response,
        ):
            if response.status != 200:
                raise ConnectFailed(url, f"HTTP {response.status}; is it an rtserver?", status=response.status)
            body = await response.json()
    except TimeoutError as error:
        raise ConnectFailed(url, f"no answer within {_TIMEOUT_S:g} s") from error
    except aiohttp.ClientConnectorError as error:
        raise ConnectFailed(url, "nothing listens there; is the server running, and is this its port?") from error
    except (aiohttp.ClientError, ValueError) as error:
        raise ConnectFailed(url, f"not an answer of rtserver ({type(error).__name__})") from error
    return _find(body, chain_id, base)


def _find(body: Any, chain_id: int, base: str) -> dict[str, Any]:
    chains = body.get("chains", []) if isinstance(body, dict) else []
    for chain in chains:
        if chain.get("chainId") == chain_id:
            for protocol in chain.get("protocols", []):
                if protocol.get("kind") == _KIND:
                    return dict(protocol)
    served = ", ".join(str(chain.get("chainId")) for chain in chains) or "none"
    raise PermanentError(
        f"{public_url(base)} does not follow {_KIND} on chain {chain_id}, which is the chain of --rpc; "
        f"its chains are: {served}"
    )
