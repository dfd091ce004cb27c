"""An owner's positions page by page, with the sums over all of them. Pure.

A page begins after a position, not at a number: what is minted or burned between two pages neither repeats nor
hides another one. Sums over thousands of positions are made once a change of the owner's, not once a page.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ..domain.diff import JsonObject, State
from ..domain.errors import ClientError
from ..domain.text import cents_text
from ..hub.stream import Stream
from ..obs.metrics import Metrics

__all__ = ["DEFAULT_LIMIT", "MAX_LIMIT", "Overview", "Summaries", "parse_limit", "parse_place"]

# Most owners have fewer, and get one page: 200 positions are 250 KB.
DEFAULT_LIMIT: Final = 200
# More than a megabyte of JSON is a block's time for everyone else.
MAX_LIMIT: Final = 1000
# Owners whose sums are kept: with 9,000 positions that is 2 MB each.
_KEPT: Final = 8
# Below this the sums are made anew: that is quicker than keeping them tidy.
_WORTH_KEEPING: Final = 200

# Where a position stands among its owner's: by id, and of two protocols' by name.
Place = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Overview:
    """All positions of an owner in order, and their sums; null where no part of a sum is known."""

    places: list[Place]
    total_value_usd: str | None
    total_fees_usd: str | None
    total_rewards_usd: str | None
    unpriced: int
    active: int
    staked: int

    def page(self, state: State, after: Place | None, limit: int) -> tuple[list[JsonObject], str | None]:
        """Return at most `limit` positions after a place, and from where the next page goes on; None at the end."""
        start = 0 if after is None else bisect_right(self.places, after)
        places = self.places[start : start + limit]
        following = _key(places[-1]) if start + limit < len(self.places) else None
        return [state[_key(place)] for place in places], following


def _key(place: Place) -> str:
    return f"{place[1]}:{place[0]}"


@dataclass(slots=True)
class _Sum:
    """Known parts of a sum, in cents."""

    cents: int = 0
    known: int = 0

    def add(self, text: object) -> bool:
        """Add a value such as "12.50"; return whether it is known."""
        if not isinstance(text, str):
            return False
        self.cents += int(text.replace(".", ""))
        self.known += 1
        return True

    def text(self, *, is_empty: bool) -> str | None:
        """Return the sum; nothing of nothing is 0, nothing known of something is null."""
        return cents_text(self.cents) if self.known or is_empty else None


class Summaries:
    """The overviews of the owners last asked for.

    Args:
        metrics: Where hits are counted, of owners whose overview is worth keeping.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._hits = metrics.cache_hits.labels("summaries")
        self._misses = metrics.cache_misses.labels("summaries")
        self._kept: OrderedDict[str, tuple[str, int, Overview]] = OrderedDict()

    def overview(self, stream: Stream) -> Overview:
        """Return the overview of an owner's channel as it is now."""
        kept = self._kept.get(stream.channel)
        if kept is not None and kept[:2] == (stream.epoch, stream.seq):
            self._kept.move_to_end(stream.channel)
            self._hits.inc()
            return kept[2]
        found = _overview(stream.state)
        if len(found.places) > _WORTH_KEEPING:
            self._misses.inc()
            self._kept[stream.channel] = (stream.epoch, stream.seq, found)
            self._kept.move_to_end(stream.channel)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        else:
            self._kept.pop(stream.channel, None)
        return found


def _overview(state: Mapping[str, JsonObject]) -> Overview:
    value, fees, rewards = _Sum(), _Sum(), _Sum()
    places: list[Place] = []
    unpriced = active = staked = 0
    for key, position in state.items():
        protocol, _, token_id = key.rpartition(":")
        places.append((int(token_id), protocol))
        unpriced += not value.add(position["valueUSD"])
        fees.add(position["feesUSD"])
        rewards.add(position.get("rewardsUSD"))
        active += position["isActive"] is True
        staked += position["isStaked"] is True
    places.sort()
    return Overview(
        places=places,
        total_value_usd=value.text(is_empty=not places),
        total_fees_usd=fees.text(is_empty=not places),
        total_rewards_usd=rewards.text(is_empty=not staked),
        unpriced=unpriced,
        active=active,
        staked=staked,
    )


def parse_limit(text: str | None) -> int:
    """Return how many positions a page has.

    Raises:
        ClientError: `bad_request`.
    """
    if text is None:
        return DEFAULT_LIMIT
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= MAX_LIMIT):
        raise ClientError("bad_request", f"limit must be a number from 1 to {MAX_LIMIT}, got {text[:40]!r}")
    return int(text)


def parse_place(text: str | None) -> Place | None:
    """Return the place after which a page begins; that position need not exist any more.

    Raises:
        ClientError: `bad_request`.
    """
    if text is None:
        return None
    protocol, _, token_id = text.rpartition(":")
    # 2^256 has 78 digits.
    if not (protocol and token_id.isascii() and token_id.isdigit() and len(token_id) <= 78):
        raise ClientError("bad_request", f"after must be what next said, such as uniswap-v3:12; got {text[:80]!r}")
    return int(token_id), protocol
