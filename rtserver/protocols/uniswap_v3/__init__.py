"""Uniswap v3: NFT positions of the NonfungiblePositionManager."""

from collections.abc import Sequence

from ...domain.ids import Address, ChainId
from ..base import Adapter, KnownDeployment
from .book import UniswapV3Book
from .deployments import DEPLOYMENTS, POOL_INIT_CODE_HASH
from .staker import V3Staker

__all__ = ["ADAPTER"]


def _build(
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
) -> UniswapV3Book:
    return UniswapV3Book(
        chain_id=chain_id,
        factory=factory,
        position_manager=position_manager,
        init_code_hash=init_code_hash or POOL_INIT_CODE_HASH,
        stablecoins=stablecoins,
        hops=hops,
        staking=None if staker is None else V3Staker(staker),
        rewards_every_s=rewards_every_s,
        looks_back=looks_back,
        deviation_bps=deviation_bps,
    )


ADAPTER = Adapter(
    kind="uniswap-v3",
    build=_build,
    deployments={
        chain_id: KnownDeployment(
            chain_name=known.name,
            factory=known.factory,
            position_manager=known.position_manager,
            stablecoins=known.stablecoins,
            block_time_s=known.block_time_s,
            staker=known.staker,
            first_block=known.first_block,
        )
        for chain_id, known in DEPLOYMENTS.items()
    },
)
