"""Names for look-alike values. Decides nothing; never validates (the decode boundary does)."""

from typing import NewType

__all__ = [
    "Address",
    "BlockHash",
    "ChainId",
    "Liquidity",
    "RawAmount",
    "SqrtPriceX96",
    "Tick",
    "TokenId",
]

ChainId = NewType("ChainId", int)
# "0x" and 40 lower-case hex digits: the form that nodes answer in, so logs need no conversion.
Address = NewType("Address", str)
# "0x" and 64 lower-case hex digits.
BlockHash = NewType("BlockHash", str)
TokenId = NewType("TokenId", int)
Tick = NewType("Tick", int)
Liquidity = NewType("Liquidity", int)
# sqrt(token1/token0) in raw units, Q64.96.
SqrtPriceX96 = NewType("SqrtPriceX96", int)
# A token amount in its smallest unit.
RawAmount = NewType("RawAmount", int)
