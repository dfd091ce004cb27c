"""All logs of a contract between two blocks, asked for by height and proved to be of one chain.

A range can only be asked for by height, so the two blocks at its ends ride in the same batch: they tell whose
chain answered. A range that is refused is halved; providers differ in what they allow and in how they say so.
"""

from collections.abc import Sequence
from typing import Any, Final

from ..domain.chain import BlockRef, Log
from ..domain.errors import BlockGone, PermanentError
from ..domain.ids import Address
from .decode import MalformedAnswer, header_of, log_of
from .reader import ChainReader

__all__ = ["logs_since"]

# Past this many parts the chain has been left alone for so long that asking for its state costs less.
_MAX_PARTS: Final = 64


async def logs_since(
    reader: ChainReader, address: Address, topics: Sequence[str], after: BlockRef, until: BlockRef
) -> list[Log]:
    """Return the logs of a contract in (after, until] with one of these first topics, oldest first.

    Raises:
        BlockGone: The two are not on one chain there, or not yet.
        PermanentError: The range is refused also in small parts.
        ChainUnavailable: Nobody answered.
    """
    found: list[Log] = []
    first, size = after.number + 1, until.number - after.number
    parts = 0
    while first <= until.number:
        last = min(first + size - 1, until.number)
        try:
            found += await _part(reader, address, topics, (first, last), (after, until))
        except PermanentError:
            parts += 1
            if size == 1 or parts > _MAX_PARTS:
                raise
            size = max(size // 2, 1)
            continue
        parts += 1
        first = last + 1
        if parts > _MAX_PARTS and first <= until.number:
            raise PermanentError(f"{until.number - after.number} blocks are too many to ask for in parts of {size}")
    return sorted(found, key=lambda log: (log.block_number, log.index))


async def _part(
    reader: ChainReader,
    address: Address,
    topics: Sequence[str],
    heights: tuple[int, int],
    ends: tuple[BlockRef, BlockRef],
) -> list[Log]:
    query = {"address": address, "topics": [list(topics)], "fromBlock": hex(heights[0]), "toBlock": hex(heights[1])}
    requests: list[tuple[str, list[Any]]] = [("eth_getLogs", [query])]
    requests += [("eth_getBlockByNumber", [hex(end.number), False]) for end in ends]
    logs, *blocks = await reader.request(requests, "load")
    for end, block in zip(ends, blocks, strict=True):
        if block is None or header_of(block).hash != end.hash:
            raise BlockGone(f"block {end.number} is another one there")
    if not isinstance(logs, list):
        raise MalformedAnswer("eth_getLogs did not answer with a list")
    return [entry for entry in map(log_of, logs) if entry.address == address]
