"""Headers of a chain, over all its endpoints or over those of one node. Never decides which head is followed."""

from ..domain.chain import Header
from ..domain.errors import BlockGone, PermanentError, RetryableError
from ..domain.ids import BlockHash
from .decode import header_of
from .endpoints.member import Member
from .endpoints.pool import EndpointPool
from .rpc import Request

__all__ = ["HeaderReader"]


class HeaderReader:
    """Reads headers.

    Args:
        pool: Who is asked.
    """

    def __init__(self, pool: EndpointPool) -> None:
        self._pool = pool

    async def latest(self) -> Header:
        """Return the newest block that an endpoint has.

        Raises:
            PermanentError: The endpoints refuse to tell.
            ChainUnavailable: No endpoint answered.
        """

        async def attempt(member: Member) -> Header:
            (answer,) = await self._pool.results(member, [("eth_getBlockByNumber", ["latest", False])], "head")
            if answer is None:
                raise RetryableError("the node has no latest block")
            header = header_of(answer)
            self._pool.saw(member, header)
            return header

        return await self._pool.ask(attempt, "head")

    async def header(self, block_hash: BlockHash) -> Header | None:
        """Return a header by hash, None where no endpoint has it.

        Raises:
            ChainUnavailable: No endpoint answered.
        """

        async def attempt(member: Member) -> Header:
            (answer,) = await self._pool.results(member, [("eth_getBlockByHash", [block_hash, False])], "head")
            if answer is None:
                raise BlockGone(f"{member.name} does not have block {block_hash}")
            return header_of(answer)

        try:
            # It may well be of another branch.
            found = await self._pool.ask(attempt, "head", block=block_hash, is_ours=False)
        except (BlockGone, PermanentError):
            return None
        self._pool.know(found)
        return found

    async def headers(self, first: int, last: int) -> list[Header]:
        """Return the headers of a range of heights, oldest first; those that the node doesn't have are left out.

        Raises:
            PermanentError: The endpoints refuse to tell.
            ChainUnavailable: No endpoint answered.
        """
        requests: list[Request] = [("eth_getBlockByNumber", [hex(number), False]) for number in range(first, last + 1)]
        if not requests:
            return []

        async def attempt(member: Member) -> list[Header]:
            answers = await self._pool.results(member, requests, "head")
            return [header_of(answer) for answer in answers if answer is not None]

        found = await self._pool.ask(attempt, "head")
        for header in found:
            self._pool.know(header)
        return found
