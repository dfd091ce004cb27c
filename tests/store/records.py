"""Records for tests: a position's value goes with its block, so that each can be told from all others."""

from __future__ import annotations

from typing import Any

from rtserver.domain.chain import BlockRef
from rtserver.domain.ids import Address, BlockHash, ChainId, TokenId
from rtserver.protocols.earning import Sample
from rtserver.store.records import Record

__all__ = ["CHAIN", "HERE", "KIND", "PLACE", "block_hash", "record", "sample"]

CHAIN = ChainId(2**200)
KIND = "uniswap-v3"
HERE = "here"
PLACE = (CHAIN, KIND, HERE)
# As large as contracts can have it.
_BIG = 2**256 - 1


def block_hash(number: int, branch: int = 0) -> BlockHash:
    return BlockHash(f"0x{branch:04x}{number:060x}")


def sample(token_id: int = 7, value: int | None = 100, **fields: Any) -> Sample:
    known: dict[str, Any] = {
        "token_id": TokenId(token_id), "liquidity": 2**128 - 1, "inside0": _BIG, "inside1": 0, "amount0": 2**127,
        "amount1": 5, "fees0": 1, "fees1": None, "earned0": value, "earned1": None, "sqrt_price_x96": 2**160 - 1,
        "tick": -887272, "is_active": True, "value_cents": value, "fees_cents": None,
        "rewards": {Address("0x" + "1" * 40): _BIG},
    }  # fmt: skip
    return Sample(**(known | fields))


def record(
    number: int, at: int, *, token_id: int = 7, active: int = 0, covered: int = 0, branch: int = 0, **fields: Any
) -> Record:
    """Return a record of block `number`, whose value in cents is the number, too."""
    block = BlockRef(number=number, hash=block_hash(number, branch))
    fields = {"value": number} | fields
    return Record(KIND, block, at, sample(token_id, **fields), "1.5", active, covered)
