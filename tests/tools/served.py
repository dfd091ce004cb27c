"""A server that says exactly what the chain says, and lies where a test asks for it.

Its objects are made from the chain's own answers, so `verify` must find them equal; its socket is scripted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from typing import Any

from client.messages import Told, block_frame
from client.scripted import Peer
from websockets.exceptions import ConnectionClosed

from rtserver.chain.rpc import HttpEndpoint
from rtserver.demo.lab import Lab
from rtserver.domain.diff import JsonObject, State, diff
from rtserver.domain.ids import Address
from rtserver.protocols.addresses import checksum
from rtserver.tools.compare import sqrt_price_at
from rtserver.tools.truth import PositionTruth, TokenTruth, Truth

__all__ = ["Served", "entry_of"]

PROTOCOL = "uniswap-v3"


def price_of(sqrt_price: Decimal, truth: PositionTruth) -> str | None:
    if truth.token0.decimals is None or truth.token1.decimals is None or not sqrt_price:
        return None
    price = (sqrt_price * sqrt_price).scaleb(truth.token0.decimals - truth.token1.decimals)
    return f"{price:.18g}" if price < 1 else f"{price:f}"


def token_view(token: TokenTruth) -> JsonObject:
    return {"address": checksum(token.address), "symbol": token.symbol, "decimals": token.decimals}


def entry_of(truth: PositionTruth, chain_id: int) -> JsonObject:
    """A served position that is what the chain says."""
    nft, pool = truth.nft, truth.pool
    assert truth.amounts is not None and truth.collectable is not None
    return {
        "tokenId": str(truth.token_id),
        "chainId": chain_id,
        "protocol": PROTOCOL,
        "owner": checksum(truth.holder),
        "pool": checksum(pool.address),
        "pair": f"{truth.token0.symbol}/{truth.token1.symbol}",
        "feePips": nft.fee_pips,
        "token0": token_view(truth.token0),
        "token1": token_view(truth.token1),
        "tickLower": nft.lower,
        "tickUpper": nft.upper,
        "tick": pool.tick,
        "liquidity": str(nft.liquidity),
        "isActive": nft.liquidity > 0 and nft.lower <= pool.tick < nft.upper,
        "isStaked": truth.stakes > 0,
        "rewards": None,
        "rewardsUSD": None,
        "priceDeviation": False,
        "amount0": str(truth.amounts[0]),
        "amount1": str(truth.amounts[1]),
        "fees0": str(truth.collectable[0]) if not nft.owed0 else None,
        "fees1": str(truth.collectable[1]) if not nft.owed1 else None,
        "collectable0": str(truth.collectable[0]),
        "collectable1": str(truth.collectable[1]),
        "priceLower": price_of(sqrt_price_at(nft.lower), truth),
        "price": price_of(Decimal(pool.sqrt_price) / 2**96, truth),
        "priceUpper": price_of(sqrt_price_at(nft.upper), truth),
        "valueUSD": None,
        "feesUSD": None,
    }


class Served:
    """The owners of a lab as channels, one block after the other."""

    def __init__(self, lab: Lab, endpoint: HttpEndpoint) -> None:
        self.lab = lab
        self.truth = Truth(
            endpoint,
            Address(lab.deployment.position_manager.lower()),
            Address(lab.deployment.factory.lower()),
            patience_s=10.0,
        )
        self.chain_id = lab.node.chain_id
        self.told: dict[str, Told] = {}
        self.ids: list[int] = []
        self.lie: Callable[[str, State], None] = lambda channel, state: None

    @property
    def head_channel(self) -> str:
        return f"head:{self.chain_id}"

    @property
    def house(self) -> list[int]:
        """The ids that the deployment itself minted."""
        return list(range(1, self.ids[0]))

    def _block(self) -> dict[str, Any]:
        head = self.lab.head
        return {"number": head.number, "hash": head.hash, "parentHash": head.parent_hash, "timestamp": head.timestamp}

    async def states(self) -> dict[str, State]:
        """Every channel's true state at the lab's head, and then the lie."""
        head = self.lab.head
        holders = await self.truth.holders(head.hash, 10_000)
        truths = await self.truth.positions(holders, head.hash)
        head_entry: JsonObject = self._block()
        states: dict[str, State] = {self.head_channel: {"head": head_entry}}
        for tag in ("safe", "finalized"):
            block = await self.truth.tagged(tag, 0)
            assert block is not None
            states[self.head_channel][tag] = {
                "number": block.number, "hash": block.hash, "parentHash": block.parent_hash,
                "timestamp": block.timestamp,
            }  # fmt: skip
        for owner in {*(owner.lower() for owner in self.lab.owners), *holders.values()}:
            states[f"owner:{self.chain_id}:{checksum(Address(owner))}"] = {}
        for token_id, truth in truths.items():
            assert truth is not None
            channel = f"owner:{self.chain_id}:{checksum(truth.holder)}"
            states[channel][f"{PROTOCOL}:{token_id}"] = entry_of(truth, self.chain_id)
        for channel, state in states.items():
            self.lie(channel, state)
        return states

    async def refresh(self) -> dict[str, Any]:
        """Move every channel to the lab's head and return the frame that says so."""
        block, changes = self._block(), []
        for channel, state in (await self.states()).items():
            told = self.told.get(channel)
            if told is None:
                told = self.told[channel] = Told(channel, state)
                told.block = block
            elif change := diff(told.state, state):
                parts: dict[str, Any] = {"set": change.set, "patch": change.patch, "remove": change.remove}
                changes.append(told.change(block, prove=True, **{name: part for name, part in parts.items() if part}))
        return block_frame(block, *changes)

    async def answer(self, peer: Peer) -> None:
        """Answer subscribes and resyncs until the client leaves."""
        with suppress(ConnectionClosed):
            while True:
                request = json.loads(await peer.socket.recv())
                if request["type"] not in {"subscribe", "resync"}:
                    continue
                told = self.told.get(request["channel"])
                if told is None:
                    await peer.send(
                        {"type": "error", "id": request["id"], "code": "bad_channel", "message": "not in this test"}
                    )
                else:
                    await peer.send(*told.snapshot(request["id"]), told.subscribed(request["id"]))
