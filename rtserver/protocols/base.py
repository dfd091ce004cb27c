"""What the engine asks of a protocol: a book of positions that says what to read and takes the answers.

A book is a state machine without I/O. Logs and wishes mark parts of it as stale, `plan` names the
contract reads that make them fresh, `absorb` takes the answers; this repeats until nothing is planned.
A cold load, a block, a gap and a reorganisation differ only in what they mark.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from ..domain.chain import Log
from ..domain.diff import JsonObject, State
from ..domain.ids import Address, BlockHash, ChainId, TokenId
from .earning import (
    Earnings,
    Life,
    LifeEvent,
    PastAnswer,
    PastQuery,
    PastSample,
    PoolWindow,
    Sample,
    ThenQuery,
    Window,
)

__all__ = [
    "Adapter",
    "Book",
    "Builder",
    "Call",
    "Earnings",
    "Evaluation",
    "Held",
    "HistoryQuery",
    "KnownDeployment",
    "Life",
    "LifeEvent",
    "LogFilter",
    "PastAnswer",
    "PastQuery",
    "PastSample",
    "Patches",
    "Plan",
    "PoolWindow",
    "Prices",
    "QuotePool",
    "Sample",
    "ThenQuery",
    "Window",
    "patches_with",
]

# (contract, calldata): one static call.
Call: TypeAlias = tuple[Address, bytes]
# US cents per smallest unit of a token, times 2^128, rounded down; a token without a price is absent.
Prices: TypeAlias = Mapping[Address, int]


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Logs that a book wants: from these contracts, with one of these first topics."""

    addresses: frozenset[Address]
    topics: frozenset[str]


@dataclass(slots=True)
class Plan:
    """Reads to do, all at one block; `keys` tells `absorb` what each answer is."""

    calls: list[Call] = field(default_factory=list)
    keys: list[Any] = field(default_factory=list)

    def add(self, key: Any, call: Call) -> None:
        """Add one read."""
        self.keys.append(key)
        self.calls.append(call)


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """Past logs that a book needs: of this contract, with these topics, an empty place standing for any.

    `token_ids` are the positions that a query is for, `turn` says how often blocks had left the chain when it was
    made; both are the book's own notes.
    """

    address: Address
    topics: tuple[tuple[str, ...], ...]
    token_ids: tuple[TokenId, ...] = ()
    turn: int = 0


@dataclass(frozen=True, slots=True)
class QuotePool:
    """A pool as the price of its tokens sees it: raw reserves stand for depth."""

    pool: Address
    token0: Address
    token1: Address
    sqrt_price: int
    liquidity: int


class Held(Protocol):
    """A position, as far as an engine has to know it to tell which channels show it."""

    @property
    def token_id(self) -> TokenId:
        """Return the NFT's id."""

    @property
    def owner(self) -> Address:
        """Return who holds the NFT."""


@dataclass(slots=True)
class Patches:
    """Patches as text: the i-th is of the i-th position. All have the same fields, see `EncodedPatch`."""

    positions: list[Held] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def patches_with(patches: dict[int, Patches], fields: int) -> Patches:
    """Return the patches that have these fields; new and empty where there were none."""
    found = patches.get(fields)
    if found is None:
        found = patches[fields] = Patches()
    return found


@dataclass(slots=True)
class Evaluation:
    """What evaluating a book changed; `patches`, by the fields they have, only touch objects known before.

    `moved` names the positions whose owner changed: (previous owner, new owner). A pool that is no more is None.
    """

    sets: dict[TokenId, JsonObject] = field(default_factory=dict)
    patches: dict[int, Patches] = field(default_factory=dict)
    removed: dict[TokenId, Address] = field(default_factory=dict)
    moved: dict[TokenId, tuple[Address, Address]] = field(default_factory=dict)
    pools: dict[Address, JsonObject | None] = field(default_factory=dict)
    # What owners can claim, by key; only of owners for whom it changed.
    claims: dict[Address, State] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownDeployment:
    """Where a protocol lives on a chain that is known by id; addresses in EIP-55 spelling.

    None of its contracts is older than `first_block`.
    """

    chain_name: str
    factory: str
    position_manager: str
    stablecoins: tuple[str, ...]
    block_time_s: float
    staker: str | None = None
    first_block: int | None = None


