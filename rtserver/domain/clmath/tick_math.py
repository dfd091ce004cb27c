"""Ticks to square-root prices, bit for bit as the contracts compute them."""

from functools import lru_cache
from typing import Final

from ..errors import TickOutOfRange
from ..ids import SqrtPriceX96, Tick

__all__ = ["MAX_TICK", "MIN_TICK", "sqrt_ratio_at_tick"]

MIN_TICK: Final = -887272
MAX_TICK: Final = 887272

# sqrt(1.0001)^-(2^i) in Q128.128, i = 0..19.
# Source: Uniswap/v3-core contracts/libraries/TickMath.sol, getSqrtRatioAtTick.
_FACTORS: Final = (
    0xFFFCB933BD6FAD37AA2D162D1A594001,
    0xFFF97272373D413259A46990580E213A,
    0xFFF2E50F5F656932EF12357CF3C7FDCC,
    0xFFE5CACA7E10E4E61C3624EAA0941CD0,
    0xFFCB9843D60F6159C9DB58835C926644,
    0xFF973B41FA98C081472E6896DFB254C0,
    0xFF2EA16466C96A3843EC78B326B52861,
    0xFE5DEE046A99A2A811C461F1969C3053,
    0xFCBE86C7900A88AEDCFFC83B479AA3A4,
    0xF987A7253AC413176F2B074CF7815E54,
    0xF3392B0822B70005940C7A398E4B70F3,
    0xE7159475A2C29B7443B29C7FA6E889D9,
    0xD097F3BDFD2022B8845AD8F792AA5825,
    0xA9F746462D870FDF8A65DC1F90E061E5,
    0x70D869A156D2A1B890BB3DF62BAF32F7,
    0x31BE135F97D08FD981231505542FCFA6,
    0x9AA508B5B7A84E1C677DE54F3E99BC9,
    0x5D6AF8DEDB81196699C329225EE604,
    0x2216E584F5FA1EA926041BEDFE98,
    0x48A170391F7DC42444E8FA2,
)
_UINT256_MAX: Final = (1 << 256) - 1


@lru_cache(maxsize=65_536)  # Ranges share ticks; 65,536 entries are about 10 MB.
def sqrt_ratio_at_tick(tick: Tick) -> SqrtPriceX96:
    """Return sqrt(1.0001^tick) as Q64.96, rounded up.

    Raises:
        TickOutOfRange: The tick lies outside [MIN_TICK, MAX_TICK].

    Source: Uniswap/v3-core contracts/libraries/TickMath.sol, getSqrtRatioAtTick.
    """
    magnitude = -tick if tick < 0 else tick
    if magnitude > MAX_TICK:
        raise TickOutOfRange(f"tick {tick} is outside [{MIN_TICK}, {MAX_TICK}]")
    ratio = 1 << 128
    for bit, factor in enumerate(_FACTORS):
        if magnitude >> bit & 1:
            ratio = ratio * factor >> 128
    if tick > 0:
        ratio = _UINT256_MAX // ratio
    return SqrtPriceX96((ratio >> 32) + (1 if ratio & 0xFFFFFFFF else 0))
