"""All past logs of a contract, up to a block and proved to be of that block's chain.

A range can only be asked for by height, so the blocks at its ends ride in the same batch: they tell whose chain
answered. How it is cut into pieces is `history`'s to say. Where the past begins is known, or told by the settings,
or else looked for: only once a range was refused as too wide, as otherwise asking from block 0 costs nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from ..domain.chain import BlockRef, Header, Log
from ..domain.errors import BlockGone, ChainUnavailable, PermanentError
from ..domain.ids import Address
from .decode import MalformedAnswer, header_of, log_of
from .endpoints.member import Member
from .endpoints.pool import EndpointPool
from .history import Pieces
from .refusals import Refusal
from .rpc import Request, RpcError

__all__ = ["PastLogs"]

log = structlog.get_logger(__name__)


class PastLogs:
    """Reads of the past.

    Args:
        chain: The chain's name in logs.
        pool: Who is asked.
        first_blocks: Contracts' first blocks, where known: none of their logs is older.
    """

    def __init__(self, chain: str, pool: EndpointPool, first_blocks: Mapping[Address, int]) -> None:
        self._chain = chain
        self._pool = pool
        self._first_blocks = dict(first_blocks)

    async def read(
        self,
        address: Address,
        topics: Sequence[Sequence[str]],
        until: Header,
        after: BlockRef | None = None,
        max_pieces: int | None = None,
    ) -> list[Log]:
        """See `ChainReader.history`."""
        self._pool.know(until)
        known = self._first_blocks.get(address)
        if known is not None and known > until.number:
            # A chain that is younger than the one that this was said of.
            known = None
        pieces = Pieces(after.number + 1 if after is not None else known or 0, until.number)
        found: list[Log] = []
        by = {"address": address, "topics": [list(each) or None for each in topics]}
        ends = [until.ref] if after is None else [after, until.ref]
        is_open = after is None and known is None

        async def attempt(member: Member) -> list[Log]:
            nonlocal is_open
            # Another endpoint goes on where one stopped.
            while not pieces.is_done:
                if max_pieces is not None and pieces.asked >= max_pieces:
                    raise PermanentError(f"{until.number - pieces.first + 1} blocks are too many to ask for")
                try:
                    found.extend(await self._piece(member, by, pieces.next(), ends))
                except RpcError as error:
                    if not pieces.refused(error):
                        raise
                    if is_open and error.kind is Refusal.TOO_WIDE:
                        is_open = False
                        pieces.begin(await self._first_block(address, until.number))
                else:
                    pieces.answered()
            return found

        # Seconds long by nature: a second one at the same time would only double the load.
        return await self._pool.ask(attempt, "history", block=until.hash, may_hedge=False)

    async def _piece(
        self, member: Member, by: Mapping[str, Any], heights: tuple[int, int], ends: Sequence[BlockRef]
    ) -> list[Log]:
        query = {**by, "fromBlock": hex(heights[0]), "toBlock": hex(heights[1])}
        requests: list[Request] = [("eth_getLogs", [query])]
        requests += [("eth_getBlockByNumber", [hex(end.number), False]) for end in ends]
        logs, *blocks = await self._pool.results(member, requests, "load")
        for end, block in zip(ends, blocks, strict=True):
            if block is None or header_of(block).hash != end.hash:
                raise BlockGone(f"block {end.number} is another one there")
        if not isinstance(logs, list):
            raise MalformedAnswer("eth_getLogs did not answer with a list")
        return [entry for entry in map(log_of, logs) if entry.address == by["address"]]

    async def _first_block(self, address: Address, until: int) -> int:
        """Return the block in which a contract came to be, 0 where nobody keeps the state to tell; asked for once.

        Found by halving, some 25 calls. Nodes without the state of a block refuse to tell of it, they do not guess.
        """
        first = self._first_blocks.get(address)
        if first is not None:
            return first
        # Not there at `without`, there at `with_code`.
        without, with_code = -1, until
        try:
            if not await self._has_code(address, until):
                raise PermanentError("no contract there")
            while with_code - without > 1:
                middle = (without + with_code) // 2
                if await self._has_code(address, middle):
                    with_code = middle
                else:
                    without = middle
        except ChainUnavailable:
            # Another time.
            return 0
        except (PermanentError, BlockGone) as error:
            with_code = 0
            log.info(
                "a contract's first block is not to be found: its past is read from block 0 on; see first_block",
                chain=self._chain, contract=address, error=str(error),
            )  # fmt: skip
        else:
            log.info("a contract's first block found", chain=self._chain, contract=address, block=with_code)
        self._first_blocks[address] = with_code
        return with_code

    async def _has_code(self, address: Address, number: int) -> bool:
        async def attempt(member: Member) -> bool:
            (code,) = await self._pool.results(member, [("eth_getCode", [address, hex(number)])], "load")
            if not isinstance(code, str):
                raise MalformedAnswer("eth_getCode did not answer with a string")
            return len(code) > len("0x")

        return await self._pool.ask(attempt, "load")
