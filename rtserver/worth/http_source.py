"""What an HTTP price source is: a request, and an answer that is checked before anything in it is believed. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Protocol

import orjson

from ..domain.errors import RetryableError
from ..domain.ids import Address, ChainId
from .quotes import Quote

__all__ = ["Ask", "HttpSource", "MalformedPrices", "read_object", "read_seconds"]

# A time in seconds: later than any of these sources, and no milliseconds.
_EARLIEST: Final = 1_400_000_000
_LATEST: Final = 100_000_000_000


@dataclass(frozen=True, slots=True)
class Ask:
    """One GET: path under the base URL, query and headers. May hold a key: never logged."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


class HttpSource(Protocol):
    """A source's interface; see coingecko and defillama."""

    name: str

    def serves(self, chain_id: ChainId) -> bool:
        """Return whether the source knows a chain."""

    def ask(self, chain_id: ChainId, tokens: Sequence[Address]) -> Ask:
        """Return the request for some tokens of a chain."""

    def read(self, chain_id: ChainId, tokens: Sequence[Address], body: bytes) -> dict[Address, Quote]:
        """Return the prices in an answer; raises MalformedPrices."""


class MalformedPrices(RetryableError):
    """A source answered with something that its documentation does not have."""


def read_object(body: bytes) -> dict[str, Any]:
    """Return a JSON object with its fractions as Decimals.

    Raises:
        MalformedPrices: It is something else.
    """
    try:
        # Python's own parser keeps decimals exact, but a hundred thousand brackets overflow its stack: this one
        # counts them, and is too fast to notice.
        orjson.loads(body)
        value = json.loads(body, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise MalformedPrices(f"not JSON: {str(error)[:80]}") from error
    if not isinstance(value, dict):
        raise MalformedPrices("not a JSON object")
    return value


def read_seconds(value: object) -> int | None:
    """Return a time in whole seconds since the epoch, None where it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        return None
    return int(value) if _EARLIEST <= value <= _LATEST else None
