"""An engine on a real node with a sink that keeps what a client would, and the chain's own answers beside it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from eth_abi.abi import decode, encode
from orjson import loads

from rtserver.chain.linker import Linker
from rtserver.chain.reader import ChainReader
from rtserver.chain.rpc import Endpoint, HttpEndpoint, RpcError, WsEndpoint
from rtserver.chain.source import ChainSource
from rtserver.demo.lab import Lab
from rtserver.demo.market import Market
from rtserver.domain.diff import Change, State, apply
from rtserver.domain.errors import ClientError
from rtserver.domain.ids import Address, ChainId
from rtserver.domain.update import BlockUpdate
from rtserver.engine.core import EngineCore
from rtserver.engine.runner import ChainRunner
from rtserver.obs.metrics import Metrics
from rtserver.protocols.base import Book
from rtserver.protocols.channels import Channel, OwnerChannel, PoolChannel, PositionChannel, RewardsChannel
from rtserver.protocols.registry import adapters
from rtserver.worth.aggregator import Aggregator, PricePolicy
from rtserver.worth.chainlink import Feed

CHAIN = ChainId(31337)
KIND = "uniswap-v3"
MAX_U128 = 2**128 - 1
MAX_U256 = 2**256 - 1


class Keeper:
    """A sink that keeps every channel's state by applying changes only, as a client does."""

    def __init__(self) -> None:
        self.states: dict[str, State] = {}
        self.refused: dict[str, ClientError] = {}
        self.updates: list[BlockUpdate] = []
        self._news = asyncio.Event()

    def publish(self, update: BlockUpdate) -> None:
        for name, change in update.changes.items():
            apply(self.states[name], change)
        for name, patched in update.patched.items():
            assert not patched.keys() & (update.changes[name].set.keys() if name in update.changes else set())
            apply(self.states[name], Change(patch={key: loads(text) for key, (_, text) in patched.items()}))
        for batch in update.lone:
            for name, text in zip(batch.channels, batch.texts, strict=True):
                (key,) = self.states[name]
                apply(self.states[name], Change(patch={key: loads(text)}))
        for name, state in update.opened.items():
            self.states[name] = {key: dict(value) for key, value in state.items()}
        self.refused.update(update.refused)
        self.updates.append(update)
        self._news.set()

    @property
    def head(self) -> str:
        return self.updates[-1].header.hash if self.updates else ""

    async def until(self, condition: Any, *, within_s: float = 20.0) -> None:
        """Wait until a condition holds; re-examined at every step."""
        async with asyncio.timeout(within_s):
            while not condition():
                self._news.clear()
                await self._news.wait()


