"""A chain in memory: pools that move every block, and positions in them, answered as the contracts answer.

It holds numbers of the size that real pools have and answers the very calldata that a book plans, so a bench
drives the real book through its public plan and absorb. Nobody trades here: prices walk, fees come in, and
ticks that a walk crosses are flipped as `Tick.cross` does. Not a model of the AMM; the tests use a real chain.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import isqrt
from typing import Final

from rtserver.domain.chain import Header, Log
from rtserver.domain.clmath.amounts import amounts_at
from rtserver.domain.clmath.fees import MASK_256, growth_inside
from rtserver.domain.clmath.tick_math import sqrt_ratio_at_tick
from rtserver.domain.ids import Address, BlockHash, Liquidity, SqrtPriceX96, Tick
from rtserver.protocols.addresses import create2_pool
from rtserver.protocols.base import Call
from rtserver.protocols.uniswap_v3.deployments import POOL_INIT_CODE_HASH
from rtserver.protocols.uniswap_v3.events import SWAP
from rtserver.protocols.uniswap_v3.reads import core_key

__all__ = ["FACTORY", "MANAGER", "STABLES", "WETH", "InMemoryChain", "MemoryNft", "MemoryPool", "MemoryRange"]

FACTORY: Final = Address("0x" + "fac7" * 10)
MANAGER: Final = Address("0x" + "3a9a" * 10)
# Symbol → decimals and US cents of a whole token.
_TOKENS: Final = {
    "USDC": (6, 1_00), "USDT": (6, 1_00), "DAI": (18, 1_00), "WETH": (18, 3_000_00), "WBTC": (8, 60_000_00),
    "UNI": (18, 8_00), "LINK": (18, 15_00), "AAVE": (18, 200_00),
}  # fmt: skip
_PAIRS: Final = (
    ("WETH", "USDC", 500), ("WETH", "USDC", 3000), ("WETH", "USDT", 500), ("WETH", "USDT", 3000),
    ("WETH", "DAI", 3000), ("WBTC", "WETH", 500), ("WBTC", "WETH", 3000), ("WBTC", "USDC", 3000),
    ("WBTC", "USDT", 3000), ("USDC", "USDT", 100), ("DAI", "USDC", 100), ("DAI", "USDT", 100),
    ("UNI", "WETH", 3000), ("UNI", "USDC", 3000), ("LINK", "WETH", 3000), ("LINK", "USDC", 3000),
    ("AAVE", "WETH", 3000), ("AAVE", "USDC", 3000), ("UNI", "WETH", 10000), ("LINK", "WETH", 10000),
)  # fmt: skip
_SPACING: Final = {100: 1, 500: 10, 3000: 60, 10000: 200}
_MAX_TICK: Final = 887272
# Real NFTs: a tenth spans everything, a third sits on ticks that someone else chose, too.
_FULL_RANGE_SHARE: Final = 0.10
_SHARED_SHARE: Final = 0.33
# US cents of fees that a pool earns per block and tracked position: enough that every block shows.
_FEES_CENTS: Final = 40
_Q96: Final = 1 << 96


def _address(seed: str) -> Address:
    return Address("0x" + seed.encode().hex().rjust(40, "7")[-40:])


_ADDRESS_OF: Final = {symbol: _address(f"token {symbol}") for symbol in _TOKENS}
WETH: Final = _ADDRESS_OF["WETH"]
STABLES: Final = tuple(_ADDRESS_OF[symbol] for symbol in ("USDC", "USDT", "DAI"))


@dataclass(slots=True, eq=False)
class MemoryRange:
    """One pair of ticks and the core position that its NFTs share."""

    lower: int
    upper: int
    liquidity: int = 0
    last: tuple[int, int] = (0, 0)
    owed: tuple[int, int] = (0, 0)


@dataclass(slots=True, eq=False)
class MemoryNft:
    """What `positions(tokenId)` and `ownerOf` answer."""

    token_id: int
    owner: Address
    pool: "MemoryPool"
    range: MemoryRange
    liquidity: int
    last: tuple[int, int]
    owed: tuple[int, int]


@dataclass(slots=True, eq=False)
class MemoryPool:
    """A pool; `anchor` is the tick that its price walks around, at most `reach` ticks away."""

    address: Address
    token0: str
    token1: str
    fee_pips: int
    anchor: int
    reach: int
    sqrt_price: int
    tick: int
    growth: tuple[int, int]
    outside: dict[int, tuple[int, int]] = field(default_factory=dict)
    ranges: dict[tuple[int, int], MemoryRange] = field(default_factory=dict)
    nfts: list[MemoryNft] = field(default_factory=list)
    active: int = 0

    def inside(self, lower: int, upper: int) -> tuple[int, int]:
        """Return both tokens' fee growth inside a range, Q128.128."""
        low, high = self.outside[lower], self.outside[upper]
        first, second = (
            growth_inside(Tick(self.tick), Tick(lower), Tick(upper), self.growth[i], low[i], high[i]) for i in (0, 1)
        )
        return first, second

    def move(self, rng: random.Random) -> None:
        """Walk to another price and take in fees on both sides."""
        tick = self.anchor + rng.randint(-self.reach, self.reach)
        if tick == self.tick:
            tick += 1
        low = sqrt_ratio_at_tick(Tick(tick))
        high = sqrt_ratio_at_tick(Tick(tick + 1))
        cents = _FEES_CENTS * len(self.nfts)
        before = self.growth
        first, second = (
            (before[i] + ((cents * 10**decimals // price) << 128) // max(self.active, 1)) & MASK_256
            for i, (decimals, price) in enumerate((_TOKENS[self.token0], _TOKENS[self.token1]))
        )
        self.growth = (first, second)
        least, most = sorted((self.tick, tick))
        for crossed in [t for t in self.outside if least < t <= most]:
            flipped = self.outside[crossed]
            self.outside[crossed] = (first - flipped[0]) & MASK_256, (second - flipped[1]) & MASK_256
        self.tick = tick
        self.sqrt_price = low + rng.randrange(high - low)
        self.active = sum(r.liquidity for r in self.ranges.values() if r.lower <= tick < r.upper)


class InMemoryChain:
    """Pools, positions and their owners; `answer` is the node.

    Args:
        positions: How many NFTs.
        owners: How many accounts hold them, evenly.
        in_range: Share of NFTs whose range holds every price that its pool will have.
        seed: Equal seeds give equal chains.
    """

    def __init__(self, *, positions: int, owners: int, in_range: float, seed: int) -> None:
        self._random = random.Random(seed)
        self.owners = [Address(f"0x{0xACC << 148 | index:040x}") for index in range(owners)]
        self.pools: dict[Address, MemoryPool] = {}
        self._symbols = {address: symbol for symbol, address in _ADDRESS_OF.items()}
        for pair in _PAIRS:
            pool = self._open(*pair)
            self.pools[pool.address] = pool
        pools = list(self.pools.values())
        self.nfts: dict[int, MemoryNft] = {}
        self.held: dict[Address, list[int]] = {owner: [] for owner in self.owners}
        for index in range(positions):
            nft = self._mint(index + 1, pools[index % len(pools)], self.owners[index % owners], in_range)
            self.nfts[nft.token_id] = nft
            self.held[nft.owner].append(nft.token_id)
        for pool in pools:
            self._settle(pool)
        self._cores = {
            (pool.address, core_key(MANAGER, Tick(lower), Tick(upper))): found
            for pool in pools
            for (lower, upper), found in pool.ranges.items()
        }
        self.number = 0

    def _open(self, symbol_a: str, symbol_b: str, fee_pips: int) -> MemoryPool:
        address_a, address_b = _ADDRESS_OF[symbol_a], _ADDRESS_OF[symbol_b]
        token0, token1 = (symbol_a, symbol_b) if address_a < address_b else (symbol_b, symbol_a)
        (decimals0, cents0), (decimals1, cents1) = _TOKENS[token0], _TOKENS[token1]
        sqrt_price = isqrt((cents0 * 10**decimals1 << 192) // (cents1 * 10**decimals0))
        anchor = math.floor(2 * math.log(sqrt_price / _Q96) / math.log(1.0001))
        rng = self._random
        return MemoryPool(
            address=create2_pool(FACTORY, POOL_INIT_CODE_HASH, address_a, address_b, fee_pips),
            token0=token0,
            token1=token1,
            fee_pips=fee_pips,
            anchor=anchor,
            reach=2 if fee_pips == 100 else 100,
            sqrt_price=sqrt_ratio_at_tick(Tick(anchor)),
            tick=anchor,
            growth=(rng.getrandbits(118), rng.getrandbits(118)),
        )

    def _ticks(self, pool: MemoryPool, in_range: bool) -> tuple[int, int]:
        rng, spacing = self._random, _SPACING[pool.fee_pips]
        margin = pool.reach + spacing
        edge = _MAX_TICK // spacing * spacing
        kind = rng.random()
        if in_range and kind < _FULL_RANGE_SHARE:
            return -edge, edge

        def reach() -> int:
            return int(margin * (1 + rng.lognormvariate(0.8, 1.2))) // spacing * spacing + spacing

        here = pool.anchor // spacing * spacing
        if in_range:
            return here - reach(), here + reach()
        if rng.random() < 0.5:
            lower = here + reach()
            return lower, lower + reach()
        upper = here - reach()
        return upper - reach(), upper

    def _mint(self, token_id: int, pool: MemoryPool, owner: Address, in_range: float) -> MemoryNft:
        rng = self._random
        inside = rng.random() < in_range
        alike = [
            r for r in pool.ranges.values() if (r.lower <= pool.anchor - pool.reach < pool.anchor < r.upper) == inside
        ]
        if alike and rng.random() < _SHARED_SHARE:
            found = rng.choice(alike)
        else:
            lower, upper = self._ticks(pool, inside)
            found = pool.ranges.setdefault((lower, upper), MemoryRange(lower, upper))
            for tick in (lower, upper):
                pool.outside.setdefault(tick, (rng.getrandbits(117), rng.getrandbits(117)))
        liquidity = self._liquidity(pool, found, int(rng.lognormvariate(math.log(8_000_00), 1.0)))
        nft = MemoryNft(token_id, owner, pool, found, liquidity, (0, 0), (0, 0))
        pool.nfts.append(nft)
        return nft

    def _liquidity(self, pool: MemoryPool, found: MemoryRange, cents: int) -> int:
        """Return the liquidity of a range that is worth so many US cents now."""
        probe = 1 << 96
        sqrt_lower, sqrt_upper = (sqrt_ratio_at_tick(Tick(tick)) for tick in (found.lower, found.upper))
        amounts = amounts_at(SqrtPriceX96(pool.sqrt_price), sqrt_lower, sqrt_upper, Liquidity(probe))
        worth: int = sum(
            amount * _TOKENS[symbol][1] * 10**18 // pow(10, _TOKENS[symbol][0])
            for amount, symbol in zip(amounts, (pool.token0, pool.token1), strict=True)
        )
        return max(cents * 10**18 * probe // max(worth, 1), 1)

    def _settle(self, pool: MemoryPool) -> None:
        """Give every NFT a last poke in the past, and each core position what its NFTs add up to."""
        rng = self._random
        for nft in pool.nfts:
            nft.range.liquidity += nft.liquidity
        pool.active = sum(r.liquidity for r in pool.ranges.values() if r.lower <= pool.tick < r.upper)
        for found in pool.ranges.values():
            earlier = self._earlier(pool, found, (1 << 128) // max(found.liquidity, 1))
            found.last, found.owed = earlier, (rng.getrandbits(40), rng.getrandbits(40))
        for nft in pool.nfts:
            nft.last = self._earlier(pool, nft.range, (1 << 128) // nft.liquidity)
            # Every fifth holds what an earlier increase left in tokensOwed.
            nft.owed = (rng.getrandbits(30), rng.getrandbits(30)) if nft.token_id % 5 == 0 else (0, 0)

    def _earlier(self, pool: MemoryPool, found: MemoryRange, unit: int) -> tuple[int, int]:
        """Return the growth inside a range some fees ago; `unit` is the growth that pays one raw unit."""
        cents = self._random.uniform(1, 300_00)
        now = pool.inside(found.lower, found.upper)
        first, second = (
            (now[i] - unit * int(cents * 10**decimals / price)) & MASK_256
            for i, (decimals, price) in enumerate((_TOKENS[pool.token0], _TOKENS[pool.token1]))
        )
        return first, second

    # --- blocks ---------------------------------------------------------------------------------------

    def head(self) -> Header:
        """Return the header of the newest block."""
        return Header(
            number=self.number,
            hash=_hash(self.number),
            parent_hash=_hash(self.number - 1),
            timestamp=1_700_000_000 + 12 * self.number,
            logs_bloom=(1 << 2048) - 1,
        )

    def mine(self) -> list[Log]:
        """Move every pool and return the block's logs: one Swap a pool."""
        self.number += 1
        for pool in self.pools.values():
            pool.move(self._random)
        return list(self._swaps())

    def _swaps(self) -> Iterator[Log]:
        trader = "0x" + "0" * 24 + "7" * 40
        for index, pool in enumerate(self.pools.values()):
            words = (0, 0, pool.sqrt_price, pool.active, pool.tick & MASK_256)
            yield Log(
                address=pool.address,
                topics=(SWAP, trader, trader),
                data="".join(f"{word:064x}" for word in words),
                block_hash=_hash(self.number),
                block_number=self.number,
                index=index,
                tx_hash=f"0x{self.number << 32 | index:064x}",
            )

    # --- calls ----------------------------------------------------------------------------------------

    def answer(self, calls: Sequence[Call]) -> list[bytes | None]:
        """Return each call's data, None where the contract would revert."""
        return [self._answer(target, data[:4], data[4:]) for target, data in calls]

    def _answer(self, target: Address, selector: bytes, data: bytes) -> bytes | None:
        if target == MANAGER:
            return self._manager(selector, data)
        if (symbol := self._symbols.get(target)) is not None:
            if selector == bytes.fromhex("95d89b41"):
                return _words(32, len(symbol)) + symbol.encode().ljust(32, b"\0")
            return _words(_TOKENS[symbol][0])
        if (pool := self.pools.get(target)) is None:
            return None
        match selector.hex():
            case "3850c7bd":
                return _words(pool.sqrt_price, pool.tick & MASK_256, 0, 1, 1, 0, 1)
            case "1a686502":
                return _words(pool.active)
            case "f3058399":
                return _words(pool.growth[0])
            case "46141319":
                return _words(pool.growth[1])
            case "f30dba93":
                outside = pool.outside[int.from_bytes(data, "big", signed=True)]
                return _words(1, 1, *outside, 0, 0, 0, 1)
            case "514ea4bf":
                core = self._cores[target, data]
                return _words(core.liquidity, *core.last, *core.owed)
        raise LookupError(f"nobody should ask a pool for {selector.hex()}")

    def _manager(self, selector: bytes, data: bytes) -> bytes | None:
        match selector.hex():
            case "99fbab88":
                nft = self.nfts[int.from_bytes(data, "big")]
                tokens = (int(_ADDRESS_OF[symbol], 16) for symbol in (nft.pool.token0, nft.pool.token1))
                ticks = (tick & MASK_256 for tick in (nft.range.lower, nft.range.upper))
                return _words(0, 0, *tokens, nft.pool.fee_pips, *ticks, nft.liquidity, *nft.last, *nft.owed)
            case "6352211e":
                return _words(int(self.nfts[int.from_bytes(data, "big")].owner, 16))
            case "70a08231":
                return _words(len(self.held[Address("0x" + data[12:].hex())]))
            case "2f745c59":
                held, index = self.held[Address("0x" + data[12:32].hex())], int.from_bytes(data[32:], "big")
                return _words(held[index]) if index < len(held) else None
        raise LookupError(f"nobody should ask the manager for {selector.hex()}")


def _hash(number: int) -> BlockHash:
    return BlockHash(f"0x{number * 0x9E3779B97F4A7C15F39CC0605CEDC834 & MASK_256:064x}")


def _words(*values: int) -> bytes:
    return b"".join(value.to_bytes(32, "big") for value in values)
