"""Events and reads of Uniswap's v3-staker, by fixed layout. Decides nothing.

Source: Uniswap/v3-staker 1.0.2 contracts/interfaces/IUniswapV3Staker.sol.
"""

from dataclasses import dataclass
from typing import Final

from eth_utils.crypto import keccak

from ....domain.chain import Log
from ....domain.ids import Address, Tick, TokenId
from ...addresses import raw
from ...base import Call
from ...staking import Deposit
from ..events import check_shape, topic_address, word

__all__ = [
    "DEPOSIT_TRANSFERRED",
    "INCENTIVE_CREATED",
    "INCENTIVE_ENDED",
    "REWARD_CLAIMED",
    "TOKEN_STAKED",
    "TOKEN_UNSTAKED",
    "TOPICS",
    "IncentiveId",
    "IncentiveKey",
    "check",
    "claim_call",
    "created_key",
    "decode_deposit",
    "decode_inside",
    "decode_ticks",
    "decode_words",
    "deposit_call",
    "incentive_call",
    "inside_call",
    "stake_call",
]

# "0x" and 64 lower-case hex digits: keccak of the key.
IncentiveId = str

DEPOSIT_TRANSFERRED: Final = "0xcdfc765b85e1048bee3c6a0f9d1c91fc7c4631f5fe5745a55fc6843db5c3260f"
TOKEN_STAKED: Final = "0x3fe90ccd0a34e28f2b4b7a1e8323415ed9dd595f4eec5dfd461d18c2df336dbd"
TOKEN_UNSTAKED: Final = "0xe1ba67e807ae0efa0a9549f9520ddc15c27f0a4dae2bc045e800ca66a940778f"
REWARD_CLAIMED: Final = "0x106f923f993c2149d49b4255ff723acafa1f2d94393f561d3eda32ae348f7241"
INCENTIVE_CREATED: Final = "0xa876344e28d4b5191ad03bc0d43f740e3695827ab0faccac739930b915ef8b02"
INCENTIVE_ENDED: Final = "0x65124e6175aa9904f40735e87e2a37c76e87a609b855287bb4d1aba8257d9763"

# How many topics and words each event has.
_SHAPES: Final = {
    DEPOSIT_TRANSFERRED: (4, 0), TOKEN_STAKED: (3, 1), TOKEN_UNSTAKED: (3, 0), REWARD_CLAIMED: (2, 1),
    INCENTIVE_CREATED: (3, 4), INCENTIVE_ENDED: (2, 1),
}  # fmt: skip
TOPICS: Final = frozenset(_SHAPES)

_DEPOSITS: Final = bytes.fromhex("b02c43d0")
_STAKES: Final = bytes.fromhex("c36c1ea5")
_INCENTIVES: Final = bytes.fromhex("60777795")
_REWARDS: Final = bytes.fromhex("e70b9e27")
# Of the pool: snapshotCumulativesInside(int24,int24).
_INSIDE: Final = bytes.fromhex("a38807f2")


@dataclass(frozen=True, slots=True, kw_only=True)
class IncentiveKey:
    """What an incentive is: the contract keeps no more than the hash of it. Times in seconds, `end` exclusive."""

    id: IncentiveId
    reward_token: Address
    pool: Address
    start: int
    end: int
    refundee: Address


def check(log: Log) -> None:
    """Raise RetryableError for a log that can't be the event that it names."""
    check_shape(log.topics, log.data, _SHAPES)


def created_key(log: Log) -> IncentiveKey:
    """Return the key of a created incentive.

    Source: v3-staker contracts/libraries/IncentiveId.sol, compute.
    """
    token, pool = topic_address(log.topics[1]), topic_address(log.topics[2])
    words = bytes.fromhex(log.topics[1][2:] + log.topics[2][2:] + log.data[: 3 * 64])
    return IncentiveKey(
        id="0x" + keccak(words).hex(),
        reward_token=token,
        pool=pool,
        start=word(log.data, 0),
        end=word(log.data, 1),
        refundee=Address("0x" + log.data[2 * 64 + 24 : 3 * 64].lower()),
    )


def deposit_call(staker: Address, token_id: TokenId) -> Call:
    """Return the call of deposits(tokenId)."""
    return staker, _DEPOSITS + token_id.to_bytes(32, "big")


def stake_call(staker: Address, token_id: TokenId, incentive: IncentiveId) -> Call:
    """Return the call of stakes(tokenId, incentiveId)."""
    return staker, _STAKES + token_id.to_bytes(32, "big") + bytes.fromhex(incentive[2:])


def incentive_call(staker: Address, incentive: IncentiveId) -> Call:
    """Return the call of incentives(incentiveId)."""
    return staker, _INCENTIVES + bytes.fromhex(incentive[2:])


def claim_call(staker: Address, token: Address, owner: Address) -> Call:
    """Return the call of rewards(rewardToken, owner)."""
    return staker, _REWARDS + b"\0" * 12 + raw(token) + b"\0" * 12 + raw(owner)


def inside_call(pool: Address, lower: Tick, upper: Tick) -> Call:
    """Return the call of a pool's snapshotCumulativesInside(lower, upper)."""
    return pool, _INSIDE + lower.to_bytes(32, "big", signed=True) + upper.to_bytes(32, "big", signed=True)


def decode_inside(result: bytes | None) -> int | None:
    """Return secondsPerLiquidityInsideX128, None where a tick is not initialised."""
    return None if result is None or len(result) < 96 else int.from_bytes(result[32:64], "big")


def decode_ticks(result: bytes | None) -> tuple[Tick, Tick]:
    """Return the ticks of a deposit's range; zeros where there is no deposit."""
    if result is None or len(result) < 128:
        return Tick(0), Tick(0)
    lower, upper = (int.from_bytes(result[end - 3 : end], "big", signed=True) for end in (96, 128))
    return Tick(lower), Tick(upper)


def decode_words(result: bytes | None) -> tuple[int, int]:
    """Return the first two words, the second 0 where there is one only; zeros where the call gave nothing."""
    if result is None or len(result) < 32:
        return 0, 0
    return int.from_bytes(result[:32], "big"), int.from_bytes(result[32:64], "big")


def decode_deposit(result: bytes | None) -> Deposit:
    """Return who deposited an NFT, and in how many incentives it is staked."""
    owner, stakes = decode_words(result)
    return Deposit(Address(f"0x{owner:040x}") if owner else None, stakes)
