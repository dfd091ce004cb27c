"""CoinGecko's `/simple/token_price/{platform}`: what to ask, and what the answer means. Pure.

Source: docs.coingecko.com/reference/simple-token-price. The price is an average over exchanges, renewed every
20 to 60 seconds; there is no statement of confidence. Without a key one token a request is answered.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from ..domain.ids import Address, ChainId
from .dollars import parse_dollars
from .http_source import Ask, read_object, read_seconds
from .quotes import COINGECKO, Quote

__all__ = ["PLATFORMS", "CoinGecko"]

# Source: CoinGecko's /asset_platforms.
PLATFORMS: Final[Mapping[int, str]] = {
    1: "ethereum",
    10: "optimistic-ethereum",
    56: "binance-smart-chain",
    137: "polygon-pos",
    8453: "base",
    42161: "arbitrum-one",
}


class CoinGecko:
    """The requests and answers of one account.

    Args:
        platforms: CoinGecko's names of chains, by chain id.
        key: The account's key, or None.
        is_pro: Whether it is a paid one; those have another header (and another base URL).
    """

    name = COINGECKO

    def __init__(self, platforms: Mapping[int, str], key: str | None, *, is_pro: bool) -> None:
        self._platforms = dict(platforms)
        header = "x-cg-pro-api-key" if is_pro else "x-cg-demo-api-key"
        self._headers = {} if key is None else {header: key}

    def serves(self, chain_id: ChainId) -> bool:
        """Return whether the source knows a chain."""
        return chain_id in self._platforms

    def ask(self, chain_id: ChainId, tokens: Sequence[Address]) -> Ask:
        """Return the request for some tokens of a chain."""
        query = {
            "contract_addresses": ",".join(tokens),
            "vs_currencies": "usd",
            "include_last_updated_at": "true",
            "precision": "full",
        }
        return Ask(f"/simple/token_price/{self._platforms[chain_id]}", query, self._headers)

    def read(self, chain_id: ChainId, tokens: Sequence[Address], body: bytes) -> dict[Address, Quote]:
        """Return the prices in an answer; a token that it does not price is absent.

        Raises:
            MalformedPrices: It is no answer of this interface.
        """
        found = {}
        asked = set(tokens)
        for address, entry in read_object(body).items():
            token = Address(address.lower())
            if token not in asked or not isinstance(entry, dict):
                continue
            price, as_of = parse_dollars(entry.get("usd")), read_seconds(entry.get("last_updated_at"))
            # Without its time a price may be of any age.
            if price is not None and as_of is not None:
                found[token] = Quote(price, as_of)
        return found
