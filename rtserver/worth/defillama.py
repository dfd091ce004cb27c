"""DefiLlama's `/prices/current/{coins}` and `/prices/historical/{timestamp}/{coins}`: what to ask, and what the answers
mean. Pure.

Source: DefiLlama/api-docs, defillama-openapi-free.json. Each price has its time and a confidence from 0 to 1.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

from ..domain.ids import Address, ChainId
from .dollars import parse_dollars
from .http_source import Ask, MalformedPrices, read_object, read_seconds
from .quotes import DEFILLAMA, Quote

__all__ = ["NEAR_S", "PLATFORMS", "DefiLlama"]

# How far a price of then may be from its time, in seconds: DefiLlama keeps about one an hour of most coins.
NEAR_S: Final = 3_600
# Hundredths: a price of then that the source doubts more is none. It goes into sums without its confidence.
_SURE: Final = 90

# Source: DefiLlama's names of chains, api.llama.fi/chains.
PLATFORMS: Final[Mapping[int, str]] = {
    1: "ethereum",
    10: "optimism",
    56: "bsc",
    137: "polygon",
    8453: "base",
    42161: "arbitrum",
}


class DefiLlama:
    """The requests and answers; a paid account's key is part of the base URL.

    Args:
        platforms: DefiLlama's names of chains, by chain id.
    """

    name = DEFILLAMA

    def __init__(self, platforms: Mapping[int, str]) -> None:
        self._platforms = dict(platforms)

    def serves(self, chain_id: ChainId) -> bool:
        """Return whether the source knows a chain."""
        return chain_id in self._platforms

    def ask(self, chain_id: ChainId, tokens: Sequence[Address]) -> Ask:
        """Return the request for some tokens of a chain."""
        platform = self._platforms[chain_id]
        return Ask("/prices/current/" + ",".join(f"{platform}:{token}" for token in tokens), {}, {})

    def ask_then(self, chain_id: ChainId, tokens: Sequence[Address], at: int) -> Ask:
        """Return the request for prices of a time in seconds; answered like one for prices of now.

        The source looks for a price on either side of the time: no further away than `NEAR_S`.
        """
        platform = self._platforms[chain_id]
        coins = ",".join(f"{platform}:{token}" for token in tokens)
        return Ask(f"/prices/historical/{at}/{coins}", {"searchWidth": f"{NEAR_S // 60}m"}, {})

    def read_then(self, chain_id: ChainId, tokens: Sequence[Address], at: int, body: bytes) -> dict[Address, Quote]:
        """Return the prices in its answer: near enough, and not doubted by the source itself.

        Raises:
            MalformedPrices: It is no answer of this interface.
        """
        return {
            token: quote
            for token, quote in self.read(chain_id, tokens, body).items()
            if abs(quote.as_of - at) <= NEAR_S and (quote.confidence is None or quote.confidence >= _SURE)
        }

    def read(self, chain_id: ChainId, tokens: Sequence[Address], body: bytes) -> dict[Address, Quote]:
        """Return the prices in an answer; a token that it does not price is absent.

        Raises:
            MalformedPrices: It is no answer of this interface.
        """
        coins = read_object(body).get("coins")
        if not isinstance(coins, dict):
            raise MalformedPrices("no coins")
        found = {}
        asked = {f"{self._platforms[chain_id]}:{token}".lower(): token for token in tokens}
        for name, entry in coins.items():
            token = asked.get(name.lower())
            if token is None or not isinstance(entry, dict):
                continue
            price, as_of = parse_dollars(entry.get("price")), read_seconds(entry.get("timestamp"))
            if price is not None and as_of is not None:
                found[token] = Quote(price, as_of, _hundredths(entry.get("confidence")))
        return found


def _hundredths(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)) or not 0 <= value <= 1:
        return None
    return int(value * 100)
