"""The edge on a real socket, with a scripted engine behind the hub: what it opens and refuses, tests write."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
from aiohttp import web
from websockets.asyncio.client import ClientConnection, connect

from rtserver.domain.chain import BlockRef, Header, Rollback
from rtserver.domain.diff import Change, JsonObject, State
from rtserver.domain.errors import ClientError
from rtserver.domain.ids import BlockHash, ChainId, TokenId
from rtserver.domain.update import BlockUpdate
from rtserver.edge.budgets import Budgets, local_budgets
from rtserver.edge.connections import EdgeRunner
from rtserver.edge.docs import docs_routes
from rtserver.edge.earnings import Earnings
from rtserver.edge.health import Health
from rtserver.edge.history import HistoryApi
from rtserver.edge.pages import page_routes
from rtserver.edge.past_answers import PastAnswers
from rtserver.edge.prices import PricesApi
from rtserver.edge.problems import problem_middleware
from rtserver.edge.proxies import Proxies
from rtserver.edge.rest import Rest, ServedChain
from rtserver.edge.ws import Sockets
from rtserver.hub.hub import Hub
from rtserver.hub.limits import Limits
from rtserver.obs.metrics import Metrics
from rtserver.protocols.channels import Channel

__all__ = ["CHAIN", "OWNER", "Json", "Served", "position", "receive", "served"]

CHAIN = ChainId(31337)
OWNER = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
Json = dict[str, Any]


# As the engine shows tokens.
TOKENS: tuple[JsonObject, JsonObject] = (
    {"address": "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2", "symbol": "A", "decimals": 18, "flags": []},
    {"address": "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48", "symbol": "B", "decimals": 6, "flags": []},
)


def position(token_id: int, value: str | None = "10.00") -> JsonObject:
    """Return a position as an engine would."""
    return {
        "tokenId": str(token_id), "chainId": CHAIN, "protocol": "uniswap-v3", "owner": OWNER, "pair": "A/B",
        "token0": TOKENS[0], "token1": TOKENS[1], "isActive": True, "isStaked": False, "rewards": None,
        "rewardsUSD": None, "fees0": "1", "fees1": "2", "collectable0": "3", "collectable1": "4",
        "feesUSD": None, "valueUSD": value,
    }  # fmt: skip


class Past:
    """A past that a test writes: what every question is answered, and what was asked."""

    def __init__(self) -> None:
        self.answer: JsonObject | ClientError = {"points": [], "coveredSeconds": 0}
        self.asked: list[tuple[int, str, int, int, int]] = []

    async def read(self, chain_id: ChainId, protocol: str, token_id: TokenId, length_s: int, count: int) -> JsonObject:
        self.asked.append((chain_id, protocol, token_id, length_s, count))
        if isinstance(self.answer, ClientError):
            raise self.answer
        return self.answer


class Served:
    """A server, the engine that a test plays, and clients for it."""

    def __init__(
        self,
        limits: Limits,
        origins: tuple[str, ...],
        chain_ids: tuple[int, ...],
        proxies: Proxies,
        earnings: Earnings | None = None,
        *,
        keeps_past: bool = True,
        budgets: Budgets | None = None,
    ) -> None:
        self.now = 5000.0
        self.metrics = Metrics()
        self.hub = Hub(self, limits, self.metrics, clock=lambda: self.now)
        chains = {
            chain_id: ServedChain(ChainId(chain_id), f"chain{chain_id}", [{"kind": "uniswap-v3"}], 20.0)
            for chain_id in chain_ids
        }
        budgets = budgets or local_budgets(limits)
        self.rest = Rest(self.hub, chains, "1.2.3", (OWNER.lower(),), budgets, self.metrics, earnings)
        self.health = Health(self.hub, chains, self.metrics)
        self.sockets = Sockets(self.hub, self.rest, origins, budgets)
        self.app = web.Application(middlewares=[problem_middleware(self.metrics, origins, proxies)])
        self.app.add_routes([*self.rest.routes(), *PricesApi(self.rest).routes()])
        self.past = Past()
        self.app.add_routes(
            HistoryApi(self.rest, self.past if keeps_past else None, PastAnswers(self.hub.turns, self.metrics)).routes()
        )
        self.app.add_routes([*self.health.routes(), *self.sockets.routes(), *docs_routes("1.2.3"), *page_routes()])
        self.port = 0
        self.runner: EdgeRunner
        self.http: aiohttp.ClientSession
        # What the engine answers: a state, or a refusal; a name that is missing is never answered.
        self.states: dict[str, State | ClientError] = {}
        self.wanted: list[str] = []
        self.was_wanted = asyncio.Event()
        self.head: Header | None = None

    @property
    def connections(self) -> list[web.RequestHandler]:
        """Return what is connected."""
        assert self.runner.server is not None
        return self.runner.server.connections

    # --- the engine's side ----------------------------------------------------------------------------

    def mine(self, **changes: Change) -> None:
        """Publish a new head, with changes by channel name."""
        number = 1 if self.head is None else self.head.number + 1
        self.head = Header(
            number=number,
            hash=BlockHash(f"0x{number:08x}" + "0" * 56),
            parent_hash=BlockHash("0x0"),
            timestamp=1_700_000_000 + number,
            logs_bloom=0,
        )
        self.hub.publish(BlockUpdate(chain_id=CHAIN, header=self.head, changes=changes))

    def reorg(self) -> None:
        """Replace the head by another block of its height."""
        assert self.head is not None
        old, self.head = self.head, replace(self.head, hash=BlockHash(f"{self.head.hash[:-1]}1"))
        to = BlockRef(number=old.number - 1, hash=old.parent_hash)
        self.hub.publish(BlockUpdate(chain_id=CHAIN, header=self.head, rollback=Rollback(to=to, dropped=(old.hash,))))

    def want(self, channel: Channel) -> None:
        """Answer a wish at once, as the script says."""
        self.wanted.append(channel.name)
        self.was_wanted.set()
        # Asked for with every summary, and with every position's details: none, unless a test says so.
        nothing: State | None = {} if channel.name.startswith(("rewards:", "prices:")) else None
        answer = self.states.get(channel.name, nothing)
        if answer is None or self.head is None:
            return
        update = BlockUpdate(chain_id=CHAIN, header=self.head, is_new_head=False)
        if isinstance(answer, ClientError):
            update.refused[channel.name] = answer
        else:
            update.opened[channel.name] = answer
        self.hub.publish(update)

    def unwant(self, channel: Channel) -> None:
        """Take note of nothing."""

    # --- clients --------------------------------------------------------------------------------------

    async def get(self, path: str, **headers: str) -> tuple[aiohttp.ClientResponse, Any]:
        """Return the response and its body, read as JSON where it is."""
        return await self.ask("GET", path, **headers)

    async def ask(self, method: str, path: str, **headers: str) -> tuple[aiohttp.ClientResponse, Any]:
        """Return the response to any method; underscores in header names stand for hyphens."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.request(method, f"http://127.0.0.1:{self.port}{path}", headers=sent) as response:
            text = await response.text()
            is_json = text and "json" in response.headers.get("Content-Type", "")
            return response, json.loads(text) if is_json else text

    def connect(self, path: str = "/ws", **options: Any) -> connect:
        """Return a WebSocket client."""
        return connect(f"ws://127.0.0.1:{self.port}{path}", compression=None, **options)


async def receive(socket: ClientConnection, *types: str) -> list[Json]:
    """Return the next messages, which have to be of these types."""
    messages = [json.loads(await socket.recv()) for _ in types]
    assert [message["type"] for message in messages] == list(types)
    return messages


@asynccontextmanager
async def served(
    *,
    limits: Limits | None = None,
    origins: tuple[str, ...] = ("*",),
    chain_ids: tuple[int, ...] = (CHAIN,),
    trusted: tuple[str, ...] = (),
    earnings: Earnings | None = None,
    keeps_past: bool = True,
    budgets: Budgets | None = None,
    **times: float,
) -> AsyncIterator[Served]:
    """Serve on a free port; times in seconds as an EdgeRunner takes them."""
    proxies = Proxies(trusted)
    made = Served(limits or Limits(), origins, chain_ids, proxies, earnings, keeps_past=keeps_past, budgets=budgets)
    runner = EdgeRunner(
        made.app, limits=made.hub.limits, metrics=made.metrics, proxies=proxies, shutdown_timeout=0.1, **times
    )
    made.runner = runner
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    try:
        async with aiohttp.ClientSession() as made.http:
            yield made
    finally:
        await runner.cleanup()
