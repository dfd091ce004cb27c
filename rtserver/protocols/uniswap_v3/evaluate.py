"""The hot path: from a range's state to what each of its positions shows, as JSON text of changed fields.

Everything that positions of one range share (growth inside, the core position, the price's side of the
range) is computed once; per position there remain two amounts, two fees and two values. Formulas are those
of domain.clmath, written out: the calls alone would double the time. tests/protocols proves them equal.

A patch is text from the start: building a dict, comparing its strings and encoding it cost more than all
the arithmetic. Changes are found by comparing integers, and only a changed integer becomes text.
"""

from typing import Final

from ...domain.clmath.fees import MASK_128, MASK_256
from ...domain.diff import EncodedPatch, JsonObject
from ...domain.ids import Address, TokenId
from ...domain.text import cents_text, price_text
from ..addresses import checksum
from .state import Nft, Pool, Range, Token

__all__ = ["TICK_AND_PRICE", "evaluate_pool_price", "evaluate_range", "pool_view", "position_view"]

_HALF: Final = 1 << 127
# Which fields a patch holds: a later patch that holds at least the same makes an earlier one needless.
TICK_AND_PRICE: Final = 1
_AMOUNT0: Final = 2
_AMOUNT1: Final = 4
_FEES0: Final = 8
_FEES1: Final = 16
_VALUE: Final = 32
_FEES_USD: Final = 64
_ACTIVE: Final = 128
_OWNER: Final = 256
_LIQUIDITY: Final = 512

Static = tuple[int, str, Token, Token]


def evaluate_pool_price(pool: Pool, token0: Token, token1: Token) -> EncodedPatch | None:
    """Refresh the price text; return the fields that all positions of the pool share, None where nothing moved.

    The price is token1 per token0; None before initialize or without decimals.
    """
    price = None
    if pool.sqrt_price and token0.decimals is not None and token1.decimals is not None:
        price = price_text(pool.sqrt_price, token0.decimals, token1.decimals)
    if price == pool.price and pool.tick == pool.shown_tick:
        return None
    lost_price = price is None and pool.price is not None
    pool.price, pool.shown_tick = price, pool.tick
    if lost_price:
        return TICK_AND_PRICE, ""
    if price is None:
        return TICK_AND_PRICE, f',"tick":{pool.tick}'
    return TICK_AND_PRICE, f',"tick":{pool.tick},"price":"{price}"'


