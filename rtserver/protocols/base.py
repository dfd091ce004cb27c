"""What the engine asks of a protocol: a book of positions that says what to read and takes the answers.

A book is a state machine without I/O. Logs and wishes mark parts of it as stale, `plan` names the
contract reads that make them fresh, `absorb` takes the answers; this repeats until nothing is planned.
A cold load, a block, a gap and a reorganisation differ only in what they mark.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from ..domain.chain import Log
from ..domain.diff import JsonObject
from ..domain.ids import Address, BlockHash, ChainId, TokenId

__all__ = [
    "Adapter",
    "Book",
    "Call",
    "Evaluation",
    "Held",
    "HistoryQuery",
    "KnownDeployment",
    "LogFilter",
    "Patches",
    "Plan",
    "Prices",
    "QuotePool",
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
    """Past logs that a book needs to tell fees from owed principal: these tokens' events so far."""

    address: Address
    topics: tuple[tuple[str, ...], ...]
    token_ids: tuple[TokenId, ...]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownDeployment:
    """Where a protocol lives on a chain that is known by id; addresses in EIP-55 spelling."""

    chain_name: str
    factory: str
    position_manager: str
    stablecoins: tuple[str, ...]
    block_time_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """What a protocol's folder offers as `ADAPTER`: how to make its book, and where it is known to live."""

    kind: str
    build: "Callable[[ChainId, Address, Address, bytes | None, Sequence[Address]], Book]"
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

    def history_query(self) -> HistoryQuery | None:
        """Return past logs that are wanted, or None."""

    def absorb_history(self, query: HistoryQuery, logs: Sequence[Log] | None) -> None:
        """Take the answer to a history query; None where it could not be read."""

    def quotes(self) -> Mapping[Address, Sequence[QuotePool]]:
        """Return, for each token with a dollar pool that was read again, all its dollar pools."""

    def decimals(self, token: Address) -> int | None:
        """Return a token's decimals, None while unknown or unusable."""

    def is_settled(self) -> bool:
        """Return whether everything that a block touched has been read."""

    @property
    def tracked(self) -> Mapping[str, int]:
        """Return how much is tracked, by kind."""

    def owner_of(self, token_id: TokenId) -> Address | None:
        """Return a tracked position's owner."""

    def evaluate(self, prices: Prices, repriced: frozenset[Address]) -> Evaluation:
        """Return what changed for everything that was touched, and for holders of the repriced tokens."""

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

    def pool(self, pool: Address) -> JsonObject | None:
        """Return a pool as last evaluated, or None where it isn't one of this deployment's."""
