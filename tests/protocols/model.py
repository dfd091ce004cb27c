"""A pure model of what the contracts keep: pools, ticks, core positions and NFTs, as plain integers.

It moves them the way the contracts do as far as a reader can tell: which words a swap, a mint, a burn or a
collect changes, and which logs tell of it. Prices jump where a test says; no amounts are traded.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from eth_utils.crypto import keccak

from rtserver.domain.clmath.amounts import amounts_at
from rtserver.domain.clmath.fees import growth_inside
from rtserver.domain.clmath.tick_math import sqrt_ratio_at_tick
from rtserver.domain.ids import Address, Liquidity, SqrtPriceX96, Tick
from rtserver.protocols.addresses import ZERO_ADDRESS, create2_pool, raw
from rtserver.protocols.uniswap_v3 import events as ev
from rtserver.protocols.uniswap_v3.deployments import POOL_INIT_CODE_HASH

__all__ = [
    "FACTORY",
    "MANAGER",
    "ODD",
    "OWNERS",
    "STRANGER",
    "USD",
    "WETH",
    "Contracts",
    "NftModel",
    "PoolModel",
    "RawLog",
    "pool_at",
]

M128, M256 = (1 << 128) - 1, (1 << 256) - 1


def _address(name: str) -> Address:
    return Address("0x" + keccak(name.encode())[12:].hex())


FACTORY, MANAGER, STRANGER = _address("factory"), _address("manager"), _address("stranger")
USD, WETH, ODD = _address("usd"), _address("weth"), _address("odd")
OWNERS = tuple(_address(f"owner {index}") for index in range(3))

# (address, topics, data)
RawLog = tuple[Address, tuple[str, ...], str]


def pool_at(token_a: Address, token_b: Address, fee_pips: int) -> Address:
    """Return where the model's factory deploys a pool."""
    return create2_pool(FACTORY, POOL_INIT_CODE_HASH, token_a, token_b, fee_pips)


def _word(value: int) -> str:
    return f"{value & M256:064x}"


def _topic(value: int | str) -> str:
    return "0x" + (_word(value) if isinstance(value, int) else "0" * 24 + value[2:])


@dataclass
class PoolModel:
    """One pool; a core position is [liquidity, last0, last1, owed0, owed1], a tick [gross, out0, out1]."""

    address: Address
    token0: Address
    token1: Address
    fee_pips: int
    sqrt_price: int = 0
    tick: int = 0
    growth0: int = 0
    growth1: int = 0
    ticks: dict[int, list[int]] = field(default_factory=dict)
    cores: dict[tuple[Address, int, int], list[int]] = field(default_factory=dict)

    @property
    def liquidity(self) -> int:
        """Return the liquidity in range."""
        return sum(core[0] for (_, low, high), core in self.cores.items() if low <= self.tick < high)

    def inside(self, lower: int, upper: int) -> tuple[int, int]:
        """Return fee growth inside a range."""
        low, high = self.ticks.get(lower, [0, 0, 0]), self.ticks.get(upper, [0, 0, 0])
        tick, lower_, upper_ = Tick(self.tick), Tick(lower), Tick(upper)
        return (
            growth_inside(tick, lower_, upper_, self.growth0, low[1], high[1]),
            growth_inside(tick, lower_, upper_, self.growth1, low[2], high[2]),
        )

    def modify(self, owner: Address, lower: int, upper: int, delta: int) -> tuple[int, int]:
        """Add liquidity to a core position, or take it away; 0 pokes it. Return the growth inside."""
        for tick in (lower, upper) if delta else ():
            entry = self.ticks.setdefault(tick, [0, 0, 0])
            if entry[0] == 0 and tick <= self.tick:
                entry[1], entry[2] = self.growth0, self.growth1
            entry[0] += delta
        inside = self.inside(lower, upper)
        core = self.cores.setdefault((owner, lower, upper), [0, 0, 0, 0, 0])
        for side in (0, 1):
            earned = ((inside[side] - core[1 + side]) & M256) * core[0] >> 128
            core[3 + side] = (core[3 + side] + earned) & M128
            core[1 + side] = inside[side]
        core[0] += delta
        for tick in (lower, upper):
            if tick in self.ticks and self.ticks[tick][0] == 0:
                del self.ticks[tick]
        return inside

    def swap(self, tick: int, *, on_boundary: bool, fees0: int, fees1: int) -> None:
        """Move the price to a tick; flip every tick on the way."""
        before = self.tick
        self.growth0, self.growth1 = (self.growth0 + fees0) & M256, (self.growth1 + fees1) & M256
        low, high = min(before, tick), max(before, tick)
        for crossed, entry in self.ticks.items():
            if low < crossed <= high:
                entry[1], entry[2] = (self.growth0 - entry[1]) & M256, (self.growth1 - entry[2]) & M256
        self.tick = tick
        # Going down onto a boundary, the contract leaves the price there and the tick one below.
        self.sqrt_price = sqrt_ratio_at_tick(Tick(tick + 1 if on_boundary else tick)) + (0 if on_boundary else 7)


