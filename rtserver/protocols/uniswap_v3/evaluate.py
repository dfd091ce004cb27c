"""The hot path: from a range's state to what each of its positions shows, as JSON text of changed fields.

Everything that positions of one range share (growth inside, the core position, the price's side of the
range) is computed once; per position there remain two amounts, two fees and two values. Formulas are those
of domain.clmath, written out: the calls alone would double the time. tests/protocols proves them equal.

A patch is text from the start: building a dict, comparing its strings and encoding it cost more than all
the arithmetic. Changes are found by comparing integers, and only a changed integer becomes text.
"""

from collections.abc import Iterable
from typing import Final

from ...domain.cents import pair_cents
from ...domain.clmath.fees import MASK_128, MASK_256
from ...domain.diff import EncodedPatch, JsonObject
from ...domain.ids import TokenId
from ...domain.text import CENTS, cents_text, price_text
from ..addresses import checksum
from ..base import Patches, patches_with
from .state import WHOLE, Nft, Pool, Range, Token

__all__ = [
    "FEES_USD",
    "TICK_AND_PRICE",
    "VALUE",
    "evaluate_pool_price",
    "evaluate_ranges",
    "fees_cents_of",
    "pool_view",
    "position_view",
]

_HALF: Final = 1 << 127
# Which fields a patch holds: a later patch that holds at least the same makes an earlier one needless.
TICK_AND_PRICE: Final = 1
_AMOUNT0: Final = 2
_AMOUNT1: Final = 4
_FEES0: Final = 8
_FEES1: Final = 16
VALUE: Final = 32
FEES_USD: Final = 64
_ACTIVE: Final = 128
_OWNER_AND_LIQUIDITY: Final = 256
_DEVIATION: Final = 512
_SWAPPED: Final = _AMOUNT0 | _AMOUNT1 | _FEES0 | _FEES1 | VALUE | FEES_USD

Static = tuple[int, str, Token, Token]


def evaluate_pool_price(
    pool: Pool, token0: Token, token1: Token, cents0: int | None, cents1: int | None, deviation_bps: int
) -> EncodedPatch | None:
    """Refresh the price text; return the fields that all positions of the pool share, None where nothing moved.

    The price is token1 per token0; None before initialize or without decimals. An empty text stands for a field
    that became unknown: positions have to be told whole.

    Args:
        pool: The pool, as it was read last.
        token0: The pool's first token.
        token1: The pool's second token.
        cents0: US cents × 2^128 per smallest unit of token0, or None without a price.
        cents1: The same of token1.
        deviation_bps: From where on the pool's price deviates, in hundredths of a percent of the tokens' own.
    """
    price = None
    if pool.sqrt_price and token0.decimals is not None and token1.decimals is not None:
        price = price_text(pool.sqrt_price, token0.decimals, token1.decimals)
    deviates = _deviates(pool.sqrt_price, cents0, cents1, deviation_bps)
    has_moved, has_turned = price != pool.price or pool.tick != pool.shown_tick, deviates is not pool.deviates
    if not (has_moved or has_turned):
        return None
    is_lost = (price is None and pool.price is not None) or (deviates is None and pool.deviates is not None)
    pool.price, pool.shown_tick, pool.deviates = price, pool.tick, deviates
    if is_lost:
        return TICK_AND_PRICE | _DEVIATION, ""
    fields, text = 0, ""
    if has_moved:
        fields = TICK_AND_PRICE
        text = f',"tick":{pool.tick}' if price is None else f',"tick":{pool.tick},"price":"{price}"'
    if has_turned:
        fields |= _DEVIATION
        text += f',"priceDeviation":{"true" if deviates else "false"}'
    return fields, text


def _deviates(sqrt_price: int, cents0: int | None, cents1: int | None, limit_bps: int) -> bool | None:
    """Return whether a pool's price is further than the limit from what its tokens' prices say; None if unknown.

    In raw units both are token1 for one token0: sqrt_price² / 2^192, and cents0 / cents1.
    """
    if not (sqrt_price and cents0 and cents1):
        return None
    spot, implied = sqrt_price * sqrt_price * cents1, cents0 << 192
    return abs(spot - implied) * 10_000 > limit_bps * implied


