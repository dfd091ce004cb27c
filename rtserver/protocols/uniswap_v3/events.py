"""Event signatures of Uniswap v3 and fixed-layout decoding of their words. Decides nothing."""

from collections.abc import Mapping, Sequence
from typing import Final

from ...domain.errors import RetryableError
from ...domain.ids import Address, Tick

__all__ = [
    "BURN",
    "COLLECT_NFT",
    "COLLECT_POOL",
    "DECREASE_LIQUIDITY",
    "FLASH",
    "INCREASE_LIQUIDITY",
    "INITIALIZE",
    "MANAGER_TOPICS",
    "MINT",
    "POOL_CREATED",
    "POOL_TOPICS",
    "SWAP",
    "TRANSFER",
    "check_shape",
    "topic_address",
    "topic_int24",
    "word",
    "word_int24",
]

# Pool events. Source: Uniswap/v3-core contracts/interfaces/pool/IUniswapV3PoolEvents.sol.
SWAP: Final = "0xc42079f94a6350d7e6235f29174924f928cc2ac818eb64fed8004e115fbcca67"
MINT: Final = "0x7a53080ba414158be7ec69b987b5fb7d07dee101fe85488f0853ae16239d0bde"
BURN: Final = "0x0c396cd989a39f4459b5fa1aed6a9a8dcdbc45908acfd67e028cd568da98982c"
COLLECT_POOL: Final = "0x70935338e69775456a85ddef226c395fb668b63fa0115f5f20610b388e6ca9c0"
FLASH: Final = "0xbdbdb71d7860376ba52b25a5028beea23581364a40522f6bcfb86bb1f2dca633"
INITIALIZE: Final = "0x98636036cb66a9c19a37435efc1e90142190214e8abeb821bdba3f2990dd4c95"
# Position manager events. Source: v3-periphery contracts/interfaces/INonfungiblePositionManager.sol.
INCREASE_LIQUIDITY: Final = "0x3067048beee31b25b2f1681f88dac838c8bba36af25bfb2b7cf7473a5847e35f"
DECREASE_LIQUIDITY: Final = "0x26f6a048ee9138f2c0ce266f322cb99228e8d619ae2bff30c67f8dcf9d2377b4"
COLLECT_NFT: Final = "0x40d0efd1a53d60ecbf40971b9daf7dc90178c3aadc7aab1765632738fa8b8f01"
TRANSFER: Final = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"

# Factory event. Source: Uniswap/v3-core contracts/interfaces/IUniswapV3Factory.sol.
POOL_CREATED: Final = "0x783cca1c0412dd0d695e784568c96da2e9c22ff989357a2e8b1d9b2b4e6b7118"

POOL_TOPICS: Final = frozenset({SWAP, MINT, BURN, COLLECT_POOL, FLASH, INITIALIZE})
MANAGER_TOPICS: Final = frozenset({INCREASE_LIQUIDITY, DECREASE_LIQUIDITY, COLLECT_NFT, TRANSFER})


# How many topics and words each event has. What a node answers shorter is no such event.
_SHAPES: Final[Mapping[str, tuple[int, int]]] = {
    SWAP: (3, 5), MINT: (4, 4), BURN: (4, 3), COLLECT_POOL: (4, 3), FLASH: (3, 4), INITIALIZE: (1, 2),
    INCREASE_LIQUIDITY: (2, 3), DECREASE_LIQUIDITY: (2, 3), COLLECT_NFT: (2, 3), TRANSFER: (1, 0), POOL_CREATED: (4, 2),
}  # fmt: skip


def check_shape(topics: Sequence[str], data: str, shapes: Mapping[str, tuple[int, int]] = _SHAPES) -> None:
    """Raise RetryableError for a log that can't be the event that it names; `shapes`: topic → (topics, words)."""
    shape = shapes.get(topics[0], (1, 0)) if topics else (1, 0)
    if len(topics) < shape[0] or len(data) < 64 * shape[1]:
        raise RetryableError(f"a log of {topics[0] if topics else 'no topic'} is too short")


def word(data: str, index: int) -> int:
    """Return the unsigned 256-bit word at `index` of hex data without 0x."""
    return int(data[64 * index : 64 * index + 64], 16)


def word_int24(data: str, index: int) -> Tick:
    """Return the word at `index` as a tick: int24, sign-extended to 256 bits by the ABI."""
    value = int(data[64 * index + 58 : 64 * index + 64], 16)
    return Tick(value - (1 << 24) if value >> 23 else value)


def topic_int24(topic: str) -> Tick:
    """Return an indexed int24."""
    value = int(topic[-6:], 16)
    return Tick(value - (1 << 24) if value >> 23 else value)


def topic_address(topic: str) -> Address:
    """Return an indexed address."""
    return Address("0x" + topic[26:].lower())