@dataclass
class NftModel:
    """One position NFT."""

    owner: Address
    pool: Address
    lower: int
    upper: int
    liquidity: int = 0
    last: list[int] = field(default_factory=lambda: [0, 0])
    owed: list[int] = field(default_factory=lambda: [0, 0])


class Contracts:
    """All state at a block, and the actions of a block with their logs."""

    def __init__(self) -> None:
        self.pools: dict[Address, PoolModel] = {}
        self.nfts: dict[int, NftModel] = {}
        self.next_id = 1
        self.logs: list[RawLog] = []

    def copy(self) -> Contracts:
        """Return the state for the next block, without logs."""
        other = copy.deepcopy(self)
        other.logs = []
        return other

    def _emit(self, address: Address, topics: tuple[int | str, ...], *words: int) -> None:
        first, *rest = topics
        self.logs.append((address, (str(first), *map(_topic, rest)), "".join(map(_word, words))))

    def create_pool(self, token_a: Address, token_b: Address, fee_pips: int, tick: int) -> Address:
        """Deploy and initialise a pool."""
        token0, token1 = sorted((token_a, token_b))
        address = pool_at(token0, token1, fee_pips)
        if address not in self.pools:
            price = sqrt_ratio_at_tick(Tick(tick))
            self.pools[address] = PoolModel(address, token0, token1, fee_pips, price, tick)
            self._emit(FACTORY, (ev.POOL_CREATED, token0, token1, fee_pips), 60, int(address, 16))
            self._emit(address, (ev.INITIALIZE,), price, tick)
        return address

    def swap(self, pool: PoolModel, tick: int, *, on_boundary: bool, fees0: int, fees1: int) -> None:
        """Swap until a tick is reached."""
        pool.swap(tick, on_boundary=on_boundary, fees0=fees0, fees1=fees1)
        self._emit(pool.address, (ev.SWAP, STRANGER, STRANGER), 1, -1, pool.sqrt_price, pool.liquidity, pool.tick)

    def flash(self, pool: PoolModel, fees0: int, fees1: int) -> None:
        """Pay fees without moving the price."""
        pool.growth0, pool.growth1 = (pool.growth0 + fees0) & M256, (pool.growth1 + fees1) & M256
        self._emit(pool.address, (ev.FLASH, STRANGER, STRANGER), 1, 1, fees0, fees1)

    def add_directly(self, pool: PoolModel, lower: int, upper: int, liquidity: int) -> None:
        """Let a contract that is not the manager mint in the same ticks (negative: burn)."""
        held = pool.cores.get((STRANGER, lower, upper), [0])[0]
        delta = max(liquidity, -held)
        pool.modify(STRANGER, lower, upper, delta)
        topics = (ev.MINT if delta > 0 else ev.BURN, STRANGER, lower, upper)
        self._emit(pool.address, topics, int(STRANGER, 16), abs(delta), 1, 1)

    def mint(self, owner: Address, pool: PoolModel, lower: int, upper: int, liquidity: int) -> int:
        """Mint an NFT through the manager."""
        token_id, self.next_id = self.next_id, self.next_id + 1
        nft = self.nfts[token_id] = NftModel(owner, pool.address, lower, upper)
        nft.last[:] = pool.modify(MANAGER, lower, upper, liquidity)
        nft.liquidity = liquidity
        self._emit(pool.address, (ev.MINT, MANAGER, lower, upper), int(MANAGER, 16), liquidity, 1, 1)
        self._emit(MANAGER, (ev.TRANSFER, ZERO_ADDRESS, owner, token_id))
        self._emit(MANAGER, (ev.INCREASE_LIQUIDITY, token_id), liquidity, 1, 1)
        return token_id

    def _poke(self, nft: NftModel, inside: tuple[int, int]) -> None:
        for side in (0, 1):
            earned = ((inside[side] - nft.last[side]) & M256) * nft.liquidity >> 128
            nft.owed[side] = (nft.owed[side] + earned) & M128
            nft.last[side] = inside[side]

    def increase(self, token_id: int, liquidity: int) -> None:
        """Add to an NFT, as anyone may."""
        nft = self.nfts[token_id]
        pool = self.pools[nft.pool]
        self._poke(nft, pool.modify(MANAGER, nft.lower, nft.upper, liquidity))
        nft.liquidity += liquidity
        self._emit(pool.address, (ev.MINT, MANAGER, nft.lower, nft.upper), int(MANAGER, 16), liquidity, 1, 1)
        self._emit(MANAGER, (ev.INCREASE_LIQUIDITY, token_id), liquidity, 1, 1)

    def decrease(self, token_id: int, liquidity: int) -> None:
        """Withdraw principal into tokensOwed."""
        nft = self.nfts[token_id]
        pool = self.pools[nft.pool]
        liquidity = min(liquidity, nft.liquidity)
        if not liquidity:
            return
        amounts = amounts_at(
            SqrtPriceX96(pool.sqrt_price),
            sqrt_ratio_at_tick(Tick(nft.lower)),
            sqrt_ratio_at_tick(Tick(nft.upper)),
            Liquidity(liquidity),
        )
        self._poke(nft, pool.modify(MANAGER, nft.lower, nft.upper, -liquidity))
        core = pool.cores[MANAGER, nft.lower, nft.upper]
        for side in (0, 1):
            core[3 + side] += amounts[side]
            nft.owed[side] += amounts[side]
        nft.liquidity -= liquidity
        self._emit(pool.address, (ev.BURN, MANAGER, nft.lower, nft.upper), liquidity, *amounts)
        self._emit(MANAGER, (ev.DECREASE_LIQUIDITY, token_id), liquidity, *amounts)

    def collect(self, token_id: int, max0: int, max1: int) -> None:
        """Pay out of tokensOwed, up to these amounts."""
        nft = self.nfts[token_id]
        pool = self.pools[nft.pool]
        if nft.liquidity:
            self._poke(nft, pool.modify(MANAGER, nft.lower, nft.upper, 0))
            self._emit(pool.address, (ev.BURN, MANAGER, nft.lower, nft.upper), 0, 0, 0)
        paid = [min(nft.owed[0], max0), min(nft.owed[1], max1)]
        core = pool.cores[MANAGER, nft.lower, nft.upper]
        for side in (0, 1):
            nft.owed[side] -= paid[side]
            core[3 + side] -= min(paid[side], core[3 + side])
        self._emit(pool.address, (ev.COLLECT_POOL, MANAGER, nft.lower, nft.upper), int(STRANGER, 16), *paid)
        self._emit(MANAGER, (ev.COLLECT_NFT, token_id), int(STRANGER, 16), *paid)

    def transfer(self, token_id: int, to: Address) -> None:
        """Give an NFT away."""
        nft = self.nfts[token_id]
        self._emit(MANAGER, (ev.TRANSFER, nft.owner, to, token_id))
        nft.owner = to

    def burn(self, token_id: int) -> None:
        """Close an NFT: take out everything, then destroy it."""
        self.decrease(token_id, M128)
        self.collect(token_id, M128, M128)
        nft = self.nfts.pop(token_id)
        self._emit(MANAGER, (ev.TRANSFER, nft.owner, ZERO_ADDRESS, token_id))

    # --- reads ----------------------------------------------------------------------------------------

    def answer(self, to: Address, data: bytes) -> bytes | None:
        """Return a static call's data, None where it reverts."""
        selector, body = data[:4].hex(), data[4:]
        if to == MANAGER:
            return self._answer_manager(selector, body)
        if to in (USD, WETH):
            return _answer_token(to, selector)
        if to == ODD:
            return None
        pool = self.pools.get(to)
        return b"" if pool is None else _answer_pool(pool, selector, body)

    def _answer_manager(self, selector: str, body: bytes) -> bytes | None:
        first = int.from_bytes(body[:32], "big")
        if selector in ("99fbab88", "6352211e"):
            nft = self.nfts.get(first)
            if nft is None:
                return None
            if selector == "6352211e":
                return _words(int(nft.owner, 16))
            pool = self.pools[nft.pool]
            tokens = int(pool.token0, 16), int(pool.token1, 16)
            return _words(
                0, 0, *tokens, pool.fee_pips, nft.lower, nft.upper, nft.liquidity, *nft.last, *nft.owed
            )  # fmt: skip
        owner = "0x" + body[12:32].hex()
        ids = [token_id for token_id, nft in self.nfts.items() if nft.owner == owner]
        if selector == "70a08231":
            return _words(len(ids))
        assert selector == "2f745c59", selector
        index = int.from_bytes(body[32:64], "big")
        return _words(ids[index]) if index < len(ids) else None


