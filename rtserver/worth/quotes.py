"""What sources say of a token's price, and what is served of it. Values only; decides nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ..domain.chain import BlockRef
from ..domain.diff import JsonObject
from ..domain.ids import Address, ChainId
from ..protocols.addresses import checksum
from .dollars import Dollars

__all__ = [
    "CHAINLINK",
    "COINGECKO",
    "DEFAULT_ORDER",
    "DEFILLAMA",
    "HTTP_SOURCES",
    "NOBODY",
    "PAR",
    "POOLS",
    "SOURCES",
    "Price",
    "PriceSnapshot",
    "Quote",
    "confidence_text",
]

CHAINLINK: Final = "chainlink"
POOLS: Final = "pools"
COINGECKO: Final = "coingecko"
DEFILLAMA: Final = "defillama"
# A dollar token that no source prices counts as one dollar, and says so.
PAR: Final = "par"
# Where tokens are counted by source: those without a price.
NOBODY: Final = "none"

HTTP_SOURCES: Final = (COINGECKO, DEFILLAMA)
# Oracles have many observers and a duty to be on time; pools are exact but move within one block; the others
# are a minute late by nature.
DEFAULT_ORDER: Final = (CHAINLINK, POOLS, *HTTP_SOURCES)
SOURCES: Final = frozenset(DEFAULT_ORDER)


@dataclass(frozen=True, slots=True)
class Quote:
    """What one source says: dollars for a whole token, as of a time in seconds, confidence in hundredths.

    Confidence is None where the source states none. Time 0 is of no time: an assumption, not an observation.
    """

    price: Dollars
    as_of: int
    confidence: int | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """A token's price at a block: the first fresh source's word, whole.

    `disputed` says that another fresh source is further away than the limit; `others` are then their words. They
    are never averaged: the mean of a right and a wrong price is a wrong price that nobody can recognise.
    """

    token: Address
    source: str | None = None
    quote: Quote | None = None
    others: Mapping[str, Quote] = field(default_factory=dict)

    @property
    def disputed(self) -> bool:
        """Return whether sources contradict each other."""
        return bool(self.others)

    def view(self, chain_id: ChainId) -> JsonObject:
        """Return what clients are shown; no float, and null where nothing is known."""
        quote = self.quote
        return {
            "token": checksum(self.token),
            "chainId": chain_id,
            "priceUSD": None if quote is None else quote.price.text,
            "source": self.source,
            "asOf": quote.as_of or None if quote is not None else None,
            "confidence": None if quote is None else confidence_text(quote.confidence),
            "disputed": self.disputed,
            "others": {source: other.price.text for source, other in self.others.items()},
        }


@dataclass(frozen=True, slots=True)
class PriceSnapshot:
    """All prices at one block. Never changes: the next block has another one."""

    block: BlockRef
    timestamp: int
    prices: Mapping[Address, Price] = field(default_factory=dict)


def confidence_text(hundredths: int | None) -> str | None:
    """Return a confidence as a decimal from 0 to 1: 93 → "0.93"."""
    return None if hundredths is None else f"{hundredths // 100}.{hundredths % 100:02d}"
