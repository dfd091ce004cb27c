"""The hot path: from a range's state to what each of its positions shows, as patches of changed fields.

Everything that positions of one range share (growth inside, the core position, the price's side of the
range) is computed once; per position there remain two amounts, two fees and two values. Formulas are those
of domain.clmath, written out: the calls alone would double the time. tests/protocols proves them equal.
"""

from typing import Final

from ...domain.clmath.fees import MASK_128, MASK_256
from ...domain.diff import JsonObject
from ...domain.ids import TokenId
from ...domain.text import price_text
from ..addresses import checksum
from .state import Nft, Pool, Range, Token

__all__ = ["evaluate_pool_price", "evaluate_range", "pool_view"]

_HALF: Final = 1 << 127


def evaluate_pool_price(pool: Pool, token0: Token, token1: Token) -> None:
    """Refresh the pool's price text (token1 per token0); None before initialize or without decimals."""
    if not pool.sqrt_price or token0.decimals is None or token1.decimals is None:
        pool.price = None
    else:
        pool.price = price_text(pool.sqrt_price, token0.decimals, token1.decimals)


def evaluate_range(
    rng: Range,
    static: tuple[int, str, Token, Token],
    cents0: int | None,
    cents1: int | None,
    sets: dict[TokenId, JsonObject],
    patches: dict[TokenId, JsonObject],
) -> None:
    """Evaluate every position of a range that is ready.

    Args:
        rng: The range; all that it needs has been read.
        static: (chain id, protocol, token0, token1).
        cents0: US cents × 2^128 per smallest unit of token0, or None without a price.
        cents1: The same of token1.
        sets: Takes whole objects: first evaluations, and those that gained a null.
        patches: Takes the changed fields of the others; a position without a change is in neither.
    """
    pool = rng.pool
    tick, lower, upper = pool.tick, rng.lower, rng.upper
    outside_lower, outside_upper = pool.ticks[lower], pool.ticks[upper]
    assert outside_lower is not None and outside_upper is not None
    if tick < lower:
        inside0 = (outside_lower[0] - outside_upper[0]) & MASK_256
        inside1 = (outside_lower[1] - outside_upper[1]) & MASK_256
    elif tick < upper:
        inside0 = (pool.growth0 - outside_lower[0] - outside_upper[0]) & MASK_256
        inside1 = (pool.growth1 - outside_lower[1] - outside_upper[1]) & MASK_256
    else:
        inside0 = (outside_upper[0] - outside_lower[0]) & MASK_256
        inside1 = (outside_upper[1] - outside_lower[1]) & MASK_256
    # A collect pays from the core position that all NFTs of the range share, so it is the lower bound.
    core_liquidity, stored0, stored1 = rng.core_liquidity, rng.core_owed0, rng.core_owed1
    core0 = ((((inside0 - rng.core_last0) & MASK_256) * core_liquidity >> 128) + stored0) & MASK_128
    core1 = ((((inside1 - rng.core_last1) & MASK_256) * core_liquidity >> 128) + stored1) & MASK_128

    # amount0 = L*num0 // den0 and amount1 = L*num1 >> 96; floor(floor(x/b)/p) = floor(x/(b*p)).
    price, sqrt_lower, sqrt_upper = pool.sqrt_price, rng.sqrt_lower, rng.sqrt_upper
    num0 = num1 = 0
    den0 = 1
    if price <= sqrt_lower:
        num0, den0 = (sqrt_upper - sqrt_lower) << 96, sqrt_upper * sqrt_lower
    elif price < sqrt_upper:
        num0, den0 = (sqrt_upper - price) << 96, sqrt_upper * price
        num1 = price - sqrt_lower
    else:
        num1 = sqrt_upper - sqrt_lower

    price_now = pool.price
    in_range = lower <= tick < upper
    priced = cents0 is not None and cents1 is not None
    for nft in rng.nfts.values():
        liquidity = nft.liquidity
        if liquidity:
            amount0 = liquidity * num0 // den0
            amount1 = liquidity * num1 >> 96
            owed0 = ((((inside0 - nft.last0) & MASK_256) * liquidity >> 128) + nft.owed0) & MASK_128
            owed1 = ((((inside1 - nft.last1) & MASK_256) * liquidity >> 128) + nft.owed1) & MASK_128
            if core0 < owed0:
                owed0 = core0
            if core1 < owed1:
                owed1 = core1
        else:
            # Without liquidity a collect does not poke: only what is stored can be paid.
            amount0 = amount1 = 0
            owed0 = nft.owed0 if nft.owed0 < stored0 else stored0
            owed1 = nft.owed1 if nft.owed1 < stored1 else stored1
        view = nft.view
        if view is None:
            nft.view = sets[nft.token_id] = _first_view(nft, rng, static)
            view = nft.view
            patches.pop(nft.token_id, None)
        patch: JsonObject = {}
        if view["tick"] != tick:
            patch["tick"] = tick
        if view["price"] != price_now:
            patch["price"] = price_now
        if nft.pending is not None:
            patch.update(nft.pending)
            nft.pending = None
        if amount0 != nft.amount0:
            nft.amount0 = amount0
            patch["amount0"] = str(amount0)
        if amount1 != nft.amount1:
            nft.amount1 = amount1
            patch["amount1"] = str(amount1)
        if owed0 != nft.collectable0 or owed1 != nft.collectable1 or "fees0" not in view:
            nft.collectable0, nft.collectable1 = owed0, owed1
            _patch_fees(nft, view, patch)
        active = in_range and liquidity != 0
        if view["isActive"] != active:
            patch["isActive"] = active
        if priced:
            value = (amount0 * cents0 + amount1 * cents1 + _HALF) >> 128  # type: ignore[operator]
            if value != nft.value_cents:
                nft.value_cents = value
                patch["valueUSD"] = f"{value // 100}.{value % 100:02d}"
            principal0, principal1 = nft.principal0, nft.principal1
            if principal0 is None or principal1 is None:
                fees = None
            else:
                fee0, fee1 = owed0 - principal0, owed1 - principal1
                fees = (
                    (fee0 if fee0 > 0 else 0) * cents0 + (fee1 if fee1 > 0 else 0) * cents1 + _HALF  # type: ignore[operator]
                ) >> 128
            if fees != nft.fees_cents:
                nft.fees_cents = fees
                patch["feesUSD"] = None if fees is None else f"{fees // 100}.{fees % 100:02d}"
        elif nft.value_cents is not None:
            nft.value_cents = nft.fees_cents = None
            patch["valueUSD"] = patch["feesUSD"] = None
        if patch:
            _record(nft, view, patch, sets, patches)