class Builder(Protocol):
    """Makes a deployment's book."""

    def __call__(
        self,
        chain_id: ChainId,
        factory: Address,
        position_manager: Address,
        init_code_hash: bytes | None,
        stablecoins: Sequence[Address],
        *,
        hops: Sequence[Address] = (),
        staker: Address | None = None,
        rewards_every_s: float = 0.0,
        looks_back: bool = False,
        deviation_bps: int = 200,
    ) -> "Book":
        """Return the book.

        Args:
            chain_id: The chain.
            factory: Who deploys the pools.
            position_manager: Whose NFTs the positions are.
            init_code_hash: Of the factory's pools, where it isn't the usual one.
            stablecoins: Tokens that count as one dollar.
            hops: Tokens through which others are priced where they have no dollar pool.
            staker: The contract in which positions are staked, None where there is none.
            rewards_every_s: Chain seconds between two pushes of rewards that grew by time alone; 0 is each block.
            looks_back: Whether nodes are asked for the state of a week ago, so that windows begin before the server.
            deviation_bps: From where on a pool's price deviates from that of its tokens, in hundredths of a percent.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """What a protocol's folder offers as `ADAPTER`: how to make its book, and where it is known to live.

    `build` takes the chain, factory, position manager and init code hash (None for the protocol's own), then the
    dollar tokens and the tokens that others may be priced through.
    """

    kind: str
    build: Builder
    deployments: Mapping[int, KnownDeployment]


class Book(Protocol):
    """The positions of one protocol deployment on one chain."""

    kind: str

    def log_filter(self) -> LogFilter:
        """Return which logs the next block's query must hold."""

    def fold(self, block_hash: BlockHash, logs: Sequence[Log]) -> None:
        """Mark what a block's logs touched and remember it, so that the block can be undone."""

    def unwind(self, block_hashes: Iterable[BlockHash]) -> None:
        """Mark what these blocks had touched, newest first: they left the chain."""

    def forget(self, block_hash: BlockHash) -> None:
        """Drop the memory of a block that is too deep to be undone."""

    def remembered(self) -> Sequence[BlockHash]:
        """Return the blocks that can be undone."""

    def mark_all(self) -> None:
        """Mark everything: nothing that was read so far can be trusted."""

    def keep(self, *, whole: bool) -> dict[str, Any]:
        """Return the facts that the next process needs, as JSON by key: those that changed since the last time.

        None stands for a fact that is no more; `whole` asks for all facts. Only while everything is settled.
        """

    def restore(self, facts: Mapping[str, Any], dropped: Sequence[BlockHash], at: BlockHash) -> None:
        """Begin from all that an earlier process kept, all of it stale, as of its newest block that still counts.

        `dropped` are the blocks after `at` that left the chain since, newest first. Comes after the wishes and
        before anything is read. ValueError where these are no facts; nothing was taken then.
        """

    def restored_topics(self) -> tuple[Address, tuple[str, ...]]:
        """Return whose logs (contract, first topics) have to be folded after `restore`."""

    def check(self, logs: Iterable[Log]) -> None:
        """Raise RetryableError where `fold` would refuse a log."""

    def plan(self, load_budget: int) -> Plan:
        """Return the reads for all that is stale, and at most `load_budget` reads for what was never read."""

    def absorb(self, plan: Plan, results: Sequence[bytes | None]) -> None:
        """Take the answers to a plan; None stands for a reverted call."""

    def history_query(self, *, is_late: bool = False) -> HistoryQuery | None:
        """Return past logs that are wanted, or None; `is_late` asks for those that no channel waits for.

        One of each kind may be under way at a time.
        """

    def absorb_history(self, query: HistoryQuery, logs: Sequence[Log] | None) -> None:
        """Take the answer to a history query; None where it could not be read."""

    def past_query(self) -> PastQuery | None:
        """Return reads at an earlier block that are wanted, or None."""

    def absorb_past(self, query: PastQuery, answer: PastAnswer | None) -> None:
        """Take their answer; None where nobody keeps that block's state, or the block is not on the chain."""

    def quotes(self) -> Mapping[Address, Sequence[QuotePool] | None]:
        """Return each token whose pools or decimals were read again, with all its pools against a dollar or a hop.

        None for a token that no tracked pool holds any more. Each is told once.
        """

    def decimals(self, token: Address) -> int | None:
        """Return a token's decimals, None while unknown or unusable."""

    def is_settled(self) -> bool:
        """Return whether everything that a block touched has been read."""

    @property
    def tracked(self) -> Mapping[str, int]:
        """Return how much is tracked, by kind."""

    @property
    def events(self) -> int:
        """Return how many events of positions are kept one by one; walks all positions, 0.05 µs each."""

    def owner_of(self, token_id: TokenId) -> Address | None:
        """Return a tracked position's owner."""

    def evaluate(self, prices: Prices, repriced: frozenset[Address], now: int) -> Evaluation:
        """Return what changed for everything that was touched, for holders of the repriced tokens, and by time.

        `now` is the block's timestamp in seconds.
        """

    def want_position(self, token_id: TokenId) -> None:
        """Track a position from now on."""

    def want_owner(self, owner: Address) -> None:
        """Track all positions of an owner from now on."""

    def want_pool(self, pool: Address) -> None:
        """Track a pool from now on."""

    def unwant_position(self, token_id: TokenId) -> None:
        """Undo `want_position`."""

    def unwant_owner(self, owner: Address) -> None:
        """Undo `want_owner`."""

    def unwant_pool(self, pool: Address) -> None:
        """Undo `want_pool`."""

    def position_ready(self, token_id: TokenId) -> bool:
        """Return whether the position is fully read (or known not to exist)."""

    def owner_ready(self, owner: Address) -> bool:
        """Return whether all of an owner's positions are fully read."""

    def pool_ready(self, pool: Address) -> bool:
        """Return whether the pool is fully read (or known not to exist)."""

    def position(self, token_id: TokenId) -> JsonObject | None:
        """Return a position as last evaluated, or None where it doesn't exist."""

    def positions_of(self, owner: Address) -> dict[TokenId, JsonObject]:
        """Return an owner's positions as last evaluated."""

    def price_of(self, token_id: TokenId) -> str | None:
        """Return the price in a position's pool as last evaluated, None where it isn't known."""

    def take_turned(self) -> dict[TokenId, bool | None]:
        """Return whether positions are in range of which that changed since this was last asked, or that are new.

        None stands for one that is tracked no more.
        """

    def pool(self, pool: Address) -> JsonObject | None:
        """Return a pool as last evaluated, or None where it isn't one of this deployment's."""

    def claims_of(self, owner: Address) -> State | None:
        """Return what an owner can claim, by key, as last evaluated; None while it is unread."""

    # --- what was earned ------------------------------------------------------------------------------

    def samples(self, token_ids: Iterable[TokenId]) -> list[Sample]:
        """Return what these positions are, as last evaluated; those that aren't tracked or fully read are left out."""

    def take_resized(self) -> set[TokenId]:
        """Return the positions whose liquidity changed since this was last asked, also by a reorganisation."""

    def life(self, token_id: TokenId) -> Life | None:
        """Return what went into a position and came out of it; None while its past is unknown."""

    def want_prices(self, token_id: TokenId) -> bool:
        """Find out what a position's tokens were worth at its own events; return whether that, or they, are still read.

        By `past_query`, and by `then_query` what is not to be had so.
        """

    def expect_then(self) -> None:
        """Note that somebody asks for `then_query`."""

    def then_query(self) -> ThenQuery | None:
        """Return prices of an earlier time that no block's state told, or None."""

    def absorb_then(self, query: ThenQuery, prices: Prices, source: str) -> None:
        """Take what is known of them and who said so; those that are missing stay unknown."""

    def earnings(self, token_id: TokenId) -> Earnings | None:
        """Return what a position's rates are computed from, as last evaluated; None where it isn't fully read."""

    def await_seeds(self) -> None:
        """Look for nothing older on the chain before a history has said what it has: `seed` is called for each."""

    def unseeded(self, limit: int) -> list[TokenId]:
        """Return positions whose windows begin with this process, and that may have older ones."""

    def seed(self, token_id: TokenId, samples: Sequence[PastSample]) -> None:
        """Begin a position's windows with what was kept of it, oldest first; it is unseeded no more."""
