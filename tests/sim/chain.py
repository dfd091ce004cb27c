"""The simulated chain: a tree of blocks whose contents are values, so that any state can be computed anew.

It decides what every channel's state is at every block; it never knows what was published or to whom.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from rtserver.domain.chain import BlockRef, Header, Rollback
from rtserver.domain.diff import JsonObject, JsonValue, State
from rtserver.domain.ids import Address, BlockHash, ChainId, TokenId
from rtserver.protocols.channels import (
    Channel,
    HeadChannel,
    OwnerChannel,
    PoolChannel,
    PositionChannel,
    PricesChannel,
    RewardsChannel,
)

__all__ = ["OWNERS", "POOLS", "PROTOCOL", "TOKENS", "Block", "ChainModel", "channels_of", "rollback_between"]

PROTOCOL: Final = "uniswap-v3"
OWNERS: Final = tuple(Address(f"0x{digit * 40}") for digit in "abc")
# The last one never has code: wanting its channel is refused.
POOLS: Final = tuple(Address(f"0x{digit * 40}") for digit in "def")
TOKENS: Final = 9
_START: Final = 1_700_000_000


@dataclass(frozen=True, slots=True)
class _World:
    """What a block holds. Views are never changed, only replaced: blocks share them."""

    positions: Mapping[int, JsonObject]
    pools: Mapping[str, JsonObject]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A block of the tree; `parent` is None for the first one."""

    number: int
    hash: BlockHash
    parent: "Block | None"
    world: _World
    # By what was known when they were asked for: one object a position and knowledge, shared by its channels.
    views: dict[frozenset[int], dict[int, JsonObject]] = field(default_factory=dict)

    @property
    def header(self) -> Header:
        """Return the header that a hub is told."""
        parent = "0x" + "0" * 64 if self.parent is None else self.parent.hash
        return Header(
            number=self.number,
            hash=self.hash,
            parent_hash=BlockHash(parent),
            timestamp=_START + self.number,
            logs_bloom=0,
        )

    def line(self, depth: int) -> "list[Block]":
        """Return this block and its ancestors, newest first, at most `depth`."""
        blocks: list[Block] = []
        block: Block | None = self
        while block is not None and len(blocks) < depth:
            blocks.append(block)
            block = block.parent
        return blocks


def channels_of(chain_id: int) -> list[Channel]:
    """Return every channel that a client of a chain may want, a hopeless one included."""
    chain = ChainId(chain_id)
    return [
        HeadChannel(chain),
        *(OwnerChannel(chain, owner) for owner in OWNERS),
        *(PoolChannel(chain, pool) for pool in POOLS),
        *(PositionChannel(chain, PROTOCOL, TokenId(token)) for token in range(1, TOKENS + 1)),
    ]


# How far behind the head a block is called safe, and finalized.
_SAFE, _FINAL = 2, 5


class ChainModel:
    """One chain: its tree, its head, and the histories known so far (a position's fees are null before)."""

    def __init__(self, chain_id: int, rng: random.Random) -> None:
        self.chain_id = ChainId(chain_id)
        self._rng = rng
        self.blocks: dict[str, Block] = {}
        self.known: frozenset[int] = frozenset()
        # Heads that were left: a chain may come back to any of them.
        self.left: list[Block] = []
        pools: dict[str, JsonObject] = {pool: _pool(pool, rng) for pool in POOLS[:-1]}
        world = _World({}, pools)
        for _ in range(8):
            world = _grown(world, rng)
        self.head = self._add(None, 1_000, world)

    def _add(self, parent: Block | None, number: int, world: _World) -> Block:
        block = Block(number, BlockHash(f"0x{self._rng.getrandbits(256):064x}"), parent, world)
        self.blocks[block.hash] = block
        return block

    def extend(self, count: int, parent: Block | None = None) -> None:
        """Put new blocks on the head, or on another block; some hold nothing new."""
        block = parent or self.head
        for _ in range(count):
            world = block.world if self._rng.random() < 0.15 else _grown(block.world, self._rng)
            block = self._add(block, block.number + 1, world)
        self.head = block

    def reorg(self, max_depth: int) -> Rollback | None:
        """Move the head to another branch: a new one, or one that was left before. None if there is none."""
        old = self.head
        targets = [block for block in self.left[-4:] if block is not old]
        if targets and self._rng.random() < 0.4:
            self.head = self._rng.choice(targets)
        else:
            line = old.line(max_depth + 1)
            if len(line) < 2:
                return None
            depth = self._rng.randrange(1, len(line))
            # Longer, as long, or shorter than what it replaces; never empty.
            self.extend(self._rng.randrange(1, depth + 2), line[depth])
        self.left.append(old)
        return rollback_between(old, self.head)

    def learn(self) -> None:
        """Know one more position's history: fees that were null get a value, at no new block."""
        self.known |= {self._rng.randrange(1, TOKENS + 1)}

    def state_of(self, channel: Channel, block: Block, known: frozenset[int]) -> State | None:
        """Return a channel's state at a block from nothing but the block; None if there is no such channel."""
        match channel:
            case HeadChannel():
                line = block.line(_FINAL + 1)
                tagged = {"head": line[0], "safe": line[min(_SAFE, len(line) - 1)]}
                # Not known of a young chain: the key comes later, and goes with a reorganisation to before it.
                if len(line) > _FINAL:
                    tagged["finalized"] = line[-1]
                return {
                    tag: {
                        "number": one.number,
                        "hash": one.hash,
                        "parentHash": one.header.parent_hash,
                        "timestamp": one.header.timestamp,
                    }
                    for tag, one in tagged.items()
                }
            case PricesChannel() | RewardsChannel():
                return None  # nothing here has a price, and nothing is staked
            case PositionChannel():
                view = _views(block, known).get(channel.token_id)
                return {} if view is None else {str(channel.token_id): view}
            case OwnerChannel():
                return {
                    f"{PROTOCOL}:{token}": view
                    for token, view in _views(block, known).items()
                    if view["owner"] == channel.owner
                }
            case PoolChannel():
                pool = block.world.pools.get(channel.pool)
                return None if pool is None else {channel.pool: pool}


