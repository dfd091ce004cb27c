"""The far end of the page in a test's hands: its files from disk, its socket played by the test.

It holds the true state of channels and writes frames with correct checksums; it decides nothing about the page.
"""

from __future__ import annotations

import asyncio
import copy
import json
import mimetypes
import zlib
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from playwright.async_api import Page, Route, WebSocketRoute

from rtserver.web import CONTENT_SECURITY_POLICY, INDEX_HTML, STATIC_DIR

__all__ = [
    "CHAIN_ID",
    "FIRST_BLOCK",
    "ORIGIN",
    "OWNER",
    "OWNER_CHANNEL",
    "Refused",
    "ScriptedServer",
    "block_of",
    "position",
]

ORIGIN: Final = "http://rtserver.test"  # never resolved: every request of the page is answered here
CHAIN_ID: Final = 31337
OWNER: Final = f"0x{'a1' * 20}"
OWNER_CHANNEL: Final = f"owner:{CHAIN_ID}:{OWNER}"
HEAD_CHANNEL: Final = f"head:{CHAIN_ID}"
FIRST_BLOCK: Final = 1_234_567
ANSWER_TIMEOUT_S: Final = 10

State = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Refused:
    """A REST answer that is none."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)


def position(token_id: int, **fields: Any) -> dict[str, Any]:
    """A position of 0.5 WETH and 1,500 USDC in range, with what a test wants to be different."""
    return {
        "tokenId": str(token_id),
        "chainId": CHAIN_ID,
        "protocol": "uniswap-v3",
        "owner": OWNER,
        "pool": f"0x{'99' * 20}",
        "pair": "WETH/USDC",
        "feePips": 500,
        "token0": {"address": f"0x{'01' * 20}", "symbol": "WETH", "decimals": 18},
        "token1": {"address": f"0x{'02' * 20}", "symbol": "USDC", "decimals": 6},
        "tickLower": -200_000,
        "tickUpper": -190_000,
        "tick": -195_000,
        "liquidity": "1000000000000",
        "isActive": True,
        "isStaked": False,
        "amount0": "500000000000000000",
        "amount1": "1500000000",
        "fees0": "1000000000000000",
        "fees1": "2500000",
        "collectable0": "1000000000000000",
        "collectable1": "2500000",
        "priceLower": "2061.15",
        "price": "3400.25",
        "priceUpper": "5602.10",
        "valueUSD": "3000.00",
        "feesUSD": "5.50",
        "rewards": None,
        "rewardsUSD": None,
        "priceDeviation": False,
        **fields,
    }


def _key(token_id: int) -> str:
    return f"uniswap-v3:{token_id}"


class ScriptedServer:
    """Serves the page of one test. `attach` first, then `goto` with the page."""

    def __init__(
        self,
        *positions: dict[str, Any],
        owners: list[dict[str, Any]] | None = None,
        chains: tuple[int, ...] = (CHAIN_ID,),
    ) -> None:
        self.owners = owners
        # All positions are on the first one.
        self.chains = chains
        # What REST answers, by path: JSON, a `Refused`, or who says so when given the address. And what was asked.
        self.rest: dict[str, Any] = {}
        self.asked: list[str] = []
        self.number = FIRST_BLOCK
        self.state: dict[str, State] = {
            OWNER_CHANNEL: {_key(int(p["tokenId"])): copy.deepcopy(p) for p in positions},
            HEAD_CHANNEL: {"head": {}},
        }
        self.state[HEAD_CHANNEL]["head"] = self.block
        self.seq: dict[str, int] = dict.fromkeys(self.state, 1)
        self.connections = 0
        self.received: list[dict[str, Any]] = []
        self.accepting = True
        self._socket: WebSocketRoute | None = None
        self._subscribed: set[str] = set()
        self._arrived = asyncio.Condition()

    async def attach(self, page: Page) -> None:
        await page.route(f"{ORIGIN}/**", self._serve)
        await page.route_web_socket(f"{ORIGIN.replace('http', 'ws')}/ws", self._connect)

    async def _serve(self, route: Route) -> None:
        path = route.request.url.removeprefix(ORIGIN).partition("?")[0]
        if path == "/api/v1/owners" and self.owners is not None:
            await route.fulfill(json={"owners": self.owners})
            return
        if path.startswith("/api/"):
            async with self._arrived:
                self.asked.append(route.request.url.removeprefix(ORIGIN))
                self._arrived.notify_all()
            if path in self.rest:
                answer = self.rest[path]
                if callable(answer):
                    answer = await answer(route.request.url)
                if isinstance(answer, Refused):
                    await route.fulfill(status=answer.status, headers=answer.headers, json={})
                else:
                    await route.fulfill(json=answer)
                return
        file = INDEX_HTML if path == "/" else STATIC_DIR / path.removeprefix("/static/")
        if path != "/" and not (path.startswith("/static/") and file.is_file()):
            await route.fulfill(status=404, body="")
            return
        await route.fulfill(
            body=file.read_bytes(),
            headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY},
            content_type=mimetypes.guess_type(file.name)[0] or "application/octet-stream",
        )

    def _connect(self, socket: WebSocketRoute) -> None:
        self.connections += 1
        self._subscribed = set()
        self._socket = socket
        socket.on_message(self._receive)
        heads = {str(chain_id): {**self.block, "ageMs": 0} for chain_id in self.chains}
        welcome = {"type": "welcome", "session": "s", "protocol": "rtserver.v1", "limits": {}}
        if self.accepting:
            self.send({**welcome, "heartbeatMs": 15_000, "heads": heads})

    async def _receive(self, text: str | bytes) -> None:
        message = json.loads(text)
        channel = message.get("channel", "")
        if message["type"] in {"subscribe", "resync"} and self.accepting:
            self._answer(message, self.state.setdefault(channel, {}), self.seq.setdefault(channel, 1))
            self._subscribed.add(channel)
        async with self._arrived:
            self.received.append(message)
            self._arrived.notify_all()

    def _answer(self, message: dict[str, Any], state: State, seq: int) -> None:
        channel, cursor = message["channel"], f"c{seq}"
        common = {"id": message["id"], "channel": channel, "epoch": "e", "seq": seq, "cursor": cursor}
        resumes = message.get("cursor") == cursor
        if not resumes:
            body = {"block": self.block, "state": state, "checksum": _checksum(state)}
            self.send({"type": "snapshot", **common, **body, "part": 1, "parts": 1})
        self.send({"type": "subscribed", **common, "how": "resumed" if resumes else "snapshot"})

    async def wait_for(self, kind: str, *, count: int = 1, channel: str | None = None) -> list[dict[str, Any]]:
        """Wait until the page has sent `count` messages of a kind."""

        def matching() -> list[dict[str, Any]]:
            return [m for m in self.received if m["type"] == kind and channel in (None, m.get("channel"))]

        async with asyncio.timeout(ANSWER_TIMEOUT_S), self._arrived:
            await self._arrived.wait_for(lambda: len(matching()) >= count)
        return matching()

    async def was_asked(self, part: str, *, count: int = 1) -> list[str]:
        """Wait until the page has sent `count` REST requests that hold a text."""

        def matching() -> list[str]:
            return [url for url in self.asked if part in url]

        async with asyncio.timeout(ANSWER_TIMEOUT_S), self._arrived:
            await self._arrived.wait_for(lambda: len(matching()) >= count)
        return matching()

    def send(self, message: dict[str, Any]) -> None:
        assert self._socket is not None
        self._socket.send(json.dumps(message))

    def mine(
        self,
        *,
        patch: dict[int, dict[str, Any]] | None = None,
        add: list[dict[str, Any]] | None = None,
        remove: list[int] | None = None,
        blocks: int = 1,
        rollback: dict[str, Any] | None = None,
    ) -> None:
        """One block that changes positions by token id, sent to the page as one frame."""
        self.number += blocks
        state = self.state[OWNER_CHANNEL]
        patches = {_key(token_id): fields for token_id, fields in (patch or {}).items()}
        sets = {_key(int(p["tokenId"])): copy.deepcopy(p) for p in add or []}
        removed = [_key(token_id) for token_id in remove or []]
        for key, fields in patches.items():
            state[key].update(fields)
        state.update(sets)
        for key in removed:
            del state[key]
        head = self.block
        self.state[HEAD_CHANNEL]["head"] = head
        changes = [
            self._change(OWNER_CHANNEL, patch=patches, set=sets, remove=removed),
            self._change(HEAD_CHANNEL, set={"head": head}),
        ]
        frame = {
            "type": "block",
            "chainId": CHAIN_ID,
            "block": head,
            "changes": [change for change in changes if change["channel"] in self._subscribed],
        }
        self.send(frame if rollback is None else {**frame, "rollback": rollback})

    def _change(self, channel: str, **parts: Any) -> dict[str, Any]:
        self.seq[channel] += 1
        seq = self.seq[channel]
        proof = {"checksum": _checksum(self.state[channel]), "cursor": f"c{seq}"}
        return {"channel": channel, "epoch": "e", "prev": seq - 1, "seq": seq, **parts, **proof}

    async def drop(self, code: int = 1012) -> None:
        assert self._socket is not None
        await self._socket.close(code=code, reason="")

    @property
    def block(self) -> dict[str, Any]:
        """Return the newest block."""
        return block_of(self.number)


def block_of(number: int) -> dict[str, Any]:
    """Return the block at a height of the scripted chain."""
    return {
        "number": number,
        "hash": f"0x{number:064x}",
        "parentHash": f"0x{number - 1:064x}",
        "timestamp": 1_700_000_000 + number,
    }


def _checksum(state: State) -> int:
    parts = (zlib.crc32(k.encode() + orjson.dumps(v, option=orjson.OPT_SORT_KEYS)) for k, v in state.items())
    return sum(parts) % 2**32
