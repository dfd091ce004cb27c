"""Where Uniswap v3 and well-known dollar tokens live on the chains that rtserver knows by id."""

from dataclasses import dataclass
from typing import Final

__all__ = ["DEPLOYMENTS", "POOL_INIT_CODE_HASH", "KnownChain"]

# Source: Uniswap/v3-periphery contracts/libraries/PoolAddress.sol, POOL_INIT_CODE_HASH.
POOL_INIT_CODE_HASH: Final = bytes.fromhex("e34f199b19b2b4f47f68442619d555527d244f78a3297ea89325f843f87b8b54")


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownChain:
    """A chain's name, its Uniswap v3 contracts and its dollar tokens, in EIP-55 spelling.

    `staker` is the v3-staker of release 1.0.2, None on a chain for which its makers name none.

    `first_block` is the factory's: all others are given its address when they are made, so none is older. Source:
    Uniswap/v3-subgraph config/ethereum/config.json and config/polygon/config.json, startblock. Other chains' are
    not there, or later than what others tell; too late a block would lose events, so it is found out there.

    `block_time_s` is the usual time between blocks; limits on silence derive from it.
    """

    name: str
    factory: str
    position_manager: str
    stablecoins: tuple[str, ...]
    block_time_s: float
    staker: str | None = None
    first_block: int | None = None


_FACTORY: Final = "0x1F98431c8aD98523631AE4a59f267346ea31F984"
_MANAGER: Final = "0xC36442b4a4522E871399CD717aBDD847Ab11FE88"
# Source: Uniswap/v3-staker README.md, Deployments (Ethereum, Arbitrum One, Optimism, Base).
_STAKER: Final = "0xe34139463bA50bD61336E0c446Bd8C0867c6fE65"

# Source: developer documentation of Uniswap v3 (deployment addresses) and of each token's issuer.
DEPLOYMENTS: Final[dict[int, KnownChain]] = {
    1: KnownChain(
        name="ethereum",
        factory=_FACTORY,
        position_manager=_MANAGER,
        stablecoins=(
            "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48",  # USDC
            "0xdAC17F958D2ee523a2206206994597C13D831ec7",  # USDT
            "0x6B175474E89094C44Da98b954EedeAC495271d0F",  # DAI
        ),
        block_time_s=12,
        staker=_STAKER,
        first_block=12_369_621,
    ),
    10: KnownChain(
        name="optimism",
        factory=_FACTORY,
        position_manager=_MANAGER,
        stablecoins=(
            "0x0b2C639c533813f4Aa9D7837CAf62653d097Ff85",  # USDC
            "0x94b008aA00579c1307B0EF2c499aD98a8ce58e58",  # USDT
            "0xDA10009cBd5D07dd0CeCc66161FC93D7c9000da1",  # DAI
        ),
        block_time_s=2,
        staker=_STAKER,
    ),
    56: KnownChain(
        name="bnb",
        factory="0xdB1d10011AD0Ff90774D0C6Bb92e5C5c8b4461F7",
        position_manager="0x7b8A01B39D58278b5DE7e48c8449c9f4F5170613",
        stablecoins=(
            "0x55d398326f99059fF775485246999027B3197955",  # USDT
            "0x8AC76a51cc950d9822D68b83fE1Ad97B32Cd580d",  # USDC
        ),
        block_time_s=0.75,
    ),
    137: KnownChain(
        name="polygon",
        factory=_FACTORY,
        position_manager=_MANAGER,
        stablecoins=(
            "0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359",  # USDC
            "0x2791Bca1f2de4661ED88A30C99A7a9449Aa84174",  # USDC.e
            "0xc2132D05D31c914a87C6611C10748AEb04B58e8F",  # USDT
        ),
        block_time_s=2,
        first_block=22_757_547,
    ),
    8453: KnownChain(
        name="base",
        factory="0x33128a8fC17869897dcE68Ed026d694621f6FDfD",
        position_manager="0x03a520b32C04BF3bEEf7BEb72E919cf822Ed34f1",
        stablecoins=("0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913",),  # USDC
        block_time_s=2,
        staker="0x42bE4D6527829FeFA1493e1fb9F3676d2425C3C1",
    ),
    42161: KnownChain(
        name="arbitrum",
        factory=_FACTORY,
        position_manager=_MANAGER,
        stablecoins=(
            "0xaf88d065e77c8cC2239327C5EDb3A432268e5831",  # USDC
            "0xFd086bC7CD5C481DCC9C85ebE478A1C0b69FCbb9",  # USDT
            "0xDA10009cBd5D07dd0CeCc66161FC93D7c9000da1",  # DAI
        ),
        block_time_s=0.25,
        staker=_STAKER,
    ),
}
