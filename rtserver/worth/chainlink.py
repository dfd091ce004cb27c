"""Chainlink feeds as a small book: which to read at a block, and what their answers mean. Pure.

A feed is read when its aggregator has logged a new answer, when blocks were undone, and every minute besides:
not every feed logs, and an aggregator may be replaced behind its proxy. The reads ride in the block's own call.
Never decides whether another source is better.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ..domain.chain import Log
from ..domain.ids import Address
from ..protocols.addresses import checksum
from ..protocols.base import LogFilter, Plan
from .dollars import dollars
from .quotes import Quote

__all__ = ["ANSWER_UPDATED", "Feed", "FeedBook"]

# AnswerUpdated(int256 indexed current, uint256 indexed roundId, uint256 updatedAt).
# Source: smartcontractkit/chainlink contracts/src/v0.8/shared/interfaces/AggregatorInterface.sol.
ANSWER_UPDATED: Final = "0x0559884fd3a460db3073b7fc896cc77986f16e378210ded43186175bf646fc5f"
# AggregatorV3Interface.latestRoundData(), .decimals(); the proxy's aggregator().
_LATEST: Final = bytes.fromhex("feaf968c")
_DECIMALS: Final = bytes.fromhex("313ce567")
_AGGREGATOR: Final = bytes.fromhex("245a7bfc")
# Feeds have 8 or 18; more than a uint256 has digits is nonsense.
_MAX_DECIMALS: Final = 77
# Chain seconds between reads of a feed that logs nothing.
_REREAD_S: Final = 60
# A feed answers with confidence or not at all: its observers agreed by quorum.
_FULL: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """A token's feed in dollars. An answer older than `max_age_s` at the block is not used."""

    token: Address
    address: Address
    max_age_s: int


@dataclass(slots=True)
class _Read:
    """What a feed last said."""

    feed: Feed
    aggregator: Address | None = None
    decimals: int | None = None
    quote: Quote | None = None
    # Why there is no quote: for a person.
    fault: str | None = "not read yet"
    was_fresh: bool = False
    halves: list[bytes | None] = field(default_factory=list)


