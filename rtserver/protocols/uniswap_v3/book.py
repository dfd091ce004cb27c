"""The Uniswap v3 book: who wants what, and what changed after everything stale was read again.

A state machine without I/O; see protocols.base.Book for the contract. Everything is kept exact by one
rule: whatever a block, a gap or a reorganisation touched is read again at the new head, once.
"""

from collections.abc import Iterable

from ...domain.diff import EncodedPatch, JsonObject, State
from ...domain.ids import Address, TokenId
from ..base import Evaluation, Prices, QuotePool
from .archive import Archive
from .discovery import OwnerWatch
from .evaluate import evaluate_pool_price, evaluate_ranges, pool_view, position_view
from .history import Histories
from .keeping import Keeping
from .reading import Reading
from .revalue import revalue_ranges
from .staked import add_rewards
from .state import Nft, Pool, Range

__all__ = ["UniswapV3Book"]


class UniswapV3Book(Keeping, Reading, Histories, Archive):
    """The positions of one Uniswap v3 deployment on one chain."""

    # --- wishes ---------------------------------------------------------------------------------------

    def want_position(self, token_id: TokenId) -> None:
        """Track a position from now on."""
        self._wanted_ids[token_id] = self._wanted_ids.get(token_id, 0) + 1
        if token_id not in self._nfts:
            self._load_ids.setdefault(token_id, None)

    def unwant_position(self, token_id: TokenId) -> None:
        """Undo `want_position`."""
        left = self._wanted_ids.get(token_id, 0) - 1
        if left > 0:
            self._wanted_ids[token_id] = left
            return
        self._wanted_ids.pop(token_id, None)
        nft = self._nfts.get(token_id)
        if nft is None:
            self._give_up({token_id})
        elif nft.owner not in self._owners:
            self._drop(nft)

    def want_owner(self, owner: Address) -> None:
        """Track all positions of an owner from now on."""
        watch = self._owners.get(owner)
        if watch is None:
            watch = self._owners[owner] = OwnerWatch(owner)
            self._undiscovered[owner] = None
            if self._staking is not None:
                self._staking.want_owner(owner)
                self._unclaimed.add(owner)
        watch.wishes += 1

    def unwant_owner(self, owner: Address) -> None:
        """Undo `want_owner`."""
        watch = self._owners.get(owner)
        if watch is None:
            return
        watch.wishes -= 1
        if watch.wishes > 0:
            return
        del self._owners[owner]
        self._undiscovered.pop(owner, None)
        if self._staking is not None:
            self._staking.unwant_owner(owner)
            self._claimed.pop(owner, None)
            self._unclaimed.discard(owner)
        self._give_up(watch.awaiting)
        for token_id in list(self._owned.get(owner, ())):
            if token_id not in self._wanted_ids:
                self._drop(self._nfts[token_id])

    def _give_up(self, token_ids: set[TokenId]) -> None:
        """Don't read these positions any more, unless someone else waits for them."""
        awaited = self._wanted_ids.keys() | set().union(*(watch.awaiting for watch in self._owners.values()))
        for token_id in token_ids - awaited:
            self._load_ids.pop(token_id, None)

    def want_pool(self, pool: Address) -> None:
        """Track a pool from now on; it is taken only if the factory would deploy it at that address."""
        self._wanted_pools[pool] = self._wanted_pools.get(pool, 0) + 1
        known = self._pools.get(pool)
        if known is None:
            self._load_identities[pool] = None
        else:
            self._track_growth(known)
            self._dirty_pools.add(pool)

    def unwant_pool(self, pool: Address) -> None:
        """Undo `want_pool`."""
        left = self._wanted_pools.get(pool, 0) - 1
        if left > 0:
            self._wanted_pools[pool] = left
            return
        self._wanted_pools.pop(pool, None)
        self._load_identities.pop(pool, None)
        self._not_pools.discard(pool)
        known = self._pools.get(pool)
        if known is not None:
            known.view = None
            self._drop_pool_if_unused(known)

    def position_ready(self, token_id: TokenId) -> bool:
        """Return whether the position is fully read (or known not to exist)."""
        nft = self._nfts.get(token_id)
        if nft is None:
            return token_id not in self._load_ids
        return self._nft_ready(nft)

    def owner_ready(self, owner: Address) -> bool:
        """Return whether all of an owner's positions are fully read."""
        watch = self._owners.get(owner)
        # Whoever turns out to own a position, having been read it is awaited no more.
        if watch is None or not watch.discovered or not watch.awaiting.isdisjoint(self._load_ids):
            return False
        if self._staking is not None and not self._staking.owner_ready(owner):
            return False
        return all(self._nft_ready(self._nfts[token_id]) for token_id in self._owned.get(owner, ()))

    def pool_ready(self, pool: Address) -> bool:
        """Return whether the pool is fully read (or known not to exist)."""
        if pool in self._not_pools:
            return True
        known = self._pools.get(pool)
        return known is not None and known.is_ready() and self._tokens_of(known) is not None

    def position(self, token_id: TokenId) -> JsonObject | None:
        """Return a position as last evaluated, or None where it doesn't exist."""
        nft = self._nfts.get(token_id)
        return None if nft is None else self._view(nft)

    def _view(self, nft: Nft) -> JsonObject | None:
        tokens = self._tokens_of(nft.range.pool)
        if not nft.is_shown or tokens is None:
            return None
        return position_view(nft, (self._chain_id, self.kind, *tokens))

    def positions_of(self, owner: Address) -> dict[TokenId, JsonObject]:
        """Return an owner's positions as last evaluated."""
        found = {token_id: self._view(self._nfts[token_id]) for token_id in sorted(self._owned.get(owner, ()))}
        return {token_id: view for token_id, view in found.items() if view is not None}

    def pool(self, pool: Address) -> JsonObject | None:
        """Return a pool as last evaluated, or None where it isn't one of this deployment's."""
        known = self._pools.get(pool)
        return None if known is None or not known.exists else known.view

    def price_of(self, token_id: TokenId) -> str | None:
        """Return the price in a position's pool as last evaluated, None where it isn't known."""
        nft = self._nfts.get(token_id)
        return None if nft is None else nft.range.pool.price

    def take_turned(self) -> dict[TokenId, bool | None]:
        """Return whether positions are in range of which that changed, or that are new; None: tracked no more."""
        turned, self._turned = self._turned, {}
        self._tells_turns = True
        return turned

    def claims_of(self, owner: Address) -> State | None:
        """Return what an owner can claim, by key, as last evaluated; None while it is unread."""
        return {} if self._staking is None else self._claimed.get(owner)

    # --- evaluation -----------------------------------------------------------------------------------

    def quotes(self) -> dict[Address, list[QuotePool] | None]:
        """Return each token whose pools or decimals were read again, with all its pools against a dollar or a hop."""
        tokens, self._requote = self._requote, set()
        tokens.update(self._priced_token(self._pools[address]) for address in self._dirty_pools & self._quote_pools)
        return {token: [*self._quotes_of(token)] if self._is_held(token) else None for token in tokens}

    def evaluate(self, prices: Prices, repriced: frozenset[Address], now: int) -> Evaluation:
        """Return what changed for everything that was touched, for holders of the repriced tokens, and by time."""
        result = Evaluation(removed=self._removed, moved=self._moved)
        earned = self._evaluate_rewards(prices, repriced, now)
        self._removed, self._moved = {}, {}
        ranges = self._dirty_ranges
        self._dirty_ranges = set()
        pools = set(self._dirty_pools)
        for token in repriced:
            pools |= self._pools_of.get(token, set())
        waiting: set[Address] = set()
        moves: dict[Pool, EncodedPatch] = {}
        work: dict[Pool, Iterable[Range]] = {}
        for address in pools:
            pool = self._pools[address]
            tokens = self._tokens_of(pool)
            if tokens is None or not pool.is_ready():
                waiting.add(address)
                continue
            cents0, cents1 = prices.get(pool.token0), prices.get(pool.token1)
            move = evaluate_pool_price(pool, *tokens, cents0, cents1, self._deviation_bps)
            if move is not None:
                moves[pool] = move
            if cents0 is None or cents1 is None or address in self._dirty_pools or (move is not None and not move[1]):
                work[pool] = pool.ranges.values()
            else:
                revalue_ranges(pool, ranges, move, cents0, cents1, result.patches)
            if address in self._wanted_pools:
                # A reorganisation can take a pool's creation away.
                view = pool_view(pool, (self._chain_id, self.kind, *tokens)) if pool.exists else None
                if view != pool.view:
                    pool.view = result.pools[address] = view
        self._dirty_pools = waiting & self._dirty_pools
        alone: dict[Pool, list[Range]] = {}
        for rng in ranges:
            if rng.pool not in work:
                alone.setdefault(rng.pool, []).append(rng)
        work.update(alone)
        whole: list[Nft] = []
        for pool, mine in work.items():
            if self._tokens_of(pool) is None or not pool.is_ready():
                self._dirty_ranges.update(mine)
                continue
            cents0, cents1 = prices.get(pool.token0), prices.get(pool.token1)
            unread = evaluate_ranges(pool, mine, moves.get(pool), cents0, cents1, whole, result.patches, self._turned)
            self._dirty_ranges.update(unread)
        if earned:
            add_rewards(earned, whole, result.patches)
        self._evaluate_claims(result.claims, prices, repriced)
        self._price_events(prices, now)
        self._take_samples(now)
        for nft in whole:
            shown = self._view(nft)
            assert shown is not None
            result.sets[nft.token_id] = shown
        return result