class World:
    """A lab, an engine that follows its chain, and what a client would know."""

    def __init__(
        self,
        lab: Lab,
        runner: ChainRunner,
        keeper: Keeper,
        reader: ChainReader,
        metrics: Metrics,
        source: ChainSource,
    ) -> None:
        self.lab = lab
        self.runner = runner
        self.keeper = keeper
        self.reader = reader
        self.metrics = metrics
        self.source = source
        self._node = HttpEndpoint(lab.node.http_url, timeout_s=30)
        self.staking = False
        self.book: Book | None = None
        self.prices: Aggregator | None = None

    # --- wishes ---------------------------------------------------------------------------------------

    async def open(self, *channels: Channel) -> None:
        """Open channels and wait for their state."""
        for channel in channels:
            self.runner.want(channel)
        names = [channel.name for channel in channels]
        await self.keeper.until(
            lambda: all(name in self.keeper.states or name in self.keeper.refused for name in names)
        )

    async def open_owners(self, owners: Iterable[str] | None = None) -> None:
        await self.open(*(owner_channel(owner) for owner in owners or self.lab.owners))

    def owner(self, owner: str) -> State:
        return self.keeper.states[owner_channel(owner).name]

    def position(self, token_id: int) -> dict[str, Any]:
        state = self.keeper.states[position_channel(token_id).name]
        return state[str(token_id)]

    async def settled(self, block_hash: str | None = None) -> None:
        """Wait until the engine has published the chain's head."""
        wanted = (block_hash or self.lab.head.hash).lower()
        await self.keeper.until(lambda: self.keeper.head == wanted)

    def positions(self) -> Iterable[dict[str, Any]]:
        """Yield every position that any channel shows, once for each channel."""
        for name, state in self.keeper.states.items():
            if name.startswith(("owner:", "position:")):
                yield from state.values()

    async def rewarded(self) -> None:
        """Wait until every staked position says what it earned: what the past tells may come a frame later."""
        await self.keeper.until(lambda: all(view["rewards"] for view in self.positions() if view["isStaked"]))

    async def remembered(self) -> None:
        """Wait until the past of every position has been read, as far as it can be."""
        assert self.book is not None
        book = self.book
        await self.keeper.until(lambda: not book.tracked["unread_pasts"])

    # --- the truth ------------------------------------------------------------------------------------

    async def batch(self, requests: Sequence[tuple[str, list[Any]]]) -> list[Any]:
        answers: list[Any] = []
        for start in range(0, len(requests), 200):
            answers += await self._node.send(requests[start : start + 200])
        return answers

    def _call(self, signature: bytes, args: bytes, block: str, sender: str | None = None) -> tuple[str, list[Any]]:
        call = {"to": self.lab.deployment.position_manager, "data": "0x" + (signature + args).hex()}
        if sender is not None:
            call["from"] = sender
        return "eth_call", [call, {"blockHash": block}]

    async def truth(self, views: Sequence[dict[str, Any]], block: str) -> list[str]:
        """Return every difference between views and the chain's own answers at a block."""
        requests = []
        for view in views:
            token_id, owner, liquidity = int(view["tokenId"]), view["owner"], int(view["liquidity"])
            if self.staking and self.lab.book.nfts[token_id].owner == self.lab.deployment.staker:
                owner = self.lab.deployment.staker  # who may withdraw and collect, not whose it is
            requests.append(self._call(bytes.fromhex("99fbab88"), encode(["uint256"], [token_id]), block))
            requests.append(self._call(bytes.fromhex("6352211e"), encode(["uint256"], [token_id]), block))
            args = encode(["(uint256,uint128,uint256,uint256,uint256)"], [(token_id, liquidity, 0, 0, MAX_U256)])
            requests.append(self._call(bytes.fromhex("0c49ccbe"), args, block, owner))
            args = encode(["(uint256,address,uint128,uint128)"], [(token_id, owner, MAX_U128, MAX_U128)])
            requests.append(self._call(bytes.fromhex("fc6f7865"), args, block, owner))
            requests.append(("eth_call", [{"to": view["pool"], "data": "0x3850c7bd"}, {"blockHash": block}]))
        answers = iter(await self.batch(requests))
        differences = []
        for view in views:
            position, holder, principal, collected, slot0 = (next(answers) for _ in range(5))
            if isinstance(position, RpcError):
                differences.append(f"{view['tokenId']} is served but does not exist at {block}")
                continue
            fields = decode(["uint96", "address", "address", "address", "uint24", "int24", "int24", "uint128"],
                            bytes.fromhex(position[2:])[: 8 * 32])  # fmt: skip
            amounts = (0, 0) if int(view["liquidity"]) == 0 else _pair(principal)
            _, tick = decode(["uint160", "int24"], bytes.fromhex(slot0[2:])[:64])
            expected = {
                "liquidity": str(fields[7]),
                "tickLower": fields[5],
                "tickUpper": fields[6],
                "feePips": fields[4],
                "tick": tick,
                "isActive": fields[7] > 0 and fields[5] <= tick < fields[6],
                "amount0": str(amounts[0]),
                "amount1": str(amounts[1]),
                "collectable0": str(_pair(collected)[0]),
                "collectable1": str(_pair(collected)[1]),
            }
            (owner,) = decode(["address"], bytes.fromhex(holder[2:]))
            if self.staking and owner.lower() == self.lab.deployment.staker:
                owner = view["owner"]  # whose it is there, the staker says
            if owner.lower() != view["owner"].lower():
                differences.append(f"{view['tokenId']} owner: {view['owner']} against {owner}")
            differences += [
                f"{view['tokenId']} {name}: {view[name]!r} against {value!r}"
                for name, value in expected.items()
                if view[name] != value
            ]
        return differences

    async def assert_exact(self, block: str | None = None) -> int:
        """Compare everything that is kept with the chain at a block; return how many positions that was."""
        block = block or self.keeper.head
        views = {
            (name, key): view
            for name, state in self.keeper.states.items()
            if name.startswith(("owner:", "position:"))
            for key, view in state.items()
        }
        differences = await self.truth(list(views.values()), block)
        assert not differences, "\n".join(differences[:20])
        return len(views)

    async def assert_same_owners(self, owners: Iterable[str] | None = None) -> None:
        """Compare who holds what with the chain."""
        for owner in owners or self.lab.owners:
            if owner_channel(owner).name not in self.keeper.states:
                continue
            held = {f"{KIND}:{token_id}" for token_id in self.lab.book.owned_by(owner)}
            assert set(self.owner(owner)) == held, owner

    async def fresh(self) -> Keeper:
        """Load the same channels anew at the same head; the chain must stand still."""
        async with open_world(self.lab, staking=self.staking) as other:
            for name in self.keeper.states:
                await other.open(parse(name))
            assert other.keeper.head == self.keeper.head
            return other.keeper

    async def close(self) -> None:
        await self._node.close()


