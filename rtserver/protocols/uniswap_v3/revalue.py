"""Positions of which nothing but a price moved: their values anew, from the amounts as last evaluated.

A price of a token may move without any event in the pools that hold it: a feed's, an exchange's, that of another pool.
Then amounts and fees are what they were, and two multiplications a position are all there is to do: a third of what
`evaluate` costs. tests/protocols proves the two equal.
"""

from collections.abc import Collection
from typing import Final

from ...domain.diff import EncodedPatch
from ...domain.text import CENTS
from ..base import Patches, patches_with
from .evaluate import FEES_USD, VALUE, fees_cents_of
from .state import Pool, Range

__all__ = ["revalue_ranges"]

_HALF: Final = 1 << 127


def revalue_ranges(
    pool: Pool,
    dirty: Collection[Range],
    moved: EncodedPatch | None,
    cents0: int,
    cents1: int,
    patches: dict[int, Patches],
) -> None:
    """Bring the values of a pool's positions to new prices.

    Args:
        pool: A pool of which nothing was read since the last evaluation.
        dirty: Ranges that have to be evaluated as a whole, and are left to that.
        moved: What `evaluate_pool_price` returned for the pool in this step; not that something became unknown.
        cents0: US cents × 2^128 per smallest unit of token0.
        cents1: The same of token1.
        patches: Takes the changed fields; a position without a change is not in it.
    """
    first_fields, first_text = moved if moved is not None else (0, "")
    both = patches_with(patches, first_fields | VALUE | FEES_USD)
    value_only = patches_with(patches, first_fields | VALUE)
    note, tell = both.positions.append, both.texts.append
    start = f'{{{first_text[1:]},"valueUSD":"' if first_text else '{"valueUSD":"'
    cents, half = CENTS, _HALF
    for rng in pool.ranges.values():
        if rng in dirty:
            continue
        for nft in rng.nfts.values():
            value = (nft.amount0 * cents0 + nft.amount1 * cents1 + half) >> 128
            if nft.has_principal:
                fees = fees_cents_of(nft, cents0, cents1)
            else:
                fees = (nft.collectable0 * cents0 + nft.collectable1 * cents1 + half) >> 128
            if value != nft.value_cents:
                nft.value_cents = value
                if fees != nft.fees_cents and fees is not None:
                    nft.fees_cents = fees
                    note(nft)
                    tell(f'{start}{value // 100}{cents[value % 100]}","feesUSD":"{fees // 100}{cents[fees % 100]}"}}')
                else:
                    value_only.positions.append(nft)
                    value_only.texts.append(f'{start}{value // 100}{cents[value % 100]}"}}')
            elif fees != nft.fees_cents and fees is not None:
                nft.fees_cents = fees
                rest = patches_with(patches, first_fields | FEES_USD)
                rest.positions.append(nft)
                text = f'{first_text},"feesUSD":"{fees // 100}{cents[fees % 100]}"'
                rest.texts.append(f"{{{text[1:]}}}")
            elif first_text:
                rest = patches_with(patches, first_fields)
                rest.positions.append(nft)
                rest.texts.append(f"{{{first_text[1:]}}}")
