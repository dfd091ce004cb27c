"""What a chain is asked: headers, logs and batched static calls, over a pool of endpoints.

Every read of state is pinned to a block hash (EIP-1898), so an answer is either of that block or none. A node
that takes no hash is asked by height, with the hash at that height looked at before and after: if both times it
is ours, the head has not moved meanwhile (behind a balancer the three answers may be of three nodes; nothing can
tell that). Counts every call by purpose. Never decides what to read.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import structlog

from ..domain.chain import BlockRef, Header, Log
from ..domain.errors import BlockGone
from ..domain.ids import Address, BlockHash
from ..obs.metrics import Metrics
from ..protocols.base import Call, LogFilter
from .calls import call_all
from .decode import MalformedAnswer, header_of, log_of
from .endpoints.member import Member
from .endpoints.pool import EndpointPool, members_of
from .endpoints.watch import watch, watch_once
from .evm_batch import RAN_OUT, Way, decode_answer, encode_call
from .headers import HeaderReader
from .past import PastLogs
from .refusals import Refusal
from .rpc import Endpoint, Request, RpcError, TransportError

__all__ = ["ChainReader"]

log = structlog.get_logger(__name__)

T = TypeVar("T")

# Longer address lists are refused by providers; topics alone then select, and the rest is dropped here.
_MAX_FILTER_ADDRESSES: Final = 1000
# The identity precompile answers its own input; 0x06 fails on a point that is not on the curve.
_ECHO: Final = Address("0x" + "0" * 39 + "4")
_FAILS: Final = Address("0x" + "0" * 39 + "6")
_UNDECIDED: Final = (Refusal.UNKNOWN_BLOCK, Refusal.PRUNED)
_NOTHING_KNOWN: Final[Mapping[Address, int]] = {}
_TOO_MUCH: Final = (Refusal.TOO_MANY, Refusal.TOO_LARGE, Refusal.TOO_WIDE)


class ChainReader(HeaderReader):
    """All reads of one chain.

    Args:
        chain: The chain's name in logs and metrics.
        endpoints: What answers, in order of preference.
        metrics: Where calls are counted.
        max_in_flight: Outstanding messages an endpoint.
        per_s: Calls a second an endpoint; None is no limit.
        first_blocks: Contracts' first blocks, where known: their past begins there.
    """

    def __init__(
        self,
        chain: str,
        endpoints: Sequence[Endpoint],
        metrics: Metrics,
        *,
        max_in_flight: int = 32,
        per_s: float | None = None,
        first_blocks: Mapping[Address, int] = _NOTHING_KNOWN,
    ) -> None:
        members = members_of(chain, endpoints, metrics, max_in_flight=max_in_flight, per_s=per_s)
        super().__init__(EndpointPool(chain, members, metrics, on_calls=self._count))
        self._chain = chain
        self._past = PastLogs(chain, self._pool, first_blocks)
        # How each endpoint batches calls, by its name; found out by `probe`, or at its first read after that.
        self.ways: dict[str, Way] = {}
        self.calls_sent = 0

    def _count(self, calls: int) -> None:
        self.calls_sent += calls

    async def run(self) -> None:
        """Look at the endpoints from time to time, if there are several. Never returns."""
        await watch(self._pool, self._find_way)

    async def look(self) -> None:
        """Look at all endpoints now."""
        await watch_once(self._pool, self._find_way)

    def describe(self) -> list[dict[str, Any]]:
        """Return the state of every endpoint for an operator; nothing in it is secret."""
        return self._pool.describe()

    def nodes(self) -> dict[str, HeaderReader]:
        """Return a reader of headers for each node (host and port): what it says, whatever the others say.

        They share the endpoints' connections, limits and health.
        """
        pools: dict[str, list[Member]] = {}
        for member in self._pool.members:
            pools.setdefault(member.node, []).append(member)
        return {node: HeaderReader(self._pool.part(members)) for node, members in pools.items()}

    def saw(self, node: str, header: Header) -> None:
        """Note a head that a subscription to a node (host and port) announced, or that it answered."""
        self._pool.know(header)
        for member in self._pool.members:
            # What is behind its HTTP may be another machine: that has a block once it has answered with it.
            if member.node == node and member.is_socket:
                member.health.saw(header)

    async def request(self, requests: Sequence[Request], purpose: str) -> list[Any]:
        """Return the results of requests, from the first endpoint that answers all of them.

        Raises:
            BlockGone: An endpoint answered that it doesn't have the block, and no other did better.
            HistoryPruned: The endpoints don't keep the state of that block any more.
            PermanentError: An endpoint refused the request itself.
            ChainUnavailable: No endpoint answered.
        """

        async def attempt(member: Member) -> list[Any]:
            return await self._pool.results(member, requests, purpose)

        return await self._pool.ask(attempt, purpose)

    async def chain_id(self) -> int:
        """Return the chain id that the endpoints report."""
        (answer,) = await self.request([("eth_chainId", [])], "probe")
        try:
            return int(answer, 16)
        except (TypeError, ValueError) as error:
            raise MalformedAnswer(f"chain id: {answer!r:.60}") from error

    # --- logs -----------------------------------------------------------------------------------------

    async def logs(self, blocks: Sequence[BlockHash], wanted: LogFilter) -> list[list[Log]]:
        """Return each block's wanted logs, in order.

        Raises:
            BlockGone, HistoryPruned, PermanentError, ChainUnavailable: As `request`.
        """
        if not blocks:
            return []

        async def attempt(member: Member) -> list[list[Log]]:
            if not member.pins_by_hash:
                return [await self._at(member, block, partial(self._logs_at, member, wanted)) for block in blocks]
            requests: list[Request] = [("eth_getLogs", [_log_query(wanted, {"blockHash": block})]) for block in blocks]
            answers = await self._pool.send(member, requests, "block")
            results = []
            for block, answer in zip(blocks, answers, strict=True):
                if isinstance(answer, RpcError):
                    # Too many at once, or no pinning here: this block on its own.
                    if answer.kind not in (*_TOO_MUCH, Refusal.NO_PINNING):
                        raise answer
                    results.append(await self._at(member, block, partial(self._logs_at, member, wanted)))
                else:
                    results.append(_logs_of(answer, wanted))
            return results

        return await self._pool.ask(attempt, "block", block=blocks[-1])

    async def _logs_at(self, member: Member, wanted: LogFilter, block: Any) -> list[Log]:
        """Return one block's logs; the addresses are halved until the provider takes them."""
        by = block if isinstance(block, dict) else {"fromBlock": block, "toBlock": block}
        try:
            (answer,) = await self._pool.results(member, [("eth_getLogs", [_log_query(wanted, by)])], "block")
        except RpcError as error:
            if error.kind not in _TOO_MUCH or len(wanted.addresses) < 2:
                raise
            addresses = sorted(wanted.addresses)
            middle = len(addresses) // 2
            found: list[Log] = []
            for half in (addresses[:middle], addresses[middle:]):
                found += await self._logs_at(member, LogFilter(frozenset(half), wanted.topics), block)
            return sorted(found, key=lambda entry: entry.index)
        return _logs_of(answer, wanted)

    async def history(
        self,
        address: Address,
        topics: Sequence[Sequence[str]],
        until: Header,
        after: BlockRef | None = None,
        max_pieces: int | None = None,
    ) -> list[Log]:
        """Return all past logs of a contract with these topics, oldest first, up to and including a block.

        In as many pieces as the provider wants; with each one, the blocks at the ends tell whose chain answered.

        Args:
            address: The contract.
            topics: What is wanted of each topic; an empty place stands for any.
            until: The last block.
            after: The last block that is not wanted any more; the contract's whole past by default.
            max_pieces: After so many tries it is given up.

        Raises:
            BlockGone: The endpoint's blocks of these heights are others: it lags, or follows another branch.
            HistoryPruned: No endpoint keeps logs that old.
            PermanentError: The endpoint refuses even a single block, or it would take too many pieces.
            ChainUnavailable: No endpoint answered.
        """
        return await self._past.read(address, topics, until, after, max_pieces)

    # --- calls ----------------------------------------------------------------------------------------

    async def probe(self, head: Header) -> None:
        """Find out, per endpoint, the best way to batch calls; log it."""
        self._pool.know(head)
        self._pool.follow(head)
        for member in self._pool.members:
            self.ways.pop(member.name, None)
            try:
                await self._find_way(member)
            except TransportError as error:
                log.warning("endpoint did not answer the probe", chain=self._chain, error=str(error))

    async def _find_way(self, member: Member) -> None:
        """Find out how an endpoint batches calls, if that is not known; it may have been down, or behind, before."""
        head = self._pool.newest
        if member.name in self.ways or head is None:
            return
        echo = bytes(range(100))
        calls: list[Call] = [(_ECHO, echo), (_FAILS, b"\xff" * 128), (_ECHO, b"")]
        chosen = Way.JSON_BATCH
        for way in (Way.OVERRIDE, Way.DEPLOYLESS, Way.MULTICALL3):
            block: Any = {"blockHash": head.hash} if member.pins_by_hash else hex(head.number)
            (answer,) = await self._pool.send(member, [encode_call(way, calls, block)], "probe")
            if isinstance(answer, RpcError) and answer.kind is Refusal.NO_PINNING and member.pins_by_hash:
                # May be meant for the override; by height the same way is tried again.
                (answer,) = await self._pool.send(member, [encode_call(way, calls, hex(head.number))], "probe")
                member.pins_by_hash = not isinstance(answer, str)
            if isinstance(answer, RpcError) and answer.kind in _UNDECIDED:
                return
            if not isinstance(answer, str):
                continue
            try:
                found = decode_answer(way, answer, len(calls))
            except (ValueError, OverflowError) as error:
                log.debug("batching way does not work", chain=self._chain, way=way.value, error=str(error))
                continue
            if found in ([echo, None, b""], [echo, RAN_OUT, b""]):
                chosen = way
                break
        self.ways[member.name] = chosen
        log.info("batching way chosen", chain=self._chain, endpoint=member.name, way=chosen.value)

    async def call(self, calls: Sequence[Call], block: BlockHash, purpose: str) -> list[bytes | None]:
        """Return each static call's data at a block, None where it reverted, in as few requests as the way allows.

        Raises:
            BlockGone, HistoryPruned, PermanentError, ChainUnavailable: As `request`.
        """
        if not calls:
            return []

        async def attempt(member: Member) -> list[bytes | None]:
            if member.name not in self.ways:
                await self._find_way(member)
            way = self.ways.get(member.name, Way.JSON_BATCH)
            send = partial(self._pool.send, member, purpose=purpose)
            return await self._at(member, block, lambda at: call_all(send, way, calls, at))

        return await self._pool.ask(attempt, purpose, block=block)

    async def _at(self, member: Member, block: BlockHash, read: Callable[[Any], Awaitable[T]]) -> T:
        """Return what a read pinned to a block answers; by height where the endpoint takes no hash."""
        if member.pins_by_hash:
            try:
                return await read({"blockHash": block})
            except RpcError as error:
                if error.kind is not Refusal.NO_PINNING:
                    raise
                log.info("endpoint takes no block hash", chain=self._chain, endpoint=member.name)
                member.pins_by_hash = False
        header = self._pool.known(block)
        if header is None:
            (answer,) = await self._pool.results(member, [("eth_getBlockByHash", [block, False])], "head")
            if answer is None:
                raise BlockGone(f"{member.name} does not have block {block}")
            header = header_of(answer)
            self._pool.know(header)
        await self._is_still(member, header)
        result = await read(hex(header.number))
        await self._is_still(member, header)
        return result

    async def _is_still(self, member: Member, header: Header) -> None:
        (answer,) = await self._pool.results(member, [("eth_getBlockByNumber", [hex(header.number), False])], "head")
        if answer is None or header_of(answer).hash != header.hash:
            raise BlockGone(f"block {header.number} is another one at {member.name}")

    async def close(self) -> None:
        """Close all endpoints."""
        await self._pool.close()


def _log_query(wanted: LogFilter, by: Mapping[str, str]) -> dict[str, Any]:
    query: dict[str, Any] = {**by, "topics": [sorted(wanted.topics)]}
    if len(wanted.addresses) <= _MAX_FILTER_ADDRESSES:
        query["address"] = sorted(wanted.addresses)
    return query


def _logs_of(answer: Any, wanted: LogFilter) -> list[Log]:
    return [entry for entry in map(log_of, _entries(answer)) if entry.address in wanted.addresses]


def _entries(answer: Any) -> list[Any]:
    if not isinstance(answer, list):
        raise MalformedAnswer("eth_getLogs did not answer with a list")
    return answer