def _pair(answer: Any) -> tuple[int, int]:
    assert isinstance(answer, str), answer
    return decode(["uint256", "uint256"], bytes.fromhex(answer[2:]))


def owner_channel(owner: str) -> OwnerChannel:
    return OwnerChannel(CHAIN, Address(owner.lower()))


def rewards_channel(owner: str) -> RewardsChannel:
    return RewardsChannel(CHAIN, Address(owner.lower()))


def position_channel(token_id: int) -> PositionChannel:
    return PositionChannel(CHAIN, KIND, token_id)  # type: ignore[arg-type]


def pool_channel(pool: str) -> PoolChannel:
    return PoolChannel(CHAIN, Address(pool.lower()))


def parse(name: str) -> Channel:
    from rtserver.protocols.channels import parse_channel

    return parse_channel(name, {int(CHAIN): frozenset({KIND})})


@asynccontextmanager
async def open_world(
    lab: Lab,
    *,
    http: str | Sequence[str] | None = None,
    ws: str | None = None,
    reads: str = "http",
    staking: bool = False,
    rewards_every_s: float = 0.0,
    looks_back: bool = False,
    hops: Sequence[str] = (),
    feeds: Sequence[Feed] = (),
    policy: PricePolicy | None = None,
    is_awaited: bool = True,
    timeout_s: float = 10.0,
    **options: Any,
) -> AsyncIterator[World]:
    """Run an engine on the lab's node, or on endpoints in front of it; with the staker known to it
    or not; once its subscription is open, or `is_awaited` is False; `options` are the source's."""
    metrics = Metrics()
    urls = [http] if isinstance(http, str) else http or [lab.node.http_url]
    endpoints: list[Endpoint] = [HttpEndpoint(url, timeout_s=timeout_s) for url in urls]
    if reads == "ws":
        endpoints = [WsEndpoint(ws or lab.node.ws_url, timeout_s=timeout_s)]
    reader = ChainReader("local", endpoints, metrics)
    source = ChainSource(
        chain_id=CHAIN,
        name="local",
        reader=reader,
        metrics=metrics,
        linker=Linker(),
        nodes=reader.nodes(),
        heard=reader.saw,
        **{"ws_urls": [ws or lab.node.ws_url], "silence_s": 60.0, "connect_timeout_s": 5, **options},
    )
    dollars = [Address(token.lower()) for token in lab.deployment.stablecoins]
    book = adapters()[KIND].build(
        CHAIN,
        Address(lab.deployment.factory.lower()),
        Address(lab.deployment.position_manager.lower()),
        None,
        dollars,
        hops=[Address(token.lower()) for token in hops],
        staker=Address(lab.deployment.staker.lower()) if staking else None,
        rewards_every_s=rewards_every_s,
        looks_back=looks_back,
    )
    keeper = Keeper()
    prices = Aggregator(
        CHAIN,
        stablecoins=dollars,
        hops=[Address(token.lower()) for token in hops],
        feeds=feeds,
        policy=policy,
        clock=time.time,
    )
    core = EngineCore(CHAIN, {KIND: book}, prices)
    runner = ChainRunner(name="local", core=core, source=source, reader=reader, sink=keeper, metrics=metrics)
    world = World(lab, runner, keeper, reader, metrics, source)
    world.staking = staking
    world.book = book
    world.prices = prices
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(source.run()), group.create_task(runner.run())]
        try:
            await keeper.until(lambda: keeper.updates)
            if is_awaited and options.get("ws_urls") != []:
                await source.subscribed()
            yield world
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)  # a read in flight ends before its connection does
            await world.close()
            await reader.close()


@asynccontextmanager
async def open_market(
    lab: Lab, *, seed: int, reads: str = "http", **options: Any
) -> AsyncIterator[tuple[Market, World]]:
    """Trade for thirty blocks, then run an engine that knows all owners."""
    market = Market(lab, seed=seed)
    await market.steps(30)
    async with open_world(lab, reads=reads, **options) as world:
        await world.open_owners()
        yield market, world