class FeedBook:
    """The feeds of one chain.

    Args:
        feeds: At most one for each token.
    """

    def __init__(self, feeds: Iterable[Feed]) -> None:
        self._reads = {feed.token: _Read(feed) for feed in feeds}
        self._due = set(self._reads)
        self._changed: set[Address] = set()
        self._filter = LogFilter(frozenset(), frozenset())
        self._watched: dict[Address, set[Address]] = {}
        self._read_at: int | None = None
        self._now = 0
        self._watch()

    @property
    def tokens(self) -> frozenset[Address]:
        """Return the tokens that have a feed."""
        return frozenset(self._reads)

    # --- the chain ------------------------------------------------------------------------------------

    def log_filter(self) -> LogFilter:
        """Return the logs that tell of new answers: from the aggregators, and from feeds that are none's proxy."""
        return self._filter

    def fold(self, logs: Iterable[Log]) -> None:
        """Mark the feeds that have a new answer in a block, and all of them once a minute."""
        for log in logs:
            if log.topics and log.topics[0] == ANSWER_UPDATED:
                self._due |= self._watched.get(log.address, set())
        if self._read_at is None or self._now - self._read_at >= _REREAD_S:
            self._due.update(self._reads)

    def mark_all(self) -> None:
        """Mark every feed: blocks were undone, or nothing that was read so far can be trusted."""
        self._due.update(self._reads)

    def is_settled(self) -> bool:
        """Return whether every marked feed has been read."""
        return not self._due

    def plan(self) -> Plan:
        """Return the reads for all marked feeds."""
        plan = Plan()
        for token in sorted(self._due):
            feed = self._reads[token].feed
            plan.add((token, "aggregator"), (feed.address, _AGGREGATOR))
            plan.add((token, "decimals"), (feed.address, _DECIMALS))
            plan.add((token, "latest"), (feed.address, _LATEST))
        return plan

    def absorb(self, plan: Plan, results: Sequence[bytes | None]) -> None:
        """Take the answers to a plan; None stands for a reverted call."""
        for (token, what), result in zip(plan.keys, results, strict=True):
            read = self._reads[token]
            if what != "latest":
                read.halves.append(result)
                continue
            aggregator, decimals = read.halves
            read.halves = []
            self._take(read, aggregator, decimals, result)
            self._due.discard(token)
        if plan.keys:
            self._read_at = self._now
            self._watch()

    def _take(self, read: _Read, aggregator: bytes | None, decimals: bytes | None, latest: bytes | None) -> None:
        address = None if aggregator is None or len(aggregator) < 32 else Address("0x" + aggregator[12:32].hex())
        read.aggregator = None if address is None or int(address, 16) == 0 else address
        places = None if decimals is None or len(decimals) < 32 else int.from_bytes(decimals[:32], "big")
        read.decimals = places if places is not None and places <= _MAX_DECIMALS else None
        before = read.quote
        read.quote, read.fault = _decode(read.decimals, latest)
        if read.quote != before:
            self._changed.add(read.feed.token)

    def _watch(self) -> None:
        watched: dict[Address, set[Address]] = {}
        for token, read in self._reads.items():
            watched.setdefault(read.aggregator or read.feed.address, set()).add(token)
        if watched != self._watched:
            self._watched = watched
            self._filter = LogFilter(frozenset(watched), frozenset({ANSWER_UPDATED}))

    # --- answers --------------------------------------------------------------------------------------

    def advance(self, now: int) -> set[Address]:
        """Move to a block's time; return the tokens whose quote has changed, or has aged past its limit or back."""
        self._now = now
        changed, self._changed = self._changed, set()
        for token, read in self._reads.items():
            is_fresh = self._is_fresh(read)
            if is_fresh is not read.was_fresh:
                read.was_fresh = is_fresh
                changed.add(token)
        return changed

    def _is_fresh(self, read: _Read) -> bool:
        quote = read.quote
        # A round of the future is of no chain that could be this one.
        return quote is not None and 0 <= self._now - quote.as_of <= read.feed.max_age_s

    def quote(self, token: Address) -> Quote | None:
        """Return what a token's feed says, None where it has none, it can't be used, or it is too old."""
        read = self._reads.get(token)
        return read.quote if read is not None and self._is_fresh(read) else None

    def describe(self) -> list[dict[str, Any]]:
        """Return each feed with the age of its answer in chain seconds, and why it is not used, if so."""
        return [
            {
                "token": checksum(token),
                "ageS": None if read.quote is None else self._now - read.quote.as_of,
                "limitS": read.feed.max_age_s,
                "fault": self.fault(token),
            }
            for token, read in sorted(self._reads.items())
        ]

    def fault(self, token: Address) -> str | None:
        """Return why a token's feed gives no quote, None where it does."""
        read = self._reads.get(token)
        if read is None:
            return "no feed"
        if read.quote is not None and not self._is_fresh(read):
            age_s = self._now - read.quote.as_of
            return f"answer is {age_s} s old, the limit is {read.feed.max_age_s} s" if age_s > 0 else "of the future"
        return read.fault


def _decode(decimals: int | None, latest: bytes | None) -> tuple[Quote | None, str | None]:
    """Return latestRoundData as a quote, or why it is none.

    `answeredInRound` is not looked at: it is deprecated, and newer aggregators just repeat the round.
    """
    if decimals is None:
        return None, "decimals() gives no usable answer"
    if latest is None:
        return None, "latestRoundData() reverts"
    if len(latest) < 160:
        return None, "latestRoundData() gives no usable answer"
    answer = int.from_bytes(latest[32:64], "big", signed=True)
    updated_at = int.from_bytes(latest[96:128], "big")
    if updated_at == 0:
        return None, "the round is not complete"
    price = dollars(answer, -decimals)
    if price is None:
        return None, f"answer {answer} is no price"
    return Quote(price, updated_at, _FULL), None
