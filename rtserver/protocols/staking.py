"""What a book asks of contracts that hold positions for their owners and reward them.

Like a book a state machine without I/O, and part of one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..domain.chain import Log
from ..domain.diff import JsonObject
from ..domain.ids import Address, BlockHash, Liquidity, Tick, TokenId
from .base import Call, HistoryQuery, Plan
from .earning import PastAnswer, PastQuery

__all__ = ["Deposit", "Reward", "StakedRange", "Staking"]


@dataclass(frozen=True, slots=True)
class Deposit:
    """What a staking contract says of an NFT that it holds.

    `owner` is for whom it holds it, None where for nobody: sent there by mistake. `stakes` counts in how many
    places the NFT earns; it is staked if that is more than none, and else merely deposited.
    """

    owner: Address | None
    stakes: int


@dataclass(frozen=True, slots=True)
class StakedRange:
    """What of a staked position's pool its rewards may depend on, at a block.

    `seconds_inside` is seconds per liquidity inside the range, Q32.128 modulo 2^160.
    """

    pool: Address
    lower: Tick
    upper: Tick
    seconds_inside: int


@dataclass(frozen=True, slots=True)
class Reward:
    """What a position has earned in one place: an incentive, a gauge.

    `terms` is what never changes about it, as clients see it. `amount` is in the token's smallest unit, None
    where the contract's own answer reverts.
    """

    token: Address
    terms: JsonObject
    amount: int | None


class Staking(Protocol):
    """Contracts that hold positions for their owners and reward them: what a book asks of such a system.

    A state machine without I/O like a book, and part of one: the book reads `deposit_call` with each position
    and calls `track` with the answer, so ownership and `isStaked` are never older than the position itself.
    One more system (gauges, MasterChef) is one more implementation; the books stay as they are.
    """

    @property
    def holders(self) -> frozenset[Address]:
        """Return the contracts that hold the NFTs; their logs are wanted."""

    @property
    def topics(self) -> frozenset[str]:
        """Return the first topics of the logs that are wanted."""

    # --- whose it is, and whether it is staked --------------------------------------------------------

    def deposit_call(self, token_id: TokenId) -> Call:
        """Return the call that says for whom an NFT is held."""

    def deposit(self, result: bytes | None) -> Deposit:
        """Return what that call's answer means."""

    def track(self, token_id: TokenId, stakes: int, *, is_born: bool) -> None:
        """Keep the rewards of a position that was read with so many stakes; `is_born` says that it has no past."""

    def untrack(self, token_id: TokenId) -> None:
        """Forget a position."""

    def want_owner(self, owner: Address) -> None:
        """Find all positions held for an owner, and what it can claim, from now on."""

    def unwant_owner(self, owner: Address) -> None:
        """Undo `want_owner`."""

    def owner_ready(self, owner: Address) -> bool:
        """Return whether all positions held for an owner have been named by `absorb_history`."""

    # --- blocks ---------------------------------------------------------------------------------------

    def check(self, log: Log) -> None:
        """Raise RetryableError for a log of these contracts that can't be the event that it names."""

    def open(self, block_hash: BlockHash) -> None:
        """Begin the record of a block."""

    def fold(self, log: Log) -> tuple[TokenId, tuple[Address, ...]] | None:
        """Take a log; return the position that has to be read again and the owners it names, None if none."""

    def unwind(self, block_hashes: Iterable[BlockHash]) -> None:
        """Mark what these blocks had touched, newest first."""

    def forget(self, block_hash: BlockHash) -> None:
        """Drop the memory of a block that is too deep to be undone."""

    def mark_all(self) -> None:
        """Mark everything."""

    # --- reads ----------------------------------------------------------------------------------------

    def is_settled(self) -> bool:
        """Return whether everything that a block touched has been read."""

    def plan(self, plan: Plan) -> None:
        """Add the reads for all that is stale; each key is ("staking", …)."""

    def plan_loads(self, plan: Plan, limit: int) -> None:
        """Add reads for what was never read, up to a number of reads in all."""

    def absorb(self, key: Any, result: bytes | None) -> None:
        """Take one answer."""

    def history_query(self, *, is_late: bool) -> HistoryQuery | None:
        """Return past logs that are wanted, or None; what could not be read is wanted again later.

        `is_late` asks for those that nobody waits for.
        """

    def absorb_history(self, query: HistoryQuery, logs: Sequence[Log] | None) -> Mapping[Address, set[TokenId]]:
        """Take the answer to a history query; return positions that may be held for wanted owners."""

    @property
    def unread(self) -> int:
        """Return how much of the past is wanted that no channel waits for."""

    def past_query(self) -> PastQuery | None:
        """Return reads at an earlier block that are wanted, or None."""

    def absorb_past(self, query: PastQuery, answer: PastAnswer | None) -> bool:
        """Take their answer; return whether this asked for it."""

    # --- over a restart -------------------------------------------------------------------------------

    def keep(self, *, whole: bool) -> dict[str, Any]:
        """Return what only the past tells, as a book's `keep` does; the keys begin with "u:"."""

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Take what an earlier process kept; ValueError, TypeError or IndexError where that is none of it."""

    # --- values ---------------------------------------------------------------------------------------

    def reward_tokens(self) -> frozenset[Address]:
        """Return the tokens in which tracked positions and wanted owners are rewarded."""

    def take_changed(self, now: int) -> set[TokenId]:
        """Return the positions whose rewards changed by more than time since this was last asked.

        `now` is the timestamp of the block that is being evaluated, in seconds.
        """

    def is_known(self, token_id: TokenId) -> bool:
        """Return whether a position's rewards are known, or are known to be unreadable."""

    def rewards(self, token_id: TokenId, place: StakedRange, now: int) -> list[Reward] | None:
        """Return what a staked position has earned at a block, one entry a place; None while that is unknown."""

    def rates(self, token_id: TokenId, liquidity: Liquidity, now: int) -> Mapping[Address, int] | None:
        """Return what a staked position in range would earn in a year at the present rate, by token, raw units.

        `liquidity` is what its pool has in range. None while that is unknown.
        """

    def credited(self, token_id: TokenId) -> Mapping[Address, int] | None:
        """Return what was credited for a position when it was unstaked, by token, over its life; None where unknown."""

    def take_claims(self) -> set[Address]:
        """Return the wanted owners whose claims changed since this was last asked."""

    def claims(self, owner: Address) -> Mapping[Address, int] | None:
        """Return what an owner can claim, by token, without zeros; None while that is unread."""
