"""A market that never ends: what is traded and who moves liquidity in each block, from one seed.

Decides from the book (`decide` is a pure function of book and random state, so equal seeds on equal chains
give equal blocks) and sends through the lab. A transaction that fails is counted and logged; it never stops
the market. Prices follow a random walk that is pulled back to where it began, so they stay sane for days.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from .actions import MAX_SQRT_PRICE, MIN_SQRT_PRICE, SwapLeg, Tx
from .book import Nft
from .deployment import Pool, sqrt_price_of
from .lab import Lab
from .ranges import RangeKind, choose_range
from .rpc import NodeUnreachable, RpcError
from .session import MinedBlock

__all__ = ["Market", "MarketConfig", "MarketStats"]

_log: Final = structlog.get_logger("rtserver.demo.market")

# Largest price move that one trade aims for: crosses a few ranges, stays well inside the base liquidity.
_MAX_MOVE: Final = 0.03
# Smallest trade in raw units: under it the pool's rounding eats the whole output.
_MIN_AMOUNT: Final = 1_000
_Q96: Final = 2**96
_DOLLARS: Final = ("USDC", "USDT", "DAI")


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketConfig:
    """How lively the market is. Counts are inclusive (least, most) per block."""

    swaps_per_block: tuple[int, int] = (1, 4)
    changes_per_block: tuple[int, int] = (0, 3)
    # The base liquidity is not counted. At the limit, burns replace mints.
    max_nfts: int = 150
    # Standard deviation of a token's logarithmic price per block, and the share of its distance from the
    # beginning that it gives back per block: together they keep prices within about ±6 %.
    volatility: float = 0.0015
    reversion: float = 0.005
    # NFTs that keep their owner and their liquidity, but may be poked, collected and added to: showpieces.
    kept: frozenset[int] = frozenset()
    # Blocks are this far apart in `step`; None takes the node's clock.
    seconds_per_block: int | None = None


@dataclass(slots=True)
class MarketStats:
    """What happened so far; `failed` counts reasons."""

    blocks: int = 0
    sent: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)


class Market:
    """Trades on one lab. Use `step` where blocks are mined on demand, `run` where they come by themselves."""

    def __init__(self, lab: Lab, *, seed: int, config: MarketConfig | None = None) -> None:
        self.config = config or MarketConfig()
        self.stats = MarketStats()
        self._lab = lab
        self._random = random.Random(seed)
        # Logarithm of each token's dollar price over its first one.
        self._drift = dict.fromkeys(lab.deployment.tokens, 0.0)
        self._pools = {pool.address: pool for pool in lab.deployment.pools}
        # What this block's transactions already use: two of them must not trip over each other.
        self._used_nfts: set[int] = set()
        self._used_pools: set[str] = set()

    async def step(self) -> MinedBlock:
        """Send one block's transactions, mine them, and return the block."""
        await self._send(self.decide())
        gap = self.config.seconds_per_block
        timestamp = None if gap is None else self._lab.head.timestamp + gap
        block = await self._lab.mine(allow_failures=True, timestamp=timestamp)
        self._count(block)
        return block

    async def steps(self, count: int) -> None:
        """Mine so many blocks, one `step` each."""
        for _ in range(count):
            await self.step()

    async def run(self, block_time_s: float) -> None:
        """Send one block's transactions after each block that appears, until cancelled.

        Outlives a node that is frozen, restarted or reorganised: it waits and reads the book anew.

        Args:
            block_time_s: Seconds between blocks, about.
        """
        poll_s = min(0.5, max(0.05, block_time_s / 5))
        while True:
            try:
                blocks = await self._lab.catch_up()
                for block in blocks:
                    self._count(block)
                if blocks:
                    await self._send(self.decide())
            except (NodeUnreachable, RpcError) as error:
                self.stats.failed[type(error).__name__] += 1
                _log.warning("market waits for the node", error=str(error))
            await asyncio.sleep(poll_s)

    def decide(self) -> list[Tx]:
        """Return the next block's transactions and move the target prices on."""
        rng, config = self._random, self.config
        self._used_nfts, self._used_pools = set(), set()
        for symbol in self._drift:
            calm = 0.02 if symbol in _DOLLARS else 1.0
            kept = self._drift[symbol] * (1 - config.reversion)
            self._drift[symbol] = kept + rng.gauss(0.0, config.volatility * calm)
        choices: list[Callable[[], Tx | None]] = [self._trade] * rng.randint(*config.swaps_per_block)
        choices += [self._change] * rng.randint(*config.changes_per_block)
        rng.shuffle(choices)
        return [tx for choose in choices if (tx := choose()) is not None]

    async def _send(self, transactions: Sequence[Tx]) -> None:
        for tx in transactions:
            try:
                await self._lab.send(tx)
            except RpcError as error:
                self.stats.failed[error.message] += 1
                _log.warning("transaction refused", action=tx.label, error=error.message)
            else:
                self.stats.sent += 1
                self.stats.actions[tx.label.split()[0]] += 1

    def _count(self, block: MinedBlock) -> None:
        self.stats.blocks += 1
        for failed in block.failed:
            self.stats.failed[failed.reason] += 1
            _log.info("transaction reverted", action=failed.label, reason=failed.reason, block=block.number)

    # --- trades ----------------------------------------------------------------------------------------

    def _trade(self) -> Tx | None:
        rng = self._random
        pool = rng.choice(self._lab.deployment.pools)
        state = self._lab.book.pools[pool.address]
        first = pool.address not in self._used_pools
        self._used_pools.add(pool.address)
        trader, actions = self._lab.deployment.trader, self._lab.actions
        kind = rng.random()
        if kind < 0.04:
            dollars = rng.uniform(1_000, 50_000)
            return actions.flash(trader, pool, pool.token0.raw_of_usd(dollars), pool.token1.raw_of_usd(dollars / 3))
        move = self._move(pool)
        if kind < 0.20 and first:
            # Straight at the pool, ending exactly at a price. Only as the pool's first trade in the block:
            # after another one the price may already lie beyond the limit, which reverts.
            limit = _moved(state.sqrt_price, move)
            return actions.swap(trader, [SwapLeg(pool, move < 0, sqrt_price_limit=limit)])
        if kind < 0.30 and first:
            # Out and most of the way back in one transaction: ticks crossed twice.
            far, near = _moved(state.sqrt_price, 4 * move), _moved(state.sqrt_price, move)
            legs = [
                SwapLeg(pool, move < 0, sqrt_price_limit=far),
                SwapLeg(pool, move > 0, sqrt_price_limit=near),
            ]
            return actions.swap(trader, legs)
        amount = self._amount(pool, move)
        return actions.route_swap(trader, pool, move < 0, amount)

    def _move(self, pool: Pool) -> float:
        """Return the logarithmic price change that the next trade aims for; never zero."""
        rng, state = self._random, self._lab.book.pools[pool.address]
        start = sqrt_price_of(pool.token0, pool.token1)
        now = 2 * math.log(state.sqrt_price / start)
        target = self._drift[pool.token0.symbol] - self._drift[pool.token1.symbol]
        calm = 0.02 if pool.token0.symbol in _DOLLARS and pool.token1.symbol in _DOLLARS else 1.0
        move = (target - now) * rng.uniform(0.1, 0.9) + rng.gauss(0.0, 0.001 * calm)
        if rng.random() < 0.03:
            move += rng.choice((-1, 1)) * rng.uniform(0.005, 0.02) * calm
        move = max(-_MAX_MOVE, min(_MAX_MOVE, move))
        return move if abs(move) > 1e-6 else 1e-6

    def _amount(self, pool: Pool, move: float) -> int:
        """Return the input that moves the price about that far with the liquidity now in range."""
        state = self._lab.book.pools[pool.address]
        active = sum(
            nft.liquidity
            for nft in self._lab.book.nfts.values()
            if nft.pool == pool.address and nft.lower <= state.tick < nft.upper
        )
        share = math.expm1(abs(move) / 2) / (1 - pool.fee_pips / 1e6)
        unit = active * _Q96 / state.sqrt_price if move < 0 else active * state.sqrt_price / _Q96
        return max(_MIN_AMOUNT, int(unit * share))

    # --- liquidity -------------------------------------------------------------------------------------

    def _change(self) -> Tx | None:
        rng = self._random
        people = set(self._lab.owners)
        free = sorted(
            (n for n in self._lab.book.nfts.values() if n.token_id not in self._used_nfts),
            key=lambda nft: nft.token_id,
        )
        owned = [nft for nft in free if nft.owner in people]
        count = len(self._lab.book.nfts) - len(self._lab.deployment.pools)
        room = 1.0 - count / self.config.max_nfts
        weights: list[tuple[Callable[[list[Nft], list[Nft]], Tx | None], float]] = [
            (self._mint, 40.0 * max(0.0, room)),
            (self._burn, 2.0 if room > 0.2 else 12.0),
            (self._increase, 12.0),
            (self._decrease, 12.0),
            (self._collect, 14.0),
            (self._poke, 10.0),
            (self._transfer, 5.0),
            (self._stake, 3.0),
            (self._unstake, 3.0),
        ]
        choose = rng.choices([w[0] for w in weights], [w[1] for w in weights])[0]
        if choose in (self._burn, self._decrease, self._transfer, self._stake, self._unstake):
            owned, free = ([n for n in nfts if n.token_id not in self.config.kept] for nfts in (owned, free))
        return choose(owned, free)

    def _take(self, candidates: list[Nft]) -> Nft | None:
        if not candidates:
            return None
        nft = self._random.choice(candidates)
        self._used_nfts.add(nft.token_id)
        return nft

    def _mint(self, owned: list[Nft], free: list[Nft]) -> Tx | None:
        rng = self._random
        owner = rng.choice(self._lab.owners)
        kind = rng.choices(list(RangeKind), [30, 25, 12, 12, 6, 15])[0]
        pool = rng.choice(self._lab.deployment.pools)
        if kind is RangeKind.SHARED:
            others = [nft for nft in owned if nft.owner != owner]
            if not others:
                return None
            other = rng.choice(others)
            pool, lower, upper = self._pools[other.pool], other.lower, other.upper
        else:
            lower, upper = choose_range(rng, pool, self._lab.book.pools[pool.address].tick, kind)
        dollars = rng.lognormvariate(math.log(8_000), 1.0)
        amount0, amount1 = pool.token0.raw_of_usd(dollars), pool.token1.raw_of_usd(dollars)
        return self._lab.actions.mint(owner, pool, lower, upper, amount0, amount1)

    def _burn(self, owned: list[Nft], free: list[Nft]) -> Tx | None:
        nft = self._take(owned)
        return None if nft is None else self._lab.actions.burn(nft.owner, nft.token_id, nft.liquidity)

    def _increase(self, owned: list[Nft], free: list[Nft]) -> Tx | None:
        # A closed position stays closed: reviving it would empty that case of the demo.
        if (nft := self._take([n for n in free if n.liquidity > 0])) is None:
            return None
        # Anyone may: the owner, or someone else into a position (even a staked one) that is not theirs.
        stranger = self._lab.deployment.stranger
        sender = nft.owner if nft.owner in self._lab.owners and self._random.random() < 0.7 else stranger
        pool = self._pools[nft.pool]
        dollars = self._random.lognormvariate(math.log(2_000), 0.8)
        amount0, amount1 = pool.token0.raw_of_usd(dollars), pool.token1.raw_of_usd(dollars)
        return self._lab.actions.increase(sender, nft.token_id, amount0, amount1)

    def _decrease(self, owned: list[Nft], free: list[Nft]) -> Tx | None:
        if (nft := self._take([n for n in owned if n.liquidity > 1_000])) is None:
            return None
        # Now and then all of it, left uncollected: liquidity 0 with everything in tokensOwed.
        thousandths = 1_000 if self._random.random() < 0.2 else self._random.randint(50, 700)
        return self._lab.actions.decrease(nft.owner, nft.token_id, nft.liquidity * thousandths // 1_000)

    def _collect(self, owned: list[Nft], free: list[Nft]) -> Tx | None:
        nft = self._take(owned)
        return None if nft is None else self._lab.actions.collect(nft.owner, nft.token_id)

    def _poke(self, owned: list[Nft], free: list[Nft]) -> Tx | None:
        nft = self._take(owned)
        return None if nft is None else self._lab.actions.collect(nft.owner, nft.token_id, 1, 0)

    def _transfer(self, owned: list[Nft], free: list[Nft]) -> Tx | None:
        if (nft := self._take(owned)) is None or len(self._lab.owners) < 2:
            return None
        to = self._random.choice([owner for owner in self._lab.owners if owner != nft.owner])
        return self._lab.actions.transfer(nft.owner, nft.token_id, to)

    def _stake(self, owned: list[Nft], free: list[Nft]) -> Tx | None:
        incentives = {i.pool: i for i in self._lab.deployment.incentives}
        nft = self._take([n for n in owned if n.pool in incentives and n.liquidity > 0])
        if nft is None:
            return None
        return self._lab.actions.stake(nft.owner, nft.token_id, incentives[nft.pool])

    def _unstake(self, owned: list[Nft], free: list[Nft]) -> Tx | None:
        depositors = self._lab.book.depositors
        if (nft := self._take([n for n in free if n.token_id in depositors])) is None:
            return None
        incentive = self._lab.incentive(nft.pool)
        return self._lab.actions.unstake(depositors[nft.token_id], nft.token_id, incentive)


def _moved(sqrt_price: int, move: float) -> int:
    """Return the sqrt price after a logarithmic price change, kept inside what a pool takes."""
    moved = int(sqrt_price * math.exp(move / 2))
    # A tiny move can round to no move at all, which a pool refuses as a limit.
    moved = max(moved, sqrt_price + 1) if move > 0 else min(moved, sqrt_price - 1)
    return max(MIN_SQRT_PRICE + 1, min(MAX_SQRT_PRICE - 1, moved))