def _words(*values: int) -> bytes:
    return b"".join((value & M256).to_bytes(32, "big") for value in values)


def _answer_token(token: Address, selector: str) -> bytes:
    if selector == "313ce567":
        return _words(6 if token == USD else 18)
    assert selector == "95d89b41", selector
    symbol = b"USD" if token == USD else b"WETH"
    return _words(32, len(symbol)) + symbol.ljust(32, b"\0")


def _answer_pool(pool: PoolModel, selector: str, body: bytes) -> bytes:
    match selector:
        case "3850c7bd":
            return _words(pool.sqrt_price, pool.tick, 0, 1, 1, 0, 1)
        case "1a686502":
            return _words(pool.liquidity)
        case "f3058399":
            return _words(pool.growth0)
        case "46141319":
            return _words(pool.growth1)
        case "0dfe1681":
            return _words(int(pool.token0, 16))
        case "d21220a7":
            return _words(int(pool.token1, 16))
        case "ddca3f43":
            return _words(pool.fee_pips)
        case "f30dba93":
            entry = pool.ticks.get(int.from_bytes(body, "big", signed=True), [0, 0, 0])
            return _words(entry[0], 0, entry[1], entry[2], 0, 0, 0, 1 if entry[0] else 0)
        case "514ea4bf":
            for (owner, lower, upper), core in pool.cores.items():
                packed = raw(owner) + lower.to_bytes(3, "big", signed=True) + upper.to_bytes(3, "big", signed=True)
                if keccak(packed) == body:
                    return _words(*core)
            return _words(0, 0, 0, 0, 0)
    raise AssertionError(selector)
