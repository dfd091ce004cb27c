"""The chain of block_to_socket: the real contracts on a real node, a thousand positions, a market every block.

The market acts in the quiet middle between two blocks, on its caller's word, so that what it asks of the node
never falls into the milliseconds that are measured.
"""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from rtserver.demo.contracts import load_contracts
from rtserver.demo.lab import Lab, open_lab
from rtserver.demo.market import Market, MarketConfig
from rtserver.demo.ranges import RangeKind, choose_range
from rtserver.demo.rpc import RpcError
from rtserver.demo.toolchain import install_toolchain

__all__ = ["BenchLab", "open_bench_lab"]

# The house, the trader and the stranger come before the owners.
_OTHER_ACCOUNTS: Final = 3
# A block of mints: large enough to be quick, small enough to show that something happens.
_MINTS_A_BLOCK: Final = 100
_POSITIONS_AN_OWNER: Final = 10
# Weights of RangeKind in its order: tight, wide, above, below, full, shared.
_KINDS: Final = (30, 30, 8, 8, 9, 15)


@dataclass(slots=True)
class BenchLab:
    """The lab, its positions in order of minting, and what the market does."""

    lab: Lab
    market: Market
    token_ids: list[int]
    sent: int = 0
    refused: list[str] = field(default_factory=list)

    async def trade(self) -> None:
        """Take in what was mined and send the next block's transactions."""
        await self.lab.catch_up()
        for tx in self.market.decide():
            try:
                await self.lab.send(tx)
            except RpcError as error:
                self.refused.append(f"{tx.label}: {error.message}")
            else:
                self.sent += 1


@asynccontextmanager
async def open_bench_lab(
    *, positions: int, swaps: int, seed: int, tell: Callable[[str], None]
) -> AsyncIterator[BenchLab]:
    """Start a node, deploy, mint, and set the node to a block a second; end it afterwards."""
    toolchain = await install_toolchain(progress=tell)
    contracts = await load_contracts(toolchain)
    owners = max(positions // _POSITIONS_AN_OWNER, 2)
    tell(f"deploying the contracts, {owners} owners")
    async with open_lab(toolchain, contracts, owners=owners, accounts=owners + _OTHER_ACCOUNTS) as lab:
        token_ids = await _mint(lab, positions, seed, tell)
        config = MarketConfig(
            swaps_per_block=(swaps, swaps),
            changes_per_block=(1, 3),
            max_nfts=positions + 200,
            kept=frozenset(token_ids),
        )
        bench = BenchLab(lab, Market(lab, seed=seed, config=config), token_ids)
        await bench.trade()
        await lab.mine(allow_failures=True)
        await lab.node.set_block_time(1)
        yield bench


async def _mint(lab: Lab, positions: int, seed: int, tell: Callable[[str], None]) -> list[int]:
    rng = random.Random(seed)
    pools = lab.deployment.pools
    minted: list[int] = []
    taken = [[(pool, choose_range(rng, pool, lab.pool_state(pool).tick, RangeKind.WIDE)) for pool in pools]]
    while len(minted) < positions:
        count = min(_MINTS_A_BLOCK, positions - len(minted))
        hashes = []
        for index in range(count):
            kind = rng.choices(list(RangeKind), _KINDS)[0]
            pool = rng.choice(pools)
            if kind is RangeKind.SHARED:
                pool, (lower, upper) = rng.choice(rng.choice(taken))
            else:
                lower, upper = choose_range(rng, pool, lab.pool_state(pool).tick, kind)
                taken.append([(pool, (lower, upper))])
            owner = lab.owners[(len(minted) + index) % len(lab.owners)]
            usd = rng.uniform(2_000, 30_000)
            amounts = pool.token0.raw_of_usd(usd), pool.token1.raw_of_usd(usd)
            hashes.append(await lab.mint(owner, pool, lower, upper, *amounts))
        await lab.mine()
        minted += [lab.token_id(tx_hash) for tx_hash in hashes]
        tell(f"minted {len(minted)} of {positions} positions")
    return minted