def evaluate_ranges(
    pool: Pool,
    ranges: Iterable[Range],
    moved: EncodedPatch | None,
    cents0: int | None,
    cents1: int | None,
    sets: list[Nft],
    patches: dict[int, Patches],
    turned: dict[TokenId, bool | None],
) -> list[Range]:
    """Evaluate every position of a pool's ranges; return the ranges of which something is still unread.

    Args:
        pool: The pool; all that is kept of it has been read.
        ranges: Ranges of it.
        moved: What `evaluate_pool_price` returned for the pool in this step.
        cents0: US cents × 2^128 per smallest unit of token0, or None without a price.
        cents1: The same of token1.
        sets: Takes the positions that have to be told whole: new ones, and those that gained a null.
        patches: Takes the changed fields of the others; a position without a change is in neither.
        turned: Takes whether positions are in range of which that changed, or that are new.
    """
    price, tick, growth0, growth1, ticks = pool.sqrt_price, pool.tick, pool.growth0, pool.growth1, pool.ticks
    first_fields, first_text = moved if moved is not None else (0, "")
    all_whole = moved is not None and not first_text  # the price became unknown: only a whole object says so
    priced = cents0 is not None and cents1 is not None
    each0, each1 = cents0 or 0, cents1 or 0
    swapped = patches_with(patches, first_fields | _SWAPPED)
    note, tell = swapped.positions.append, swapped.texts.append
    batch_fields, batch = first_fields | _SWAPPED, swapped
    start = f'{{{first_text[1:]},"amount0":"' if first_text else '{"amount0":"'
    # Names of the loop: a module's name costs a lookup in a dict each time.
    cents, mask_128, mask_256, half = CENTS, MASK_128, MASK_256, _HALF
    unread: list[Range] = []
    for rng in ranges:
        lower, upper = rng.lower, rng.upper
        outside_lower, outside_upper = ticks[lower], ticks[upper]
        if outside_lower is None or outside_upper is None or not rng.core_read:
            unread.append(rng)
            continue
        if tick < lower:
            in_range = False
            inside0 = (outside_lower[0] - outside_upper[0]) & MASK_256
            inside1 = (outside_lower[1] - outside_upper[1]) & MASK_256
        elif tick < upper:
            in_range = True
            inside0 = (growth0 - outside_lower[0] - outside_upper[0]) & MASK_256
            inside1 = (growth1 - outside_lower[1] - outside_upper[1]) & MASK_256
        else:
            in_range = False
            inside0 = (outside_upper[0] - outside_lower[0]) & MASK_256
            inside1 = (outside_upper[1] - outside_lower[1]) & MASK_256
        # A collect pays from the core position that all NFTs of the range share, so it is an upper bound.
        core_liquidity, stored0, stored1 = rng.core_liquidity, rng.core_owed0, rng.core_owed1
        core0 = ((((inside0 - rng.core_last0) & MASK_256) * core_liquidity >> 128) + stored0) & MASK_128
        core1 = ((((inside1 - rng.core_last1) & MASK_256) * core_liquidity >> 128) + stored1) & MASK_128

        # amount0 = L*num0 // den0 and amount1 = L*num1 >> 96; floor(floor(x/b)/p) = floor(x/(b*p)).
        sqrt_lower, sqrt_upper = rng.sqrt_lower, rng.sqrt_upper
        num0 = num1 = 0
        den0 = 1
        if price <= sqrt_lower:
            num0, den0 = (sqrt_upper - sqrt_lower) << 96, sqrt_upper * sqrt_lower
        elif price < sqrt_upper:
            num0, den0 = (sqrt_upper - price) << 96, sqrt_upper * price
            num1 = price - sqrt_lower
        else:
            num1 = sqrt_upper - sqrt_lower

        flips, rng.was_in_range = in_range is not rng.was_in_range, in_range
        usual = priced and in_range and not flips and not all_whole
        for nft in rng.nfts.values():
            liquidity = nft.liquidity
            if liquidity:
                amount0 = liquidity * num0 // den0
                amount1 = liquidity * num1 >> 96
                # Wrapped only where that changes something: a comparison costs a third of a mask.
                grown0, grown1 = inside0 - nft.last0, inside1 - nft.last1
                if grown0 < 0:
                    grown0 &= mask_256
                if grown1 < 0:
                    grown1 &= mask_256
                owed0 = (grown0 * liquidity >> 128) + nft.owed0
                owed1 = (grown1 * liquidity >> 128) + nft.owed1
                if owed0 > core0:
                    owed0 = min(owed0 & mask_128, core0)
                if owed1 > core1:
                    owed1 = min(owed1 & mask_128, core1)
            else:
                # Without liquidity a collect does not poke: only what is stored can be paid.
                amount0 = amount1 = 0
                owed0 = nft.owed0 if nft.owed0 < stored0 else stored0
                owed1 = nft.owed1 if nft.owed1 < stored1 else stored1
            if usual and liquidity and not (nft.has_principal or nft.news):
                # By far the most frequent case, a swap in range, in one piece: half the time of what follows.
                value = (amount0 * each0 + amount1 * each1 + half) >> 128
                worth = (owed0 * each0 + owed1 * each1 + half) >> 128
                if (
                    amount0 != nft.amount0
                    and amount1 != nft.amount1
                    and owed0 != nft.collectable0
                    and owed1 != nft.collectable1
                    and value != nft.value_cents
                    and worth != nft.fees_cents
                ):
                    nft.amount0, nft.amount1, nft.collectable0, nft.collectable1 = amount0, amount1, owed0, owed1
                    nft.value_cents, nft.fees_cents = value, worth
                    fee0, fee1 = str(owed0), str(owed1)
                    note(nft)
                    tell(
                        f'{start}{amount0}","amount1":"{amount1}","collectable0":"{fee0}","fees0":"{fee0}",'
                        f'"collectable1":"{fee1}","fees1":"{fee1}","valueUSD":"{value // 100}{cents[value % 100]}",'
                        f'"feesUSD":"{worth // 100}{cents[worth % 100]}"}}'
                    )
                    continue
            fields, text = first_fields, first_text
            if amount0 != nft.amount0:
                nft.amount0 = amount0
                fields |= _AMOUNT0
                text += f',"amount0":"{amount0}"'
            if amount1 != nft.amount1:
                nft.amount1 = amount1
                fields |= _AMOUNT1
                text += f',"amount1":"{amount1}"'
            if owed0 != nft.collectable0:
                nft.collectable0 = owed0
                fields |= _FEES0
                shown = str(owed0)
                fee = _less(owed0, nft.principal0) if nft.has_principal else shown
                text += f',"collectable0":"{shown}","fees0":"{fee}"' if fee else f',"collectable0":"{shown}"'
            if owed1 != nft.collectable1:
                nft.collectable1 = owed1
                fields |= _FEES1
                shown = str(owed1)
                fee = _less(owed1, nft.principal1) if nft.has_principal else shown
                text += f',"collectable1":"{shown}","fees1":"{fee}"' if fee else f',"collectable1":"{shown}"'
            told: int | None
            if priced:  # the sum of `pair_cents`, without the call
                told = (amount0 * each0 + amount1 * each1 + half) >> 128
            else:
                told = pair_cents(amount0, amount1, cents0, cents1)
            if told != nft.value_cents:
                nft.value_cents = told
                if told is None:
                    nft.news |= WHOLE
                else:
                    fields |= VALUE
                    text += f',"valueUSD":"{told // 100}{cents[told % 100]}"'
            if nft.has_principal:
                told = fees_cents_of(nft, cents0, cents1)
            elif priced:
                told = (owed0 * each0 + owed1 * each1 + half) >> 128
            else:
                told = pair_cents(owed0, owed1, cents0, cents1)
            if told != nft.fees_cents:
                nft.fees_cents = told
                if told is None:
                    nft.news |= WHOLE
                else:
                    fields |= FEES_USD
                    text += f',"feesUSD":"{told // 100}{cents[told % 100]}"'
            if flips or nft.news or all_whole:
                is_active = in_range and liquidity > 0
                if is_active is not nft.was_active:
                    nft.was_active = turned[nft.token_id] = is_active
                if all_whole or nft.news & WHOLE:
                    nft.news = 0
                    nft.is_shown = True
                    sets.append(nft)
                    continue
                fields |= _ACTIVE
                text += ',"isActive":true' if is_active else ',"isActive":false'
                if nft.news:
                    nft.news = 0
                    fields |= _OWNER_AND_LIQUIDITY
                    text += f',"liquidity":"{liquidity}","owner":"{checksum(nft.owner)}"'
            if text:
                if fields != batch_fields:
                    batch_fields, batch = fields, patches_with(patches, fields)
                batch.positions.append(nft)
                batch.texts.append(f"{{{text[1:]}}}")
    return unread


