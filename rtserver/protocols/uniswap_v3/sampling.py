"""What positions have earned: samples for whoever keeps a history, and windows of time for rates.

Fees over a window are the difference of a counter: what a collect would pay now, plus what collects have paid, less
what was withdrawn. It moves with fees alone, through any change of liquidity, so there are no segments to add up,
and it is to the unit what collects pay. Sums of growth times liquidity are not: the manager's positions in one
range share one position of the pool, which rounds at every poke.

Samples are taken in turn, so that no block pays for all, and at each change of liquidity. They go with their blocks.
"""

from collections.abc import Iterable, Sequence
from itertools import islice

from ...domain.clmath.amounts import amounts_at
from ...domain.clmath.fees import growth_inside
from ...domain.ids import Address, BlockHash, Liquidity, TokenId
from ..base import Earnings, PastSample, Sample
from .ring import MAX_TIME, SAMPLE_EVERY_S, PoolRing, Ring
from .staked import Staked
from .state import Nft, Pool

__all__ = ["Sampling"]


class Sampling(Staked):
    """Samples out."""

    # --- taking ---------------------------------------------------------------------------------------

    def _take_samples(self, now: int) -> None:
        """Sample those whose turn it is, those never sampled, and pools with them. Comes after each evaluation."""
        passed = max(now - self._evaluated_at, 0) if self._evaluated_at else 0
        self._evaluated_at = now
        record = self._journal.current
        record.evaluated_at = now
        self._noted.clear()
        if now > MAX_TIME:
            return
        queue = self._sample_queue
        count, self._sample_credit = divmod(self._sample_credit + len(queue) * passed, SAMPLE_EVERY_S)
        for _ in range(min(count, len(queue))):
            token_id = next(iter(queue))
            queue.move_to_end(token_id)
            nft = self._nfts[token_id]
            if nft.ring is not None:
                self._sample(nft, now)
        for token_id in sorted(self._unsampled):
            nft = self._nfts[token_id]
            if _is_evaluated(nft):
                nft.ring = Ring()
                self._sample(nft, now)
                self._unsampled.discard(token_id)

    def _sample(self, nft: Nft, time: int) -> None:
        if nft.ring is None or not _is_evaluated(nft):
            return
        nft.ring.add(time, *_counters(nft), nft.value_cents)
        self._journal.current.sampled.add(nft.token_id)
        pool = nft.range.pool
        if pool.ring is None:
            pool.ring = PoolRing()
        pool.ring.add(time, pool.growth0, pool.growth1)

    def _note(self, nft: Nft) -> None:
        """Note what a position is worth and has earned, as last evaluated."""
        if nft.token_id not in self._noted:
            self._noted.add(nft.token_id)
            if 0 < self._evaluated_at <= MAX_TIME:
                self._sample(nft, self._evaluated_at)

    def _unsample(self, sampled: Iterable[TokenId], evaluated_at: int) -> None:
        """Forget what was sampled in a block that left the chain."""
        pools: set[Pool] = set()
        for token_id in sampled:
            nft = self._nfts.get(token_id)
            if nft is None or nft.ring is None:
                continue
            pools.add(nft.range.pool)
            nft.ring.rewind(evaluated_at)
            if nft.ring.is_empty():
                nft.ring = None
                self._unsampled.add(token_id)
        for pool in pools:
            if pool.ring is not None:
                pool.ring.cut(evaluated_at)
        self._evaluated_at = min(self._evaluated_at, evaluated_at)

    def _unsee(self, blocks: Iterable[BlockHash]) -> None:
        """Begin windows again that begin with blocks which left the chain."""
        for block in blocks:
            for token_id in self._seen_in.pop(block, (0, ()))[1]:
                nft = self._nfts.get(token_id)
                if nft is not None:
                    nft.ring = nft.range.pool.ring = None
                    self._unsampled.add(token_id)
                    self._unlooked[token_id] = None

    def unseeded(self, limit: int) -> list[TokenId]:
        """Return positions whose windows begin with this process, and that may have older ones."""
        ready = (token_id for token_id in self._unseeded if self._can_seed(self._nfts[token_id]))
        return list(islice(ready, limit))

    def _can_seed(self, nft: Nft) -> bool:
        return nft.whole_life is not None and nft.ring is not None and _is_evaluated(nft)

    def seed(self, token_id: TokenId, samples: Sequence[PastSample]) -> None:
        """Begin a position's windows with what was kept of it, oldest first."""
        nft = self._nfts.get(token_id)
        if nft is None or nft.ring is None or not self._can_seed(nft):
            return
        life = nft.whole_life
        assert life is not None
        self._unseeded.pop(token_id, None)
        ring, until = Ring(), nft.ring.oldest
        for one in samples:
            if one.earned0 is not None and one.earned1 is not None and one.timestamp < until:
                ring.add(one.timestamp, one.earned0 - life.shift0, one.earned1 - life.shift1, one.value_cents)
        if not ring.is_empty():
            nft.ring = ring
            self._sample(nft, self._evaluated_at)

    # --- telling --------------------------------------------------------------------------------------

    def take_resized(self) -> set[TokenId]:
        """Return the positions whose liquidity changed since this was last asked, also by a reorganisation."""
        resized, self._resized = self._resized, set()
        return resized

    def samples(self, token_ids: Iterable[TokenId]) -> list[Sample]:
        """Return what these positions are, as last evaluated; those that aren't tracked or fully read are left out."""
        found = (self._nfts.get(token_id) for token_id in token_ids)
        return [self._sample_of(nft) for nft in found if nft is not None and _is_evaluated(nft)]

    def _sample_of(self, nft: Nft) -> Sample:
        rng, pool, life = nft.range, nft.range.pool, nft.whole_life
        lower, upper = pool.ticks[rng.lower], pool.ticks[rng.upper]
        assert lower is not None and upper is not None
        inside = [
            growth_inside(pool.tick, rng.lower, rng.upper, growth, lower[side], upper[side])
            for side, growth in enumerate((pool.growth0, pool.growth1))
        ]
        amounts = amounts_at(pool.sqrt_price, rng.sqrt_lower, rng.sqrt_upper, Liquidity(nft.liquidity))
        fees = [
            None if principal is None else max(collectable - principal, 0)
            for collectable, principal in ((nft.collectable0, nft.principal0), (nft.collectable1, nft.principal1))
        ]
        return Sample(
            token_id=nft.token_id, liquidity=nft.liquidity, inside0=inside[0], inside1=inside[1],
            amount0=amounts[0], amount1=amounts[1], fees0=fees[0], fees1=fees[1],
            earned0=None if life is None else nft.collectable0 + life.net0,
            earned1=None if life is None else nft.collectable1 + life.net1,
            sqrt_price_x96=pool.sqrt_price, tick=pool.tick, is_active=rng.was_in_range and nft.liquidity > 0,
            value_cents=nft.value_cents, fees_cents=nft.fees_cents, rewards=self._rewards_over_life(nft),
        )  # fmt: skip

    def _rewards_over_life(self, nft: Nft) -> dict[Address, int] | None:
        """Return what a position earned by staking, by token: credited so far and due now."""
        if self._staking is None:
            return {}
        credited = self._staking.credited(nft.token_id)
        if credited is None:
            return None
        earned = dict(credited)
        if nft.stakes:
            if not self._can_reward(nft):
                return None
            due = self._rewards_due(nft, self._evaluated_at)
            for reward in due if due is not None else ():
                if reward.amount is None:
                    continue  # the contract's own answer reverts: nothing would be credited
                earned[reward.token] = earned.get(reward.token, 0) + reward.amount
            if due is None:
                return None
        return earned

    def earnings(self, token_id: TokenId) -> Earnings | None:
        """Return what a position's rates are computed from, as last evaluated; None where it isn't fully read."""
        nft = self._nfts.get(token_id)
        if nft is None or not _is_evaluated(nft):
            return None
        pool, now = nft.range.pool, self._evaluated_at
        rates: dict[Address, int] | None = {}
        if nft.stakes and self._staking is not None:
            known = self._staking.rates(token_id, Liquidity(pool.liquidity), now) if self._can_reward(nft) else None
            rates = None if known is None else dict(known)
            if rates is not None and not nft.range.was_in_range:
                rates = dict.fromkeys(rates, 0)
        return Earnings(
            sample=self._sample_of(nft), token0=pool.token0, token1=pool.token1,
            collectable0=nft.collectable0, collectable1=nft.collectable1,
            owed_principal0=nft.principal0, owed_principal1=nft.principal1,
            windows=() if nft.ring is None else nft.ring.windows(now, *_counters(nft), nft.value_cents),
            pool_windows=() if pool.ring is None else pool.ring.windows(now, pool.growth0, pool.growth1),
            reward_rates=rates,
        )  # fmt: skip


def _is_evaluated(nft: Nft) -> bool:
    return nft.is_shown and nft.collectable0 >= 0 and nft.collectable1 >= 0 and nft.range.is_ready()


def _counters(nft: Nft) -> tuple[int, int]:
    life = nft.life
    if life is None:
        return nft.collectable0, nft.collectable1
    return nft.collectable0 + life.net0 - life.shift0, nft.collectable1 + life.net1 - life.shift1
