"""A chain with everything on it and a method for everything one can do there.

Each action sends one transaction and returns its hash; `mine` puts all that was sent into one block, in that
order. The market, the demo and the tests all work through this; none of the values that tests compare with
are computed here: `collectable` and `principal` are the contracts' own answers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from .actions import MAX_U128, MAX_U256, Actions, SwapLeg, Tx
from .book import Book, Nft, PoolState
from .contracts import Contracts
from .deploy import deploy, pool_address
from .deployment import (
    DEMO_POOLS,
    DEMO_TOKENS,
    TICK_SPACING,
    Deployment,
    Incentive,
    Pool,
    PoolSpec,
    Token,
    TokenSpec,
    sqrt_price_of,
)
from .node import AnvilNode
from .odd_tokens import create_odd_tokens
from .reading import read_book
from .session import MinedBlock, Session
from .toolchain import Toolchain

__all__ = ["Lab", "open_lab"]


class Lab(Session):
    """The deployed chain. Open one with `open_lab`, or wrap a node that a dump was loaded into."""

    def __init__(self, node: AnvilNode, contracts: Contracts, deployment: Deployment) -> None:
        super().__init__(node, Book(deployment.position_manager, deployment.staker))
        self.contracts = contracts
        self.deployment = deployment
        self.actions = Actions(contracts, deployment)
        # Opened after the deployment, by tests.
        self._more_pools: list[Pool] = []

    @property
    def pools(self) -> tuple[Pool, ...]:
        return (*self.deployment.pools, *self._more_pools)

    @property
    def owners(self) -> tuple[str, ...]:
        return self.deployment.owners

    def pool(self, symbol_a: str, symbol_b: str, fee_pips: int) -> Pool:
        """Return a deployed pool by its symbols, in any order, and its fee."""
        return self.deployment.pool(symbol_a, symbol_b, fee_pips)

    def nft(self, token_id: int) -> Nft:
        """Return what is known of an NFT as of the last mined block; KeyError once burned."""
        return self.book.nfts[token_id]

    def pool_state(self, pool: Pool) -> PoolState:
        """Return price and tick as of the last mined block."""
        return self.book.pools[pool.address]

    def token_id(self, tx_hash: str) -> int:
        """Return the NFT that a mined transaction minted; LookupError if it minted none."""
        if not (minted := self.book.minted_in(tx_hash)):
            raise LookupError(f"{tx_hash} minted no position in a mined block")
        return minted[0]

    # --- positions -------------------------------------------------------------------------------------

    async def mint(
        self, owner: str, pool: Pool, lower: int, upper: int, amount0: int, amount1: int, *, payer: str = ""
    ) -> str:
        """Mint an NFT for `owner`, spending at most these raw amounts; ticks must fit the pool's spacing."""
        return await self.send(self.actions.mint(owner, pool, lower, upper, amount0, amount1, payer=payer))

    async def mint_now(self, owner: str, pool: Pool, lower: int, upper: int, *, usd: float = 10_000.0) -> int:
        """Mint and mine one NFT worth about `usd` a side and return its id."""
        amount0, amount1 = pool.token0.raw_of_usd(usd), pool.token1.raw_of_usd(usd)
        tx_hash = await self.mint(owner, pool, lower, upper, amount0, amount1)
        await self.mine()
        return self.token_id(tx_hash)

    async def increase(self, sender: str, token_id: int, amount0: int, amount1: int) -> str:
        """Add liquidity to any NFT out of the sender's own pocket; the sender need not own it."""
        return await self.send(self.actions.increase(sender, token_id, amount0, amount1))

    async def decrease(self, token_id: int, liquidity: int | None = None) -> str:
        """Withdraw liquidity (all of it if None) without collecting: it turns into tokensOwed."""
        nft = self.nft(token_id)
        amount = nft.liquidity if liquidity is None else liquidity
        return await self.send(self.actions.decrease(nft.owner, token_id, amount))

    async def collect(self, token_id: int, amount0_max: int = MAX_U128, amount1_max: int = MAX_U128) -> str:
        """Collect what is owed, up to the limits, to the owner."""
        return await self.send(self.actions.collect(self.nft(token_id).owner, token_id, amount0_max, amount1_max))

    async def poke(self, token_id: int) -> str:
        """Bring the NFT's fee growth up to date, taking out one unit of token0 at most."""
        return await self.collect(token_id, 1, 0)

    async def burn(self, token_id: int) -> str:
        """Withdraw, collect and burn the NFT in one transaction."""
        nft = self.nft(token_id)
        return await self.send(self.actions.burn(nft.owner, token_id, nft.liquidity))

    async def transfer(self, token_id: int, to: str) -> str:
        """Give the NFT to another account."""
        return await self.send(self.actions.transfer(self.nft(token_id).owner, token_id, to))

    async def stake(self, token_id: int, incentive: Incentive | None = None) -> str:
        """Deposit the NFT with v3-staker and stake it; the pool's own incentive if None."""
        nft = self.nft(token_id)
        return await self.send(self.actions.stake(nft.owner, token_id, incentive or self.incentive(nft.pool)))

    async def deposit(self, token_id: int) -> str:
        """Deposit the NFT with v3-staker without staking it."""
        return await self.send(self.actions.deposit(self.nft(token_id).owner, token_id))

    async def unstake(self, token_id: int, incentive: Incentive | None = None) -> str:
        """End the stake and withdraw the NFT to whoever deposited it."""
        nft = self.nft(token_id)
        user = self.book.depositors[token_id]
        return await self.send(self.actions.unstake(user, token_id, incentive or self.incentive(nft.pool)))

    def incentive(self, pool_address: str) -> Incentive:
        """Return the incentive of a pool; LookupError if the deployment made none."""
        for incentive in self.deployment.incentives:
            if incentive.pool == pool_address:
                return incentive
        raise LookupError(f"no incentive for {pool_address}")

    # --- pools -----------------------------------------------------------------------------------------

    async def swap(
        self,
        pool: Pool,
        zero_for_one: bool,
        amount_in: int | None = None,
        *,
        sqrt_price_limit: int | None = None,
        sender: str | None = None,
    ) -> str:
        """Swap an exact input through the router, or with a limit straight at the pool.

        With `sqrt_price_limit` the actor contract pays and the price ends exactly there, unless `amount_in`
        runs out first; None then means as much as it takes.
        """
        who = sender or self.deployment.trader
        if sqrt_price_limit is None:
            if amount_in is None:
                raise ValueError("a swap needs an amount_in, a sqrt_price_limit, or both")
            return await self.send(self.actions.route_swap(who, pool, zero_for_one, amount_in))
        leg = SwapLeg(pool, zero_for_one, amount_in or 2**126, sqrt_price_limit)
        return await self.send(self.actions.swap(who, [leg]))

    async def swaps(self, legs: Sequence[SwapLeg], *, sender: str | None = None) -> str:
        """Do several swaps in one transaction, paid by the actor contract."""
        return await self.send(self.actions.swap(sender or self.deployment.trader, legs))

    async def flash(self, pool: Pool, amount0: int, amount1: int, *, tip0: int = 0, tip1: int = 0) -> str:
        """Borrow and give back; the fee plus the tips become fee growth."""
        return await self.send(self.actions.flash(self.deployment.trader, pool, amount0, amount1, tip0, tip1))

    async def core_mint(self, pool: Pool, lower: int, upper: int, liquidity: int) -> str:
        """Add liquidity that no NFT stands for."""
        return await self.send(self.actions.core_mint(self.deployment.trader, pool, lower, upper, liquidity))

    async def core_burn(self, pool: Pool, lower: int, upper: int, liquidity: int) -> str:
        """Remove liquidity that `core_mint` added."""
        return await self.send(self.actions.core_burn(self.deployment.trader, pool, lower, upper, liquidity))

    async def create_pool(
        self, token_a: Token, token_b: Token, fee_pips: int, *, sqrt_price: int | None = None
    ) -> Pool:
        """Send the opening of a pool at the tokens' dollar prices, or at `sqrt_price` (0: no price at all).

        The pool's address is known at once; mine before using it.
        """
        token0, token1 = sorted((token_a, token_b), key=lambda t: int(t.address, 16))
        house, factory = self.deployment.house, self.deployment.factory
        address = pool_address(self.contracts, factory, token0.address, token1.address, fee_pips)
        pool = Pool(address, token0, token1, fee_pips, TICK_SPACING[fee_pips])
        if sqrt_price == 0:
            tx = self.actions.create_pool_without_price(house, token0.address, token1.address, fee_pips)
        else:
            price = sqrt_price or sqrt_price_of(token0, token1)
            tx = self.actions.create_pool(house, token0.address, token1.address, fee_pips, price)
        await self.send(tx)
        self._more_pools.append(pool)
        return pool

    async def create_odd_tokens(self) -> dict[str, Token]:
        """Deploy, fund and approve the tokens that misbehave, and mine; keys as in `odd_tokens.py`."""
        return await create_odd_tokens(self, self.contracts, self.deployment)

    async def set_transfer_fee(self, token: Token, fee_bps: int) -> str:
        """Change what the `fee` token keeps of every transfer, in hundredths of a percent."""
        call = self.contracts.fee_token.call("setFeeBps", fee_bps)
        return await self.send(Tx("set fee", self.deployment.house, token.address, call))

    async def rebase(self, token: Token, scale_bps: int) -> str:
        """Set every balance of the `rebasing` token to so many hundredths of a percent of what was minted."""
        call = self.contracts.rebasing_token.call("rebase", scale_bps)
        return await self.send(Tx("rebase", self.deployment.house, token.address, call))

    # --- the chain's own answers -----------------------------------------------------------------------

    async def position(self, token_id: int, *, block: str | None = None) -> tuple[Any, ...]:
        """Return `positions(tokenId)`: 12 values in the contract's order; RpcError once burned."""
        return await self._manager("positions", token_id, block=block)

    async def slot0(self, pool: Pool, *, block: str | None = None) -> tuple[Any, ...]:
        """Return the pool's `slot0()`: sqrtPriceX96, tick and five more."""
        return await self.call(self.contracts.pool, pool.address, "slot0", block=block)

    async def collectable(self, token_id: int, *, block: str | None = None) -> tuple[int, int]:
        """Return what a collect by the owner would pay at that block, in raw units."""
        (owner,) = await self._manager("ownerOf", token_id, block=block)
        limits = (token_id, owner, MAX_U128, MAX_U128)
        amount0, amount1 = await self._manager("collect", limits, block=block, sender=owner)
        return amount0, amount1

    async def principal(self, token_id: int, *, block: str | None = None) -> tuple[int, int]:
        """Return what withdrawing all liquidity would free at that block, in raw units."""
        (owner,) = await self._manager("ownerOf", token_id, block=block)
        liquidity = (await self.position(token_id, block=block))[7]
        if liquidity == 0:
            return 0, 0
        withdrawal = (token_id, liquidity, 0, 0, MAX_U256)
        amount0, amount1 = await self._manager("decreaseLiquidity", withdrawal, block=block, sender=owner)
        return amount0, amount1

    async def _manager(
        self, function: str, *args: object, block: str | None = None, sender: str | None = None
    ) -> tuple[Any, ...]:
        contract, address = self.contracts.position_manager, self.deployment.position_manager
        return await self.call(contract, address, function, *args, block=block, sender=sender)

    async def reload(self, at: MinedBlock) -> None:
        """Read the book anew from the chain: what a reorg leaves of it."""
        # Read first: if this fails, the old head stays and the next catch_up tries again.
        self.book = await read_book(self, self.contracts, self.deployment, self.pools, at.hash)
        await super().reload(at)


@asynccontextmanager
async def open_lab(
    toolchain: Toolchain,
    contracts: Contracts,
    *,
    port: int = 0,
    tokens: Sequence[TokenSpec] = DEMO_TOKENS,
    pools: Sequence[PoolSpec] = DEMO_POOLS,
    owners: int | None = None,
    accounts: int = 24,
    genesis_timestamp: int | None = None,
    log_path: Path | None = None,
) -> AsyncIterator[Lab]:
    """Start a node that mines on demand, deploy everything on it and end the node afterwards."""
    async with AnvilNode(
        toolchain, port=port, accounts=accounts, genesis_timestamp=genesis_timestamp, log_path=log_path
    ) as node:
        deployment = await deploy(node, contracts, tokens=tokens, pools=pools, owners=owners)
        lab = Lab(node, contracts, deployment)
        await lab.catch_up()
        yield lab
