"""What positions have earned over time: a port that app joins, and what REST says where nobody reckons it."""

from collections.abc import Mapping
from typing import Final, Protocol

from ..domain.diff import JsonValue
from ..domain.ids import ChainId, TokenId

__all__ = ["UNKNOWN", "Earnings", "NoEarnings"]

# Each of these is null rather than wrong.
UNKNOWN: Final[Mapping[str, JsonValue]] = {
    "apr": None,
    "aprs": None,
    "poolApr": None,
    "pnl": None,
    "earnedAmountUSD": None,
}


class Earnings(Protocol):
    """Reckons what positions have earned."""

    def earned(self, chain_id: ChainId, protocol: str, token_id: TokenId) -> Mapping[str, JsonValue]:
        """Return what is known of a position, by the names in UNKNOWN; those that are missing are not known.

        `apr` is the rate of one window as text ("15.5%"), `aprs` the windows by name, `poolApr` the pool's own,
        `pnl` profit and loss, `earnedAmountUSD` fees and rewards over life. As of the head; waits for nothing.
        """


class NoEarnings:
    """Knows nothing."""

    def earned(self, chain_id: ChainId, protocol: str, token_id: TokenId) -> Mapping[str, JsonValue]:
        """Return nothing."""
        return {}
