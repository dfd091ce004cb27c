"""Positions that a staking contract holds: whose they are, and what they earn there.

What the staking contract says is `protocols.staking.Staking`'s to know; here it meets the book. A position
belongs to whom it is held for, so that every view of an owner has it. What it earns moves with time alone:
in range it grows each second, so it is evaluated at each block's timestamp from what was read before, and
told at a pace of its own; whatever an event changed is told with that event's block.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import orjson

from ...domain.cents import cents_of
from ...domain.chain import Log
from ...domain.clmath.rewards import seconds_inside, seconds_per_liquidity
from ...domain.diff import EncodedPatch, JsonObject, JsonValue, State
from ...domain.ids import Address, BlockHash, Liquidity, TokenId
from ...domain.text import cents_text
from ..addresses import checksum
from ..base import HistoryQuery, Patches, Plan, Prices, patches_with
from ..staking import Reward, StakedRange
from ..tokens import decimals_call, symbol_call
from . import reads
from .state import WHOLE, Nft, Pool
from .tracking import Tracking

__all__ = ["REWARDS", "Staked", "add_rewards"]

# Which fields a patch holds; the others are in `evaluate`.
REWARDS: Final = 1 << 16
_REWARDS_USD: Final = 1 << 17


class Staked(Tracking):
    """Deposits and stakes in, owners and rewards out."""

    @property
    def _holders(self) -> frozenset[Address]:
        return frozenset() if self._staking is None else self._staking.holders

    @property
    def _staking_topics(self) -> frozenset[str]:
        return frozenset() if self._staking is None else self._staking.topics

    # --- logs -----------------------------------------------------------------------------------------

    def _open_staking(self, block_hash: BlockHash, logs: Sequence[Log]) -> None:
        """Begin a block's record, once all of its logs are known to be what they say."""
        if self._staking is not None:
            for log in logs:
                if log.address in self._staking.holders:
                    self._staking.check(log)
            self._staking.open(block_hash)

    def _fold_staking(self, log: Log) -> None:
        assert self._staking is not None
        touched = self._staking.fold(log)
        if touched is None:
            return
        token_id, owners = touched
        nft = self._nfts.get(token_id)
        if nft is not None:
            self._stale_ids.add(token_id)
            if not owners:
                self._keep_time(nft.range.pool)
        elif token_id in self._wanted_ids or any(owner in self._owners for owner in owners):
            self._urge(token_id, owners[-1] if owners else None)
        else:
            return
        self._journal.current.token_ids.add(token_id)

    # --- whose it is ----------------------------------------------------------------------------------

    def _held_for(self, holder: Address | None, deposit: bytes | None) -> tuple[Address | None, int]:
        """Return whose an NFT is, and how often it is staked; the holder's own where it is held for nobody."""
        if self._staking is None or holder not in self._staking.holders:
            return holder, 0
        held = self._staking.deposit(deposit)
        return held.owner or holder, held.stakes

    def _absorb_stakes(self, token_id: TokenId, stakes: int) -> None:
        """Take how often a position is staked, after the rest of it."""
        nft = self._nfts.get(token_id)
        if self._staking is None or nft is None:
            return
        self._staking.track(token_id, stakes, is_born=token_id in self._newborn)
        self._newborn.discard(token_id)
        if bool(stakes) is not bool(nft.stakes):
            nft.news |= WHOLE
        nft.stakes = stakes
        if stakes:
            self._staked[token_id] = nft
            self._unrewarded.add(token_id)
            self._keep_time(nft.range.pool)
        else:
            self._staked.pop(token_id, None)
            self._unrewarded.discard(token_id)
            nft.rewards = nft.earned = nft.rewards_cents = None

    def _absorb_deposits(self, query: HistoryQuery, logs: Sequence[Log] | None) -> None:
        """Read the positions that may be held for watched owners."""
        assert self._staking is not None
        for owner, token_ids in self._staking.absorb_history(query, logs).items():
            watch = self._owners[owner]
            for token_id in token_ids:
                if token_id not in self._nfts:
                    self._load_ids.setdefault(token_id, None)
                    watch.awaiting.add(token_id)

    # --- a pool's time --------------------------------------------------------------------------------

    def _keep_time(self, pool: Pool) -> None:
        """Keep the pool's last observation from now on, for as long as anything of the pool is tracked."""
        if not pool.keeps_time:
            pool.keeps_time = True
            if pool.is_read:
                self._stale_times.add(pool.address)

    def _plan_times(self, plan: Plan, pool: Pool) -> None:
        """Read the last observation with the pool: the one known last, and those that may have followed it.

        A pool writes at most one a block, at the next index or at the first; which one it was, slot0 tells in
        the same answer. After several blocks at once it may be another: that one is read in a second round.
        """
        for index in sorted({pool.observed_at, pool.observed_at + 1, 0}):
            plan.add(("observation", pool.address, index), reads.observation_call(pool.address, index))

    def _expect_time(self, pool: Pool, slot0: bytes | None) -> None:
        """Note which observation is the last; its answer comes after slot0's, if it was asked for."""
        pool.observed_at = reads.decode_observation_index(slot0)
        if pool.keeps_time:
            pool.observed = None
            self._stale_times.add(pool.address)

    def _absorb_time(self, address: Address, index: int, observation: tuple[int, int]) -> None:
        pool = self._pools.get(address)
        if pool is not None and pool.observed_at == index:
            pool.observed = observation
            self._stale_times.discard(address)

    def _plan_staking(self, plan: Plan) -> None:
        """Add the reads for all that is stale of stakes, of pools' time, and of the tokens that rewards are in."""
        if self._staking is None:
            return
        for address in self._stale_times - self._stale_pools - self._load_pools.keys():
            index = self._pools[address].observed_at
            plan.add(("observation", address, index), reads.observation_call(address, index))
        self._watch_rewards(self._staking.reward_tokens())
        for token in self._unknown_rewards():
            plan.add(("symbol", token), symbol_call(token))
            plan.add(("decimals", token), decimals_call(token))
        self._staking.plan(plan)

    def _watch_rewards(self, tokens: frozenset[Address]) -> None:
        """Have the tokens that rewards are paid in priced like those that positions hold."""
        before, self._reward_tokens = self._reward_tokens, tokens
        for token in sorted(tokens - before):
            self._watch_price(token)
        for token in sorted(before - tokens):
            self._forget_price(token)

    def _unknown_rewards(self) -> frozenset[Address]:
        """Return the tokens that rewards are in and that were not read."""
        return frozenset() if self._staking is None else self._staking.reward_tokens() - self._tokens.keys()

    def _staking_settled(self) -> bool:
        """Return whether everything that a block touched of this has been read."""
        if self._staking is None:
            return True
        return not self._stale_times and self._staking.is_settled() and not self._unknown_rewards()

    # --- values ---------------------------------------------------------------------------------------

    def _evaluate_rewards(
        self, prices: Prices, repriced: frozenset[Address], now: int
    ) -> dict[TokenId, tuple[Nft, EncodedPatch]]:
        """Bring rewards up to a block's timestamp, and their value to its prices.

        Returns:
            Position → (position, patch) of those that changed and were told before; a patch's text without braces.
            Where rewards or their value become known or unknown, the position is marked to be told whole.
        """
        staking = self._staking
        if staking is None:
            return {}
        changed = staking.take_changed(now) | self._unrewarded
        if not 0 <= now - self._rewarded_at < self._rewards_every_s:
            self._rewarded_at = now
            changed |= self._staked.keys()
        moved = repriced & self._reward_tokens
        revalued: set[TokenId] = set()
        if moved:
            revalued = {i for i, nft in self._staked.items() if nft.earned and not moved.isdisjoint(nft.earned)}
        told: dict[TokenId, tuple[Nft, EncodedPatch]] = {}
        for token_id in sorted((changed & self._staked.keys()) | revalued):
            nft = self._staked[token_id]
            before, cents_before = nft.rewards, nft.rewards_cents
            if token_id in changed:
                if not self._can_reward(nft):
                    self._unrewarded.add(token_id)
                    continue
                self._unrewarded.discard(token_id)
                self._reward(nft, now)
            nft.rewards_cents = cents_of(nft.earned, prices)
            rewards, cents = nft.rewards, nft.rewards_cents
            if (rewards is None) is not (before is None) or (cents is None and cents_before is not None):
                nft.news |= WHOLE
                self._dirty_ranges.add(nft.range)
                continue
            fields, text = 0, ""
            if rewards is not None and rewards is not before:
                fields, text = REWARDS, f',"rewards":{orjson.dumps(rewards).decode()}'
            if cents is not None and cents != cents_before:
                fields |= _REWARDS_USD
                text += f',"rewardsUSD":"{cents_text(cents)}"'
            if text and nft.is_shown:
                told[token_id] = nft, (fields, text[1:])
        return told

    def _can_reward(self, nft: Nft) -> bool:
        """Return whether everything is read that a staked position's rewards depend on."""
        assert self._staking is not None
        return nft.range.is_ready() and nft.range.pool.observed is not None and self._staking.is_known(nft.token_id)

    def _reward(self, nft: Nft, now: int) -> None:
        """Set what a staked position has earned at a block. What did not grow keeps its object, and its `asOf`."""
        found = self._rewards(nft, now)
        if found is None:
            nft.rewards = nft.earned = None
            return
        rewards, nft.earned = found
        if nft.rewards is None or rewards["places"] != nft.rewards["places"]:
            nft.rewards = rewards

    def _rewards_due(self, nft: Nft, now: int) -> list[Reward] | None:
        """Return what a staked position has earned at a time, place by place; None while that is unknown."""
        assert self._staking is not None
        rng, pool = nft.range, nft.range.pool
        outside_lower, outside_upper = pool.ticks[rng.lower], pool.ticks[rng.upper]
        assert pool.observed is not None and outside_lower is not None and outside_upper is not None
        total = seconds_per_liquidity(*pool.observed, Liquidity(pool.liquidity), now)
        inside = seconds_inside(pool.tick, rng.lower, rng.upper, total, outside_lower[2], outside_upper[2])
        return self._staking.rewards(nft.token_id, StakedRange(pool.address, rng.lower, rng.upper, inside), now)

    def _rewards(self, nft: Nft, now: int) -> tuple[JsonObject, dict[Address, int] | None] | None:
        """Return what a staked position has earned at a block, place by place and by token; None while unknown.

        By token it is None where one of the places can't say.
        """
        earned = self._rewards_due(nft, now)
        if earned is None or any(reward.token not in self._tokens for reward in earned):
            return None
        places: list[JsonValue] = [
            {
                **reward.terms,
                "token": self._tokens[reward.token].view,
                "amount": None if reward.amount is None else str(reward.amount),
            }
            for reward in earned
        ]
        rewards: JsonObject = {"asOf": now, "places": places}
        by_token: dict[Address, int] = {}
        for reward in earned:
            if reward.amount is None:
                return rewards, None
            by_token[reward.token] = by_token.get(reward.token, 0) + reward.amount
        return rewards, by_token

    def _evaluate_claims(self, claims: dict[Address, State], prices: Prices, repriced: frozenset[Address]) -> None:
        """Add what owners can claim, where it or its value changed."""
        if self._staking is None:
            return
        self._unclaimed |= self._staking.take_claims()
        moved = {f"{self.kind}:{checksum(token)}" for token in repriced & self._reward_tokens}
        if moved:
            self._unclaimed |= {owner for owner, state in self._claimed.items() if not moved.isdisjoint(state)}
        for owner in sorted(self._unclaimed):
            known = self._staking.claims(owner)
            if known is None or not known.keys() <= self._tokens.keys():
                continue
            self._unclaimed.discard(owner)
            state: State = {
                f"{self.kind}:{checksum(token)}": {
                    "chainId": self._chain_id,
                    "protocol": self.kind,
                    "owner": checksum(owner),
                    "token": self._tokens[token].view,
                    "amount": str(amount),
                    "valueUSD": None if (cents := cents_of({token: amount}, prices)) is None else cents_text(cents),
                }
                for token, amount in known.items()
            }
            if state != self._claimed.get(owner):
                self._claimed[owner] = claims[owner] = state


def add_rewards(
    told: Mapping[TokenId, tuple[Nft, EncodedPatch]], whole: Sequence[Nft], patches: dict[int, Patches]
) -> None:
    """Add rewards to the patches of their positions: one patch a position. What is told whole holds them already."""
    left = dict(told)
    for nft in whole:
        left.pop(nft.token_id, None)
    for fields, batch in list(patches.items()):
        if not left:
            return
        if not any(held.token_id in left for held in batch.positions):
            continue
        alone, batch.positions, batch.texts = list(zip(batch.positions, batch.texts, strict=True)), [], []
        for held, text in alone:
            found = left.pop(held.token_id, None)
            into = batch
            if found is not None:
                more, added = found[1]
                into, text = patches_with(patches, fields | more), f"{text[:-1]},{added}}}"
            into.positions.append(held)
            into.texts.append(text)
        if not batch.positions:
            del patches[fields]
    for nft, (fields, text) in left.values():
        rest = patches_with(patches, fields)
        rest.positions.append(nft)
        rest.texts.append(f"{{{text}}}")
