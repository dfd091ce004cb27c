"""What can be done on the local chain, each as one unsigned transaction.

Pure: encodes calls to the deployed contracts and decides nothing about when or whether to send them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from eth_abi.abi import encode

from .contracts import Contract, Contracts
from .deployment import Deployment, Incentive, Pool

__all__ = ["MAX_SQRT_PRICE", "MAX_U128", "MIN_SQRT_PRICE", "Actions", "SwapLeg", "Tx"]

MAX_U128: Final = 2**128 - 1
MAX_U256: Final = 2**256 - 1
# TickMath.MIN_SQRT_RATIO and MAX_SQRT_RATIO; a swap's limit must lie strictly between them.
MIN_SQRT_PRICE: Final = 4295128739
MAX_SQRT_PRICE: Final = 1461446703485210103287273052203988822378723970342
# Opening a pool is the most expensive call at about 5 M.
_GAS: Final = 12_000_000


@dataclass(frozen=True, slots=True)
class Tx:
    """A transaction to send from an unlocked account; `to` None creates a contract."""

    label: str
    sender: str
    to: str | None
    data: bytes
    value: int = 0
    gas: int = _GAS


@dataclass(frozen=True, slots=True)
class SwapLeg:
    """One swap straight at a pool.

    A positive amount is what goes in, a negative one what must come out; the swap stops early where the
    price reaches the limit, and then the price is exactly that limit.
    """

    pool: Pool
    zero_for_one: bool
    amount: int = 2**126
    sqrt_price_limit: int | None = None


class Actions:
    """Builds transactions for one deployment."""

    def __init__(self, contracts: Contracts, deployment: Deployment) -> None:
        self._contracts = contracts
        self._at = deployment

    def mint(
        self, owner: str, pool: Pool, lower: int, upper: int, amount0: int, amount1: int, *, payer: str = ""
    ) -> Tx:
        return self._manager(
            f"mint {pool.name}",
            payer or owner,
            "mint",
            (
                pool.token0.address,
                pool.token1.address,
                pool.fee_pips,
                lower,
                upper,
                amount0,
                amount1,
                0,
                0,
                owner,
                MAX_U256,
            ),
        )

    def increase(self, sender: str, token_id: int, amount0: int, amount1: int) -> Tx:
        return self._manager(
            f"increase #{token_id}",
            sender,
            "increaseLiquidity",
            (token_id, amount0, amount1, 0, 0, MAX_U256),
        )

    def decrease(self, owner: str, token_id: int, liquidity: int) -> Tx:
        return self._manager(f"decrease #{token_id}", owner, "decreaseLiquidity", (token_id, liquidity, 0, 0, MAX_U256))

    def collect(self, owner: str, token_id: int, amount0_max: int = MAX_U128, amount1_max: int = MAX_U128) -> Tx:
        return self._manager(f"collect #{token_id}", owner, "collect", (token_id, owner, amount0_max, amount1_max))

    def burn(self, owner: str, token_id: int, liquidity: int) -> Tx:
        """Withdraw everything, collect it and burn the NFT, in one transaction."""
        manager = self._contracts.position_manager
        calls = []
        if liquidity:
            calls.append(manager.call("decreaseLiquidity", (token_id, liquidity, 0, 0, MAX_U256)))
        calls.append(manager.call("collect", (token_id, owner, MAX_U128, MAX_U128)))
        calls.append(manager.call("burn", token_id))
        return self._manager(f"burn #{token_id}", owner, "multicall", calls)

    def transfer(self, owner: str, token_id: int, to: str) -> Tx:
        return self._manager(f"transfer #{token_id}", owner, "transferFrom", owner, to, token_id)

    def stake(self, owner: str, token_id: int, incentive: Incentive) -> Tx:
        """Send the NFT to the staker with the incentive as data, which deposits and stakes it."""
        data = encode(["(address,address,uint256,uint256,address)"], [incentive.key])
        return self._manager(
            f"stake #{token_id}",
            owner,
            "safeTransferFrom(address,address,uint256,bytes)",
            owner,
            self._at.staker,
            token_id,
            data,
        )

    def deposit(self, owner: str, token_id: int) -> Tx:
        """Send the NFT to the staker without staking it."""
        return self._manager(
            f"deposit #{token_id}",
            owner,
            "safeTransferFrom(address,address,uint256,bytes)",
            owner,
            self._at.staker,
            token_id,
            b"",
        )

    def unstake(self, user: str, token_id: int, incentive: Incentive) -> Tx:
        """End the stake and take the NFT back, in one transaction."""
        staker = self._contracts.staker
        calls = [
            staker.call("unstakeToken", incentive.key, token_id),
            staker.call("withdrawToken", token_id, user, b""),
        ]
        return Tx(f"unstake #{token_id}", user, self._at.staker, staker.call("multicall", calls))

    def create_pool(self, sender: str, token0: str, token1: str, fee_pips: int, sqrt_price: int) -> Tx:
        """Open a pool and set its price; tokens in address order."""
        return self._manager(
            "create pool",
            sender,
            "createAndInitializePoolIfNecessary",
            token0,
            token1,
            fee_pips,
            sqrt_price,
        )

    def create_pool_without_price(self, sender: str, token_a: str, token_b: str, fee_pips: int) -> Tx:
        """Open a pool that stays uninitialised: sqrtPriceX96 0, no position possible."""
        data = self._contracts.factory.call("createPool", token_a, token_b, fee_pips)
        return Tx("create empty pool", sender, self._at.factory, data)

    def route_swap(self, sender: str, pool: Pool, zero_for_one: bool, amount_in: int, sqrt_price_limit: int = 0) -> Tx:
        """Swap an exact input through the router, as a wallet would."""
        token_in, token_out = pool.token0.address, pool.token1.address
        if not zero_for_one:
            token_in, token_out = token_out, token_in
        call = self._contracts.router.call(
            "exactInputSingle",
            (token_in, token_out, pool.fee_pips, sender, MAX_U256, amount_in, 0, sqrt_price_limit),
        )
        return Tx(f"swap {pool.name}", sender, self._at.router, call)

    def swap(self, sender: str, legs: Sequence[SwapLeg]) -> Tx:
        """Do one or more swaps in one transaction, paid by the actor contract."""
        label = f"{'direct-swap' if len(legs) == 1 else 'multi-swap'} {legs[0].pool.name}"
        encoded = [
            (
                leg.pool.address,
                leg.zero_for_one,
                leg.amount,
                leg.sqrt_price_limit or (MIN_SQRT_PRICE + 1 if leg.zero_for_one else MAX_SQRT_PRICE - 1),
            )
            for leg in legs
        ]
        return self._actor(label, sender, "swap", encoded)

    def flash(self, sender: str, pool: Pool, amount0: int, amount1: int, tip0: int = 0, tip1: int = 0) -> Tx:
        """Borrow and give back; the fee and the tips become fee growth."""
        return self._actor(f"flash {pool.name}", sender, "flash", pool.address, amount0, amount1, tip0, tip1)

    def core_mint(self, sender: str, pool: Pool, lower: int, upper: int, liquidity: int) -> Tx:
        """Add liquidity that no NFT stands for: the actor's own core position."""
        return self._actor(f"core mint {pool.name}", sender, "mint", pool.address, lower, upper, liquidity)

    def core_burn(self, sender: str, pool: Pool, lower: int, upper: int, liquidity: int) -> Tx:
        return self._actor(f"core burn {pool.name}", sender, "burn", pool.address, lower, upper, liquidity)

    def approve(self, owner: str, token: str, spender: str) -> Tx:
        data = self._contracts.token.call("approve", spender, MAX_U256)
        return Tx("approve", owner, token, data)

    def _manager(self, label: str, sender: str, function: str, *args: object) -> Tx:
        return self._to(self._contracts.position_manager, self._at.position_manager, label, sender, function, args)

    def _actor(self, label: str, sender: str, function: str, *args: object) -> Tx:
        return self._to(self._contracts.actor, self._at.actor, label, sender, function, args)

    @staticmethod
    def _to(contract: Contract, address: str, label: str, sender: str, function: str, args: Sequence[object]) -> Tx:
        return Tx(label, sender, address, contract.call(function, *args))
