"""REST: the first load, in the very state that the socket goes on from.

Every answer is read from an open channel; a closed one is opened and waited for. While the node is away
the last state is served with its age.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from aiohttp import web

from ..domain.diff import JsonObject
from ..domain.errors import ClientError
from ..domain.ids import Address, ChainId, TokenId
from ..hub.hub import Hub
from ..hub.stream import Stream
from ..obs.metrics import Metrics
from ..protocols.addresses import checksum, parse_address
from ..protocols.channels import (
    Channel,
    OwnerChannel,
    PositionChannel,
    PricesChannel,
    RewardsChannel,
    parse_channel,
)
from .budgets import Budgets
from .details import details_of
from .earnings import Earned, Earnings, NoEarnings, PositionKey
from .pages import is_unchanged
from .problems import json_response
from .summary import Summaries, parse_limit, parse_place

__all__ = ["Rest", "ServedChain"]

# An owner's positions don't wait longer for its claims: these need past events, which not every node has.
_CLAIMS_S: Final = 2.0
# Tries to have positions and what they earned of one block; after these, of two that follow each other.
_TRIES: Final = 3
# Prices need no read of their own, so they are there at once, unless the chain stands still.
_PRICES_S: Final = 0.5
# Engines that share a chain are at one block again within this, unless one of them is not well.
_TOGETHER_S: Final = 0.5
_LOOK_S: Final = 0.01


class ServedChain:
    """What the interface says about a chain that is served.

    `following` returns what the health report says of how its head is followed.
    """

    def __init__(
        self,
        chain_id: ChainId,
        name: str,
        protocols: list[dict[str, str]],
        head_limit_s: float,
        following: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self.chain_id = chain_id
        self.name = name
        self.protocols = protocols
        self.head_limit_s = head_limit_s
        self.following = following

    @property
    def kinds(self) -> frozenset[str]:
        """Return the protocols served on the chain."""
        return frozenset(protocol["kind"] for protocol in self.protocols)


class Rest:
    """The REST interface of one process.

    Args:
        hub: Where all state is.
        chains: What is served, by chain id.
        version: The server's.
        owners: Addresses that the page offers.
        budgets: What addresses may have read.
        metrics: Where it is counted what was open already.
        earnings: Who reckons what positions earned, if anyone does.
    """

    def __init__(
        self,
        hub: Hub,
        chains: Mapping[int, ServedChain],
        version: str,
        owners: tuple[str, ...],
        budgets: Budgets,
        metrics: Metrics,
        earnings: Earnings | None = None,
    ) -> None:
        self._hub = hub
        self._chains = chains
        self._version = version
        self._owners = owners
        self._earnings = earnings or NoEarnings()
        self._summaries = Summaries(metrics)
        self._hits = metrics.cache_hits.labels("channels")
        self._misses = metrics.cache_misses.labels("channels")
        self._budgets = budgets
        # Channels that are being charged right now: whoever asks for one of them meanwhile waits for what comes of it.
        self._charging: dict[str, asyncio.Future[None]] = {}

    @property
    def known(self) -> dict[int, frozenset[str]]:
        """Return the protocols served, by chain id."""
        return {chain_id: chain.kinds for chain_id, chain in self._chains.items()}

    def routes(self) -> list[web.RouteDef]:
        """Return all routes."""
        return [
            web.get("/api/v1/positions/summary", self.summary),
            web.get("/api/v1/positions/{tokenId}/details", self.details),
            web.get("/api/v1/snapshot", self.snapshot),
            web.get("/api/v1/info", self.info),
            web.get("/api/v1/owners", self.owners),
        ]

    # --- parameters -----------------------------------------------------------------------------------

    def one(self, request: web.Request, name: str) -> str | None:
        """Return a parameter; given twice it means something else to each reader, so to none here.

        Raises:
            ClientError: `bad_request`.
        """
        values = request.query.getall(name, [])
        if len(values) > 1:
            raise ClientError("bad_request", f"{name} is given {len(values)} times: give it once")
        return values[0] if values else None

    def chain_id(self, request: web.Request) -> ChainId:
        """Return the chain that a query means.

        Raises:
            ClientError: `bad_request`.
        """
        text = self.one(request, "chainId")
        served = ", ".join(map(str, sorted(self._chains)))
        if text is None:
            if len(self._chains) == 1:
                return ChainId(next(iter(self._chains)))
            raise ClientError("bad_request", f"several chains are served: add chainId, one of {served}")
        if not text.isascii() or not text.isdigit() or len(text) > 20 or int(text) not in self._chains:
            raise ClientError("bad_request", f"chainId {text[:40]!r} is not served here; served are {served}")
        return ChainId(int(text))

    def position_channel(self, request: web.Request) -> PositionChannel:
        """Return the channel that a path with a token id and a query mean.

        Raises:
            ClientError: `bad_request`.
        """
        chain_id = self.chain_id(request)
        kinds = sorted(self._chains[chain_id].kinds)
        named = self.one(request, "protocol")
        protocol = named or kinds[0]
        if len(kinds) > 1 and not named:
            raise ClientError("bad_request", f"several protocols are served: add protocol, one of {', '.join(kinds)}")
        try:
            channel = parse_channel(f"position:{chain_id}:{protocol}:{request.match_info['tokenId']}", self.known)
        except ClientError as error:
            raise ClientError("bad_request", error.message) from error
        assert isinstance(channel, PositionChannel)
        return channel

    # --- reading --------------------------------------------------------------------------------------

    async def open(self, channel: Channel, client: str | None) -> Stream:
        """Return a channel's stream, opening it where needed.

        Args:
            channel: The channel.
            client: The address on whose account it is opened; None for the server's own.

        Raises:
            ClientError: `load_timeout`, `chain_unavailable`, `rate`, or why the channel can't be.
        """
        stream = self._hub.peek(channel)
        if stream is not None:
            self._hits.inc()
            return stream
        if client is not None:
            await self.charge(channel, client)
        else:
            (self._hits if self._hub.knows(channel) else self._misses).inc()
        opened: asyncio.Future[Stream | ClientError] = asyncio.get_running_loop().create_future()

        def settle(result: Stream | ClientError) -> None:
            if not opened.done():
                opened.set_result(result)

        self._hub.when_open(channel, settle)
        result = await opened
        if isinstance(result, ClientError):
            raise result
        return result

    async def charge(self, channel: Channel, client: str) -> None:
        """Count a channel on the account of an address that asks for it; what is open or on its way costs nothing.

        Raises:
            ClientError: `rate`.
        """
        while not self._hub.knows(channel):
            charging = self._charging.get(channel.name)
            if charging is None:
                await self._charge(channel, client)
                self._misses.inc()
                return
            await asyncio.wait({charging})
        self._hits.inc()

    async def _charge(self, channel: Channel, client: str) -> None:
        charging = self._charging[channel.name] = asyncio.get_running_loop().create_future()
        try:
            await self._budgets.load(client)
        finally:
            del self._charging[channel.name]
            # Only now: those who wait look whether it is on its way after whoever paid has asked for it.
            asyncio.get_running_loop().call_soon(charging.set_result, None)

    async def _soon(self, channel: Channel, client: str | None, within_s: float) -> Stream | None:
        """Return a channel's stream for what an answer can do without: None where it isn't open soon."""
        try:
            async with asyncio.timeout(within_s):
                return await self.open(channel, client)
        except (ClientError, TimeoutError):
            return None

    async def charge_load(self, client: str | None) -> None:
        """Count a read of the database on the account of an address, as a channel that has to be opened.

        Raises:
            ClientError: `rate`.
        """
        if client is not None:
            await self._budgets.load(client)

    def anchor(self, stream: Stream) -> tuple[dict[str, Any], int]:
        """Return the block that a channel's state is of, and its age in milliseconds."""
        header = self._hub.head_of(stream)
        block = {"number": header.number, "hash": header.hash, "timestamp": header.timestamp}
        return block, self._hub.head_age_of_ms(stream)

    async def _beside(self, stream: Stream, other: Stream | None) -> Stream | None:
        """Return another channel's stream once both are at one block; None where they aren't soon.

        They are at once unless several engines share the chain.
        """
        deadline = time.monotonic() + _TOGETHER_S
        while other is not None and self._hub.head_of(stream).hash != self._hub.head_of(other).hash:
            if time.monotonic() > deadline:
                return None
            await asyncio.sleep(_LOOK_S)
        return other

    # --- answers --------------------------------------------------------------------------------------

    async def summary(self, request: web.Request) -> web.Response:
        """Answer a page of an owner's positions, and what all of them are worth together."""
        text = self.one(request, "owner")
        if not text:
            raise ClientError("bad_request", "owner is required: /api/v1/positions/summary?owner=0x…")
        owner = parse_address(text, what="owner")
        chain_id = self.chain_id(request)
        limit, after = parse_limit(self.one(request, "limit")), parse_place(self.one(request, "after"))
        channel = OwnerChannel(chain_id, owner)
        stream = await self.open(channel, request.remote)
        claimable = await self._claims(chain_id, owner, request.remote)
        for _ in range(_TRIES):
            overview = self._summaries.overview(stream)
            found, following = overview.page(stream.state, after, limit)
            block, age_ms = self.anchor(stream)
            # Copied before anything is waited for: all of it is of this block.
            positions = [dict(position) for position in found]
            glances = await self._earnings.earned(channel, [_key(one) for one in positions], is_brief=True)
            if self.anchor(stream)[0] == block:
                break
        for position, earned in zip(positions, glances, strict=True):
            position |= {"apr": earned.get("apr"), "earnedAmountUSD": earned.get("earnedAmountUSD")}
        body = {
            "owner": checksum(owner),
            "chainId": chain_id,
            "block": block,
            "ageMs": age_ms,
            "positions": positions,
            "next": following,
            "count": len(overview.places),
            "activeCount": overview.active,
            "stakedCount": overview.staked,
            "totalValueUSD": overview.total_value_usd,
            "totalFeesUSD": overview.total_fees_usd,
            "totalRewardsUSD": overview.total_rewards_usd,
            "unpriced": [position["tokenId"] for position in positions if position["valueUSD"] is None],
            "unpricedCount": overview.unpriced,
            "claimable": claimable,
        }
        return json_response(body, headers={"Age": str(age_ms // 1000), "Cache-Control": "no-cache"})

    async def _claims(self, chain_id: ChainId, owner: Address, remote: str | None) -> list[JsonObject] | None:
        """Return what an owner can claim, by token, or None where that isn't known yet."""
        stream = await self._soon(RewardsChannel(chain_id, owner), remote, _CLAIMS_S)
        return None if stream is None else [stream.state[key] for key in sorted(stream.state)]

    async def details(self, request: web.Request) -> web.Response:
        """Answer everything that is known of one position; what is not known yet is null."""
        channel = self.position_channel(request)
        stream = await self.open(channel, request.remote)
        all_prices = await self._soon(PricesChannel(channel.chain_id), None, _PRICES_S)
        earned: Earned = {}
        for _ in range(_TRIES):
            if str(channel.token_id) in stream.state:
                (earned,) = await self._earnings.earned(channel, [(channel.protocol, channel.token_id)], is_brief=False)
            before = self.anchor(stream)[0]
            prices = await self._beside(stream, all_prices)
            if self.anchor(stream)[0] == before:
                break
        # From here on nothing is waited for: what was earned is of the head, and so is the rest.
        position = stream.state.get(str(channel.token_id))
        block, age_ms = self.anchor(stream)
        if position is None:
            raise ClientError("not_found", _missing(channel.token_id, block["number"]))
        # All of it is of one block.
        known = {} if prices is None else prices.state
        body = {**details_of(position, known, earned), "block": block, "ageMs": age_ms}
        return json_response(body, headers={"Age": str(age_ms // 1000), "Cache-Control": "no-cache"})

    async def snapshot(self, request: web.Request) -> web.Response:
        """Answer a channel's state with the cursor from which a socket goes on."""
        name = self.one(request, "channel")
        if not name:
            raise ClientError("bad_request", "channel is required: /api/v1/snapshot?channel=owner:1:0x…")
        channel = parse_channel(name, self.known)
        stream = await self.open(channel, request.remote)
        block, age_ms = self.anchor(stream)
        # Weak: the block moves on while the state stays what it is.
        etag = f'W/"{stream.cursor}"'
        headers = {"ETag": etag, "Age": str(age_ms // 1000), "Cache-Control": "no-cache"}
        if is_unchanged(request, etag):
            return web.Response(status=304, headers=headers)
        body = {
            "channel": channel.name,
            "epoch": stream.epoch,
            "seq": stream.seq,
            "block": block,
            "ageMs": age_ms,
            "state": stream.state,
            "checksum": stream.checksum(),
            "cursor": stream.cursor,
        }
        return json_response(body, headers=headers)

    async def info(self, request: web.Request) -> web.Response:
        """Answer what is served here."""
        chains = [
            {"chainId": chain.chain_id, "name": chain.name, "protocols": chain.protocols}
            for chain in self._chains.values()
        ]
        return json_response({"version": self._version, "chains": chains})

    async def owners(self, request: web.Request) -> web.Response:
        """Answer the owners that the page offers to look at, with their number of positions."""
        counts = await asyncio.gather(*(self._count(parse_address(owner)) for owner in self._owners))
        entries = [
            {"owner": checksum(parse_address(owner)), "positions": count}
            for owner, count in zip(self._owners, counts, strict=True)
        ]
        return json_response({"owners": entries})

    async def _count(self, owner: Address) -> int | None:
        """Return how many positions an owner has on all chains, None while one of them does not answer."""
        try:
            streams = [await self.open(OwnerChannel(ChainId(chain_id), owner), None) for chain_id in self._chains]
        except ClientError:
            return None
        return sum(len(stream.state) for stream in streams)


def _key(position: JsonObject) -> PositionKey:
    return str(position["protocol"]), TokenId(int(str(position["tokenId"])))


def _missing(token_id: TokenId, block: int) -> str:
    return f"no position {token_id} at block {block}: it was burned, or it was never minted"
