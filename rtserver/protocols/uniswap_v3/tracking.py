"""What a book tracks, and what of it is stale or unread: the ground that its other parts stand on.

Decides what is kept and what is dropped; never decodes a log or an answer.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from typing import Final

from ...domain.diff import State
from ...domain.ids import Address, BlockHash, ChainId, SqrtPriceX96, Tick, TokenId
from ..addresses import create2_pool
from ..base import LogFilter, QuotePool
from ..staking import Staking
from . import reads
from .discovery import OwnerWatch
from .journal import Journal, Touched
from .life import Event, Lifetime, Unpaid
from .state import Nft, Pool, Range, RangeKey, Token

__all__ = ["FEE_TIERS", "Tracking"]

# Fee tiers, in hundredths of a basis point, whose pools may price a token against a dollar token.
FEE_TIERS: Final = (100, 500, 3000, 10000)
# Blocks of events that may wait for somebody who knows prices of then; of more the first ones stay unpriced.
_MOST_THEN: Final = 10_000


class Tracking:
    """Tokens, pools, ranges and positions, who wants them, and what has to be read."""

    def __init__(
        self,
        *,
        chain_id: ChainId,
        factory: Address,
        position_manager: Address,
        init_code_hash: bytes,
        stablecoins: Sequence[Address] = (),
        hops: Sequence[Address] = (),
        staking: Staking | None = None,
        rewards_every_s: float = 0.0,
        looks_back: bool = False,
        deviation_bps: int = 200,
        kind: str = "uniswap-v3",
    ) -> None:
        self.kind = kind
        self._chain_id = chain_id
        self._factory = factory
        self._manager = position_manager
        self._init_code_hash = init_code_hash
        self._stablecoins = tuple(stablecoins)
        self._hops = tuple(token for token in hops if token not in self._stablecoins)
        self._staking = staking
        self._rewards_every_s = rewards_every_s
        self._looks_back = looks_back
        self._deviation_bps = deviation_bps
        self._journal = Journal()
        self._tokens: dict[Address, Token] = {}
        self._pools: dict[Address, Pool] = {}
        self._pools_of: dict[Address, set[Address]] = {}  # token → its pools
        self._nfts: dict[TokenId, Nft] = {}
        self._owned: dict[Address, set[TokenId]] = {}
        # Wishes.
        self._owners: dict[Address, OwnerWatch] = {}
        self._undiscovered: dict[Address, None] = {}
        self._wanted_ids: dict[TokenId, int] = {}
        self._wanted_pools: dict[Address, int] = {}
        self._quote_pools: set[Address] = set()
        self._not_pools: set[Address] = set()
        # Read before, and no longer true.
        self._stale_pools: set[Address] = set()
        self._stale_ticks: set[tuple[Address, Tick]] = set()
        self._stale_cores: set[RangeKey] = set()
        self._stale_ids: set[TokenId] = set()
        # Their last observation is at another index than was read.
        self._stale_times: set[Address] = set()
        # Never read.
        self._load_tokens: dict[Address, None] = {}
        self._load_identities: dict[Address, None] = {}
        self._load_pools: dict[Address, None] = {}
        self._load_ticks: dict[tuple[Address, Tick], None] = {}
        self._load_cores: dict[RangeKey, None] = {}
        self._load_ids: dict[TokenId, Address | None] = {}
        self._load_history: set[TokenId] = set()
        # Events came or went while a history was being read: its sum is of no use.
        self._history_touched: set[TokenId] = set()
        # Positions whose events are to be asked for; those of which it is then unknown what was paid.
        self._load_life: dict[TokenId, None] = {}
        self._unpaid: dict[TokenId, Unpaid] = {}
        # Events of positions that were minted since the last evaluation and not read yet.
        self._born: dict[TokenId, list[Event]] = {}
        self._newborn: set[TokenId] = set()
        # How often blocks left the chain.
        self._turns = 0
        # Events of blocks that were not evaluated yet.
        self._fresh_events: list[tuple[Nft, Event]] = []
        # Positions whose events are to be priced; events that no block's state prices: of one block, with its time.
        self._unpriced: dict[TokenId, None] = {}
        self._then: deque[tuple[Nft, Lifetime, list[Event], int]] = deque(maxlen=_MOST_THEN)
        self._expects_then = False
        # Positions whose liquidity changed; those sampled since the last evaluation, before what happened to them;
        # those to be sampled for the first time; all, the next one first; time passed for them, in seconds × positions.
        self._resized: set[TokenId] = set()
        # Those that may have been sampled by an earlier process.
        self._unseeded: dict[TokenId, None] = {}
        # Those whose windows may begin earlier by what nodes keep; whether a history is to say first what it has; ages
        # that nodes don't keep → until when, in chain seconds; what was seen in recent blocks: its time, and of whom.
        self._unlooked: dict[TokenId, None] = {}
        self._awaits_seeds = False
        self._refused_ages: dict[int, int] = {}
        self._seen_in: dict[BlockHash, tuple[int, set[TokenId]]] = {}
        self._noted: set[TokenId] = set()
        self._unsampled: set[TokenId] = set()
        self._sample_queue: OrderedDict[TokenId, None] = OrderedDict()
        self._sample_credit = 0
        # The timestamp of the last evaluation, 0 before the first.
        self._evaluated_at = 0
        # Positions that a block brought: they belong into that block's frame.
        self._urgent: set[TokenId] = set()
        self._hinted: set[RangeKey] = set()
        # What the newest Swap since the last read says of a pool's price: the read has to say the same.
        self._told: dict[Address, SqrtPriceX96] = {}
        self._contradictions = 0
        # Read since the last evaluation.
        self._dirty_pools: set[Address] = set()
        self._dirty_ranges: set[Range] = set()
        # Tokens whose pools, decimals or being held have changed since they were last told.
        self._requote: set[Address] = set()
        self._removed: dict[TokenId, Address] = {}
        self._moved: dict[TokenId, tuple[Address, Address]] = {}
        # Whether positions are in range of which that changed; None: tracked no more. Whether anyone asks for it.
        self._turned: dict[TokenId, bool | None] = {}
        self._tells_turns = False
        self._filter: LogFilter | None = None
        # As last kept for the next process: see keeping.py.
        self._kept_tokens: set[Address] = set()
        self._kept_nfts: dict[TokenId, tuple[Range, Address, int | None, int | None]] = {}
        self._kept_lives: dict[TokenId, tuple[Lifetime | None, int]] = {}
        self._kept_owners: set[Address] = set()
        self._kept_records: dict[BlockHash, Touched] = {}
        # Staked positions; those of them to be told what they earned; when all of them last were, in chain seconds.
        self._staked: dict[TokenId, Nft] = {}
        self._unrewarded: set[TokenId] = set()
        self._reward_tokens: frozenset[Address] = frozenset()
        self._rewarded_at = 0
        # What owners can claim, as last told; those of them for whom that has to be told anew.
        self._claimed: dict[Address, State] = {}
        self._unclaimed: set[Address] = set()

    def owner_of(self, token_id: TokenId) -> Address | None:
        """Return a tracked position's owner."""
        nft = self._nfts.get(token_id)
        return None if nft is None else nft.owner

    @property
    def tracked(self) -> dict[str, int]:
        """Return how much is tracked, for metrics."""
        unread = len(self._load_history | self._load_life.keys()) + len(self._unpaid)
        if self._staking is not None:
            unread += self._staking.unread
        return {
            "positions": len(self._nfts),
            "pools": len(self._pools),
            "owners": len(self._owners),
            "unread_pasts": unread,
        }

    @property
    def events(self) -> int:
        """Return how many events of positions are kept one by one."""
        return sum(len(nft.life.events) for nft in self._nfts.values() if nft.life is not None)

    # --- what is told and asked ------------------------------------------------------------------------

    def decimals(self, token: Address) -> int | None:
        """Return a token's decimals, None while unknown or unusable."""
        known = self._tokens.get(token)
        return None if known is None else known.decimals

    def _nft_ready(self, nft: Nft) -> bool:
        if not nft.is_shown or not nft.range.is_ready() or nft.token_id in self._load_history:
            return False
        return not nft.stakes or (nft.token_id not in self._unrewarded and self._rewards_known(nft))

    def _tokens_of(self, pool: Pool) -> tuple[Token, Token] | None:
        token0, token1 = self._tokens.get(pool.token0), self._tokens.get(pool.token1)
        return None if token0 is None or token1 is None else (token0, token1)

    def _pool(self, address: Address, token0: Address, token1: Address, fee_pips: int) -> Pool:
        pool = self._pools.get(address)
        if pool is None:
            low, high = sorted((token0, token1))
            pool = self._pools[address] = Pool(address=address, token0=low, token1=high, fee_pips=fee_pips)
            self._load_pools[address] = None
            self._filter = None
            for token in (low, high):
                self._pools_of.setdefault(token, set()).add(address)
        return pool

    def _track_growth(self, pool: Pool) -> None:
        if pool.keeps_growth:
            return
        pool.keeps_growth = True
        self._load_pools[pool.address] = None
        for token in (pool.token0, pool.token1):
            if token not in self._tokens:
                self._load_tokens[token] = None
            self._watch_price(token)

    def _watch_price(self, token: Address) -> None:
        """Watch the pools that can price a token: against dollars, and against hops that dollars price."""
        if token in self._stablecoins:
            return
        self._requote.add(token)
        others = self._stablecoins
        if token not in self._hops:
            others += self._hops
            for hop in self._hops:
                self._watch_price(hop)
        for other in others:
            for fee in FEE_TIERS:
                address = create2_pool(self._factory, self._init_code_hash, token, other, fee)
                self._quote_pools.add(address)
                self._pool(address, token, other, fee)
            if other not in self._tokens:
                self._load_tokens[other] = None

    def _forget_price(self, token: Address) -> None:
        """Stop watching the pools that price a token once no tracked pool holds it. Hops stay, once watched."""
        if token in self._stablecoins or token in self._hops or self._is_held(token):
            return
        self._requote.add(token)
        for address in self._pools_of[token] & self._quote_pools:
            self._quote_pools.discard(address)
            self._drop_pool_if_unused(self._pools[address])

    def _is_held(self, token: Address) -> bool:
        """Return whether a tracked pool holds a token, others are priced through it, or rewards are paid in it."""
        pools = self._pools_of.get(token, set())
        if token in self._hops:
            return bool(pools)
        if token in self._reward_tokens:
            return True
        return any(self._pools[address].keeps_growth for address in pools)

    def _quotes_of(self, token: Address) -> Iterator[QuotePool]:
        """Return the pools that price a token now."""
        for address in sorted(self._pools_of.get(token, set()) & self._quote_pools):
            pool = self._pools[address]
            if pool.is_read and pool.exists and pool.sqrt_price and self._priced_token(pool) == token:
                yield QuotePool(address, pool.token0, pool.token1, pool.sqrt_price, pool.liquidity)

    def _priced_token(self, pool: Pool) -> Address:
        """Return the token that a pool prices: the one that is no dollar, or no hop."""
        if pool.token0 in self._stablecoins:
            return pool.token1
        return pool.token1 if pool.token0 in self._hops and pool.token1 not in self._stablecoins else pool.token0

    def _range(self, pool: Pool, lower: Tick, upper: Tick) -> Range:
        rng = pool.ranges.get((lower, upper))
        if rng is None:
            rng = pool.ranges[lower, upper] = Range(pool, lower, upper, reads.core_key(self._manager, lower, upper))
            self._load_cores[pool.address, lower, upper] = None
            for tick in (lower, upper):
                pool.bounded.setdefault(tick, set()).add(rng)
                if tick not in pool.ticks:
                    pool.ticks[tick] = None
                    self._load_ticks[pool.address, tick] = None
        return rng

    def _drop(self, nft: Nft) -> None:
        """Stop tracking a position and whatever only it needed."""
        token_id, rng = nft.token_id, nft.range
        del self._nfts[token_id]
        if self._tells_turns:
            self._turned[token_id] = None
        else:
            self._turned.pop(token_id, None)
        rng.nfts.pop(token_id, None)
        self._owned.get(nft.owner, set()).discard(token_id)
        self._stale_ids.discard(token_id)
        self._load_history.discard(token_id)
        self._load_life.pop(token_id, None)
        self._unpaid.pop(token_id, None)
        self._sample_queue.pop(token_id, None)
        self._unsampled.discard(token_id)
        self._unseeded.pop(token_id, None)
        self._unlooked.pop(token_id, None)
        self._resized.discard(token_id)
        if self._staking is not None:
            self._staking.untrack(token_id)
            self._staked.pop(token_id, None)
            self._unrewarded.discard(token_id)
        if not rng.nfts:
            self._drop_range(rng)

    def _rewards_known(self, nft: Nft) -> bool:
        """Return whether what a staked position earned can be told, or will never be."""
        return self._staking is None or self._staking.is_known(nft.token_id)

    def _drop_range(self, rng: Range) -> None:
        pool, key = rng.pool, (rng.pool.address, rng.lower, rng.upper)
        del pool.ranges[key[1:]]
        self._stale_cores.discard(key)
        self._load_cores.pop(key, None)
        self._dirty_ranges.discard(rng)
        for tick in (rng.lower, rng.upper):
            others = pool.bounded[tick]
            others.discard(rng)
            if others:
                continue
            del pool.bounded[tick]
            pool.ticks.pop(tick, None)
            self._stale_ticks.discard((pool.address, tick))
            self._load_ticks.pop((pool.address, tick), None)
        self._drop_pool_if_unused(pool)

    def _drop_pool_if_unused(self, pool: Pool) -> None:
        if pool.ranges or pool.address in self._wanted_pools:
            return
        if pool.keeps_growth:
            pool.keeps_growth = pool.has_growth = pool.keeps_time = False
            pool.observed = None
            self._stale_times.discard(pool.address)
            for token in (pool.token0, pool.token1):
                self._forget_price(token)
        if pool.address in self._quote_pools or self._pools.pop(pool.address, None) is None:
            return
        for token in (pool.token0, pool.token1):
            self._pools_of[token].discard(pool.address)
        self._stale_pools.discard(pool.address)
        self._load_pools.pop(pool.address, None)
        self._told.pop(pool.address, None)
        self._dirty_pools.discard(pool.address)
        self._filter = None

    def _forget_hints(self) -> None:
        for address, lower, upper in self._hinted:
            pool = self._pools.get(address)
            rng = None if pool is None else pool.ranges.get((lower, upper))
            if rng is not None and not rng.nfts:
                self._drop_range(rng)
        self._hinted.clear()

    # --- marks ------------------------------------------------------------------------------------------

    def _walk(self, pool: Pool, low: Tick, high: Tick) -> None:
        span = pool.span
        pool.span = (low, high) if span is None else (min(span[0], low), max(span[1], high))
        self._stale_pools.add(pool.address)

    def _mark_tick(self, pool: Pool, tick: Tick) -> None:
        if pool.ticks.get(tick) is not None:
            self._stale_ticks.add((pool.address, tick))

    def _mark_core(self, key: RangeKey) -> None:
        rng = self._pools[key[0]].ranges.get(key[1:])
        if rng is not None and rng.core_read:
            self._stale_cores.add(key)

    def _urge(self, token_id: TokenId, owner: Address | None) -> None:
        self._load_ids[token_id] = None  # the owner is read, too: a later log may have moved it on
        self._urgent.add(token_id)
        watch = self._owners.get(owner) if owner is not None else None
        if watch is not None:
            watch.awaiting.add(token_id)

    def _rediscover(self, watch: OwnerWatch) -> None:
        watch.restart()
        self._undiscovered[watch.owner] = None

    def _mark_pool(self, pool: Pool) -> None:
        if pool.is_read:
            self._stale_pools.add(pool.address)
        for tick in pool.ticks:
            self._mark_tick(pool, tick)
        for lower, upper in pool.ranges:
            self._mark_core((pool.address, lower, upper))

    def _begin_principal(self, nft: Nft, *, known: bool) -> None:
        """Without anything owed there is no owed principal; otherwise only the NFT's own events can tell."""
        if known:
            nft.set_principal(0, 0)
        else:
            nft.set_principal(None, None)
            self._load_history.add(nft.token_id)
            self._history_touched.add(nft.token_id)