def _views(block: Block, known: frozenset[int]) -> dict[int, JsonObject]:
    views = block.views.get(known)
    if views is None:
        views = block.views[known] = {
            token: view if token in known else {**view, "fees0": None} for token, view in block.world.positions.items()
        }
    return views


def rollback_between(old: Block, new: Block) -> Rollback:
    """Return what has to be undone on the way from one block to another; `dropped` is empty where nothing has."""
    dropped: list[BlockHash] = []
    mine, theirs = old, new
    while mine is not theirs:
        if mine.number >= theirs.number:
            dropped.append(mine.hash)
            assert mine.parent is not None
            mine = mine.parent
        else:
            assert theirs.parent is not None
            theirs = theirs.parent
    return Rollback(to=BlockRef(number=mine.number, hash=mine.hash), dropped=tuple(reversed(dropped)))


def _pool(pool: Address, rng: random.Random) -> JsonObject:
    return {"pool": pool, "tick": rng.randrange(-50, 50), "liquidity": str(rng.getrandbits(100))}


def _nested(rng: random.Random) -> JsonValue:
    """Return something that changes its shape: what a merge gets wrong first."""
    shapes: list[JsonValue] = [
        "é\u2028",
        ["a", 1, None],
        {"x": rng.randrange(3), "y": "ß"},
        {"x": {"deep": rng.randrange(3), "er": True}},
        {"x": {"deep": rng.randrange(3)}, "z": rng.random() < 0.5},
        {"y": "ß", "nothing": None},
    ]
    return rng.choice(shapes)


def _position(token: int, rng: random.Random) -> JsonObject:
    return {
        "tokenId": str(token), "owner": rng.choice(OWNERS), "pool": rng.choice(POOLS[:-1]), "tick": 0,
        "amount0": str(rng.getrandbits(90)), "fees0": str(rng.getrandbits(60)), "isActive": True,
        "valueUSD": None if rng.random() < 0.2 else "12.50", "token0": {"symbol": "WΞTH", "decimals": 18},
        "more": _nested(rng),
    }  # fmt: skip


def _grown(world: _World, rng: random.Random) -> _World:
    """Return the world after a random block: swaps, mints, transfers, burns."""
    positions, pools = dict(world.positions), dict(world.pools)
    for _ in range(rng.choice((1, 1, 2, 4))):
        token = rng.randrange(1, TOKENS + 1)
        view = positions.get(token)
        draw = rng.random()
        if view is None:
            positions[token] = _position(token, rng)
        elif draw < 0.08:
            del positions[token]
        elif draw < 0.2:
            positions[token] = {**view, "owner": rng.choice(OWNERS)}
        elif draw < 0.3:
            positions[token] = {**view, "more": _nested(rng), "valueUSD": rng.choice((None, "1.00", "2.00"))}
        elif draw < 0.35:
            positions[token] = {name: value for name, value in view.items() if name != "more"}
        else:  # a swap: all of a pool's positions move
            pool, tick = str(view["pool"]), rng.randrange(-50, 50)
            pools[pool] = {**pools[pool], "tick": tick}
            for other, seen in positions.items():
                if seen["pool"] == pool:
                    fees0 = str(rng.getrandbits(60))
                    positions[other] = {**seen, "tick": tick, "fees0": fees0, "isActive": abs(tick) < 40}
    return _World(positions, pools)
