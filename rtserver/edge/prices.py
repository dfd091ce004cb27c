"""REST: the prices of watched tokens, as the `prices:` channel has them at the same block.

Answers from the open channel only: a token that nothing here holds is unknown, and nobody is asked about it.
"""

from typing import Final

from aiohttp import web

from ..domain.errors import ClientError
from ..protocols.addresses import checksum, parse_address
from ..protocols.channels import PricesChannel
from .problems import json_response
from .rest import Rest

__all__ = ["PricesApi"]

# 100 addresses are 4 KB of a request line that ends at 8 KB.
MAX_TOKENS: Final = 100


class PricesApi:
    """`GET /api/v1/prices`."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest

    def routes(self) -> list[web.RouteDef]:
        """Return all routes."""
        return [web.get("/api/v1/prices", self.prices)]

    async def prices(self, request: web.Request) -> web.Response:
        """Answer the prices of some tokens (`tokens=0x…,0x…`), or of all that are watched."""
        tokens = _tokens(self._rest.one(request, "tokens"))
        chain_id = self._rest.chain_id(request)
        stream = await self._rest.open(PricesChannel(chain_id), request.remote)
        block, age_ms = self._rest.anchor(stream)
        state = stream.state
        keys = sorted(state) if tokens is None else tokens
        body = {
            "chainId": chain_id,
            "block": block,
            "ageMs": age_ms,
            "prices": [state[key] for key in keys if key in state],
            "unknown": [key for key in keys if key not in state],
        }
        return json_response(body, headers={"Age": str(age_ms // 1000), "Cache-Control": "no-cache"})


def _tokens(text: str | None) -> list[str] | None:
    """Return the asked tokens in EIP-55 spelling, each once; None where all are asked for."""
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) > MAX_TOKENS:
        raise ClientError("bad_request", f"at most {MAX_TOKENS} tokens a request, got {len(parts)}")
    try:
        return list(dict.fromkeys(checksum(parse_address(part.strip(), what="token")) for part in parts))
    except ClientError as error:
        raise ClientError("bad_request", error.message) from error