def evaluate_range(
    rng: Range,
    moved: EncodedPatch | None,
    cents0: int | None,
    cents1: int | None,
    sets: list[Nft],
    patches: list[tuple[TokenId, Address, EncodedPatch]],
) -> None:
    """Evaluate every position of a range that is ready.

    Args:
        rng: The range; all that it needs has been read.
        moved: What `evaluate_pool_price` returned for its pool in this step.
        cents0: US cents × 2^128 per smallest unit of token0, or None without a price.
        cents1: The same of token1.
        sets: Takes the positions that have to be told whole: new ones, and those that gained a null.
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
    # A collect pays from the core position that all NFTs of the range share, so it is an upper bound.
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

    first_fields, first_text = moved if moved is not None else (0, "")
    whole = moved is not None and not first_text  # the price became unknown: only a whole object can say so
    in_range = lower <= tick < upper
    priced = cents0 is not None and cents1 is not None
    each0, each1 = cents0 or 0, cents1 or 0
    for nft in rng.nfts.values():
        liquidity = nft.liquidity
        if liquidity:
            amount0 = liquidity * num0 // den0 if num0 else 0
            amount1 = liquidity * num1 >> 96
            owed0 = ((((inside0 - nft.last0) & MASK_256) * liquidity >> 128) + nft.owed0) & MASK_128
            owed1 = ((((inside1 - nft.last1) & MASK_256) * liquidity >> 128) + nft.owed1) & MASK_128
            if core0 < owed0:
                owed0 = core0
            if core1 < owed1:
                owed1 = core1
            active = in_range
        else:
            # Without liquidity a collect does not poke: only what is stored can be paid.
            amount0 = amount1 = 0
            owed0 = nft.owed0 if nft.owed0 < stored0 else stored0
            owed1 = nft.owed1 if nft.owed1 < stored1 else stored1
            active = False
        fields, text = first_fields, first_text
        if amount0 != nft.amount0:
            nft.amount0 = amount0
            fields |= _AMOUNT0
            text += f',"amount0":"{amount0}"'
        if amount1 != nft.amount1:
            nft.amount1 = amount1
            fields |= _AMOUNT1
            text += f',"amount1":"{amount1}"'
        principal0, principal1 = nft.principal0, nft.principal1
        lost = whole
        if principal0 is None or principal1 is None:
            lost = lost or nft.fees0 is not None
            fees0 = fees1 = None
        elif principal0 or principal1:
            fees0 = owed0 - principal0 if owed0 > principal0 else 0
            fees1 = owed1 - principal1 if owed1 > principal1 else 0
        else:
            fees0, fees1 = owed0, owed1
        if owed0 != nft.collectable0 or fees0 != nft.fees0:
            nft.collectable0, nft.fees0 = owed0, fees0
            fields |= _FEES0
            text += f',"collectable0":"{owed0}"' if fees0 is None else f',"collectable0":"{owed0}","fees0":"{fees0}"'
        if owed1 != nft.collectable1 or fees1 != nft.fees1:
            nft.collectable1, nft.fees1 = owed1, fees1
            fields |= _FEES1
            text += f',"collectable1":"{owed1}"' if fees1 is None else f',"collectable1":"{owed1}","fees1":"{fees1}"'
        if priced:
            value = (amount0 * each0 + amount1 * each1 + _HALF) >> 128
            if value != nft.value_cents:
                nft.value_cents = value
                fields |= _VALUE
                text += f',"valueUSD":"{value // 100}.{value % 100:02d}"'
            if fees0 is not None and fees1 is not None:
                worth = (fees0 * each0 + fees1 * each1 + _HALF) >> 128
                if worth != nft.fees_cents:
                    nft.fees_cents = worth
                    fields |= _FEES_USD
                    text += f',"feesUSD":"{worth // 100}.{worth % 100:02d}"'
            elif nft.fees_cents is not None:
                nft.fees_cents = None
                lost = True
        elif nft.value_cents is not None:
            nft.value_cents = nft.fees_cents = None
            lost = True
        if active is not nft.is_active:
            nft.is_active = active
            fields |= _ACTIVE
            text += ',"isActive":true' if active else ',"isActive":false'
        if liquidity != nft.shown_liquidity:
            nft.shown_liquidity = liquidity
            fields |= _LIQUIDITY
            text += f',"liquidity":"{liquidity}"'
        if nft.owner != nft.shown_owner:
            nft.shown_owner = nft.owner
            fields |= _OWNER
            text += f',"owner":"{checksum(nft.owner)}"'
        if lost or not nft.is_shown:
            nft.is_shown = True
            sets.append(nft)
        elif text:
            patches.append((nft.token_id, nft.owner, (fields, f"{{{text[1:]}}}")))


def position_view(nft: Nft, static: Static) -> JsonObject:
    """Return a position whole, as of its last evaluation.

    Args:
        nft: The position, evaluated.
        static: (chain id, protocol, token0, token1).
    """
    chain_id, protocol, token0, token1 = static
    rng, pool = nft.range, nft.range.pool
    if rng.price_lower is None and token0.decimals is not None and token1.decimals is not None:
        rng.price_lower = price_text(rng.sqrt_lower, token0.decimals, token1.decimals)
        rng.price_upper = price_text(rng.sqrt_upper, token0.decimals, token1.decimals)
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
        "tick": pool.shown_tick,
        "liquidity": str(nft.shown_liquidity),
        "isActive": nft.is_active,
        "isStaked": False,
        "amount0": str(nft.amount0),
        "amount1": str(nft.amount1),
        "fees0": None if nft.fees0 is None else str(nft.fees0),
        "fees1": None if nft.fees1 is None else str(nft.fees1),
        "collectable0": str(nft.collectable0),
        "collectable1": str(nft.collectable1),
        "priceLower": rng.price_lower,
        "price": pool.price,
        "priceUpper": rng.price_upper,
        "valueUSD": None if nft.value_cents is None else cents_text(nft.value_cents),
        "feesUSD": None if nft.fees_cents is None else cents_text(nft.fees_cents),
    }


def pool_view(pool: Pool, static: Static) -> JsonObject:
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