def _less(owed: int, principal: int | None) -> str:
    """Return fees as text: what is owed less withdrawn principal; empty where that is unknown."""
    if principal is None:
        return ""
    return str(owed - principal) if owed > principal else "0"


def fees_cents_of(nft: Nft, cents0: int | None, cents1: int | None) -> int | None:
    """Return what the fees are worth in cents, None where owed principal or a price is unknown."""
    if nft.principal0 is None or nft.principal1 is None:
        return None
    fees0, fees1 = max(nft.collectable0 - nft.principal0, 0), max(nft.collectable1 - nft.principal1, 0)
    return pair_cents(fees0, fees1, cents0, cents1)


def position_view(nft: Nft, static: Static) -> JsonObject:
    """Return a position whole. Only right after an evaluation: some of it is what was read last.

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
        "liquidity": str(nft.liquidity),
        "isActive": rng.was_in_range and nft.liquidity > 0,
        "isStaked": nft.stakes > 0,
        "rewards": nft.rewards,
        "rewardsUSD": None if nft.rewards_cents is None else cents_text(nft.rewards_cents),
        "amount0": str(nft.amount0),
        "amount1": str(nft.amount1),
        "fees0": _less(nft.collectable0, nft.principal0) or None,
        "fees1": _less(nft.collectable1, nft.principal1) or None,
        "collectable0": str(nft.collectable0),
        "collectable1": str(nft.collectable1),
        "priceLower": rng.price_lower,
        "price": pool.price,
        "priceUpper": rng.price_upper,
        "priceDeviation": pool.deviates,
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
        "priceDeviation": pool.deviates,
        "liquidity": str(pool.liquidity),
        "feeGrowthGlobal0X128": str(pool.growth0),
        "feeGrowthGlobal1X128": str(pool.growth1),
    }