def _patch_fees(nft: Nft, view: JsonObject, patch: JsonObject) -> None:
    """Put collectable and fees (collectable less owed principal, null where that is unknown) into a patch."""
    owed0, owed1 = nft.collectable0, nft.collectable1
    text0, text1 = str(owed0), str(owed1)
    fees0: str | None = text0
    fees1: str | None = text1
    principal0, principal1 = nft.principal0, nft.principal1
    if principal0:
        fees0 = str(max(owed0 - principal0, 0))
    elif principal0 is None:
        fees0 = None
    if principal1:
        fees1 = str(max(owed1 - principal1, 0))
    elif principal1 is None:
        fees1 = None
    for name, text in (("collectable0", text0), ("collectable1", text1), ("fees0", fees0), ("fees1", fees1)):
        if name not in view or view[name] != text:
            patch[name] = text


def _record(
    nft: Nft,
    view: JsonObject,
    patch: JsonObject,
    sets: dict[TokenId, JsonObject],
    patches: dict[TokenId, JsonObject],
) -> None:
    token_id = nft.token_id
    gained_null = None in patch.values()
    view.update(patch)
    if token_id in sets:
        return
    if gained_null:
        sets[token_id] = view
        patches.pop(token_id, None)
    elif token_id in patches:
        patches[token_id].update(patch)
    else:
        patches[token_id] = patch


def _first_view(nft: Nft, rng: Range, static: tuple[int, str, Token, Token]) -> JsonObject:
    """Return the object's fixed part; the caller's comparisons fill in the rest."""
    chain_id, protocol, token0, token1 = static
    pool = rng.pool
    if rng.price_lower is None and token0.decimals is not None and token1.decimals is not None:
        rng.price_lower = price_text(rng.sqrt_lower, token0.decimals, token1.decimals)
        rng.price_upper = price_text(rng.sqrt_upper, token0.decimals, token1.decimals)
    nft.amount0 = nft.amount1 = nft.collectable0 = nft.collectable1 = -1
    nft.value_cents = nft.fees_cents = -1
    return {
        "tokenId": str(nft.token_id),
        "chainId": chain_id,
        "protocol": protocol,
        "owner": checksum(nft.owner),
        "pool": checksum(pool.address),
        "pair": f"{token0.symbol}/{token1.symbol}",
        "feePips": pool.fee_pips,
        "token0": token0.view,
        "token1": token1.view,
        "tickLower": rng.lower,
        "tickUpper": rng.upper,
        "tick": pool.tick,
        "liquidity": str(nft.liquidity),
        "isActive": False,
        "isStaked": False,
        "priceLower": rng.price_lower,
        "price": pool.price,
        "priceUpper": rng.price_upper,
    }


def pool_view(pool: Pool, static: tuple[int, str, Token, Token]) -> JsonObject:
    """Return what the `pool:` channel shows of a pool."""
    chain_id, protocol, token0, token1 = static
    return {
        "pool": checksum(pool.address),
        "chainId": chain_id,
        "protocol": protocol,
        "pair": f"{token0.symbol}/{token1.symbol}",
        "feePips": pool.fee_pips,
        "token0": token0.view,
        "token1": token1.view,
        "sqrtPriceX96": str(pool.sqrt_price),
        "tick": pool.tick,
        "price": pool.price,
        "liquidity": str(pool.liquidity),
        "feeGrowthGlobal0X128": str(pool.growth0),
        "feeGrowthGlobal1X128": str(pool.growth1),
    }
