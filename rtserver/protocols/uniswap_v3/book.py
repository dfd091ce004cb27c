"""The Uniswap v3 book: which logs stale what, which reads refresh it, and what changed after that.

A state machine without I/O; see protocols.base.Book for the contract. Everything is kept exact by one
rule: whatever a block, a gap or a reorganisation touched is read again at the new head, once.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from ...domain.chain import Log
from ...domain.diff import EncodedPatch, JsonObject
from ...domain.ids import Address, BlockHash, ChainId, SqrtPriceX96, Tick, TokenId
from ..addresses import checksum, create2_pool
from ..base import Evaluation, HistoryQuery, LogFilter, Plan, Prices, QuotePool
from ..tokens import decimals_call, decode_decimals, decode_symbol, symbol_call
from . import events as ev
from . import reads
from .discovery import OwnerWatch
from .evaluate import evaluate_pool_price, evaluate_range, pool_view, position_view
from .journal import Journal
from .state import TOUCHED, Nft, Pool, Range, RangeKey, Token

__all__ = ["FEE_TIERS", "UniswapV3Book"]

# Fee tiers, in hundredths of a basis point, whose pools may price a token against a dollar token.
FEE_TIERS: Final = (100, 500, 3000, 10000)
# One history query names at most this many token ids: providers bound the length of a topic list.
_HISTORY_IDS: Final = 200


class UniswapV3Book:
    """The positions of one Uniswap v3 deployment on one chain."""

    kind = "uniswap-v3"

    def __init__(
        self,
        *,
        chain_id: ChainId,
        factory: Address,
        position_manager: Address,
        init_code_hash: bytes,
        stablecoins: Sequence[Address] = (),
        kind: str = "uniswap-v3",
    ) -> None:
        self.kind = kind
        self._chain_id = chain_id
        self._factory = factory
        self._manager = position_manager
        self._init_code_hash = init_code_hash
        self._stablecoins = tuple(stablecoins)
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
        # Positions that a block brought: they belong into that block's frame.
        self._urgent: set[TokenId] = set()
        self._hinted: set[RangeKey] = set()
        # Read since the last evaluation.
        self._dirty_pools: set[Address] = set()
        self._dirty_ranges: set[Range] = set()
        self._removed: dict[TokenId, Address] = {}
        self._moved: dict[TokenId, tuple[Address, Address]] = {}
        self._filter: LogFilter | None = None

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
        return all(self._nft_ready(self._nfts[token_id]) for token_id in self._owned.get(owner, ()))

    def pool_ready(self, pool: Address) -> bool:
        """Return whether the pool is fully read (or known not to exist)."""
        if pool in self._not_pools:
            return True
        known = self._pools.get(pool)
        return known is not None and known.is_read and self._tokens_of(known) is not None

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

    def owner_of(self, token_id: TokenId) -> Address | None:
        """Return a tracked position's owner."""
        nft = self._nfts.get(token_id)
        return None if nft is None else nft.owner

    @property
    def tracked(self) -> dict[str, int]:
        """Return how much is tracked, for metrics."""
        return {"positions": len(self._nfts), "pools": len(self._pools), "owners": len(self._owners)}

    # --- logs -----------------------------------------------------------------------------------------

    def log_filter(self) -> LogFilter:
        """Return which logs the next block's query must hold."""
        if self._filter is None:
            pools = (address for address, pool in self._pools.items() if pool.exists)
            self._filter = LogFilter(
                addresses=frozenset((self._manager, self._factory, *pools)),
                topics=ev.POOL_TOPICS | ev.MANAGER_TOPICS | {ev.POOL_CREATED},
            )
        return self._filter

    def fold(self, block_hash: BlockHash, logs: Sequence[Log]) -> None:
        """Mark what a block's logs touched and remember it, so that the block can be undone."""
        record = self._journal.open(block_hash)
        self._forget_hints()
        minted: list[RangeKey] = []
        for log in logs:
            topic = log.topics[0]
            if log.address == self._manager:
                self._fold_manager(topic, log)
            elif log.address == self._factory:
                if topic == ev.POOL_CREATED:
                    self._fold_created(Address("0x" + log.data[64 + 24 : 128].lower()))
            else:
                pool = self._pools.get(log.address)
                if pool is None or not pool.is_read:
                    continue
                if topic == ev.SWAP:
                    tick = ev.word_int24(log.data, 4)
                    start = pool.tick if pool.walked is None else pool.walked
                    low, high = (start, tick) if start < tick else (tick, start)
                    if pool.span is not None:
                        # After a fork `start` is the old branch's tick: this block may have crossed all of it.
                        low, high = min(low, pool.span[0]), max(high, pool.span[1])
                    record.visit(pool.address, low, high)
                    self._walk(pool, low, high)
                    pool.walked = tick
                elif topic in (ev.MINT, ev.BURN, ev.COLLECT_POOL):
                    lower, upper = ev.topic_int24(log.topics[2]), ev.topic_int24(log.topics[3])
                    if topic != ev.COLLECT_POOL:
                        record.pools.setdefault(pool.address, None)
                        self._stale_pools.add(pool.address)
                        for tick in (lower, upper):
                            record.ticks.add((pool.address, tick))
                            self._mark_tick(pool, tick)
                    if ev.topic_address(log.topics[1]) == self._manager:
                        key = (pool.address, lower, upper)
                        record.cores.add(key)
                        self._mark_core(key)
                        if topic == ev.MINT:
                            minted.append(key)
                else:
                    record.pools.setdefault(pool.address, None)
                    self._stale_pools.add(pool.address)
        if self._urgent:
            # A position was just minted, perhaps here: read these ranges in the same call.
            for address, lower, upper in minted:
                pool = self._pools[address]
                if (lower, upper) not in pool.ranges:
                    self._track_growth(pool)
                    self._range(pool, lower, upper)
                    self._hinted.add((address, lower, upper))

    def _fold_manager(self, topic: str, log: Log) -> None:
        record = self._journal.current
        if topic == ev.TRANSFER:
            if len(log.topics) != 4:
                return
            token_id = TokenId(int(log.topics[3], 16))
            before, after = ev.topic_address(log.topics[1]), ev.topic_address(log.topics[2])
            for owner in (before, after):
                watch = self._owners.get(owner)
                if watch is not None:
                    record.owners.add(owner)
                    if not watch.discovered:
                        self._rediscover(watch)
            if token_id in self._nfts:
                self._stale_ids.add(token_id)
            elif after in self._owners or before in self._owners or token_id in self._wanted_ids:
                self._urge(token_id, after)
            else:
                return
            record.token_ids.add(token_id)
            return
        token_id = TokenId(int(log.topics[1], 16))
        nft = self._nfts.get(token_id)
        if nft is None:
            return
        record.token_ids.add(token_id)
        self._stale_ids.add(token_id)
        if topic == ev.INCREASE_LIQUIDITY:
            return
        record.principal_before.setdefault(token_id, (nft.principal0, nft.principal1))
        amount0, amount1 = ev.word(log.data, 1), ev.word(log.data, 2)
        nft.set_principal(*_tally(topic, nft.principal0, nft.principal1, amount0, amount1))
        self._history_touched.add(token_id)

    def _fold_created(self, pool_address: Address) -> None:
        """A pool that was looked for in vain, as a price source, may now exist."""
        pool = self._pools.get(pool_address)
        if pool is not None:
            self._journal.current.pools.setdefault(pool_address, None)
            self._stale_pools.add(pool_address)

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

    def unwind(self, block_hashes: Iterable[BlockHash]) -> None:
        """Mark what these blocks had touched, newest first: they left the chain."""
        for block_hash in block_hashes:
            record = self._journal.pop(block_hash)
            if record is None:
                continue
            for address, span in record.pools.items():
                pool = self._pools.get(address)
                if pool is None or not pool.is_read:
                    continue
                self._stale_pools.add(address)
                if span is not None:
                    self._walk(pool, *span)
            for address in record.whole_pools:
                pool = self._pools.get(address)
                if pool is not None:
                    self._mark_pool(pool)
            for address, tick in record.ticks:
                if (pool := self._pools.get(address)) is not None:
                    self._mark_tick(pool, tick)
            for key in record.cores:
                if key[0] in self._pools:
                    self._mark_core(key)
            for owner in record.owners:
                if (watch := self._owners.get(owner)) is not None and not watch.discovered:
                    self._rediscover(watch)
            for token_id, (principal0, principal1) in record.principal_before.items():
                if (nft := self._nfts.get(token_id)) is None:
                    continue
                if principal0 is None or principal1 is None:
                    self._begin_principal(nft, known=False)
                else:
                    nft.set_principal(principal0, principal1)
            for token_id in record.token_ids:
                if token_id in self._nfts:
                    self._stale_ids.add(token_id)
                else:
                    self._urge(token_id, None)
            for token_id in record.first_read_ids:
                if (nft := self._nfts.get(token_id)) is not None:
                    self._stale_ids.add(token_id)
                    self._begin_principal(nft, known=False)
            for owner in record.first_read_owners:
                if (watch := self._owners.get(owner)) is not None:
                    self._rediscover(watch)

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

    def forget(self, block_hash: BlockHash) -> None:
        """Drop the memory of a block that is too deep to be undone."""
        self._journal.forget(block_hash)

    def mark_all(self) -> None:
        """Mark everything: nothing that was read so far can be trusted."""
        for pool in self._pools.values():
            self._mark_pool(pool)
            pool.span = None
            pool.walked = None
        for nft in self._nfts.values():
            self._stale_ids.add(nft.token_id)
            self._begin_principal(nft, known=False)
        for token_id in self._wanted_ids:
            if token_id not in self._nfts:
                self._urge(token_id, None)
        for watch in self._owners.values():
            self._rediscover(watch)

    # --- reads ----------------------------------------------------------------------------------------

    def is_settled(self) -> bool:
        """Return whether everything that a block touched has been read."""
        if self._stale_pools or self._stale_ticks or self._stale_cores or self._stale_ids:
            return False
        if any(self._owners[owner].urgent for owner in self._undiscovered):
            return False
        # What history says of fees may come a frame later; until then they are shown as unknown.
        self._urgent = {token_id for token_id in self._urgent if not self._is_read(token_id)}
        return not self._urgent

    def _is_read(self, token_id: TokenId) -> bool:
        nft = self._nfts.get(token_id)
        if nft is None:
            return token_id not in self._load_ids
        return nft.range.is_ready() and self._tokens_of(nft.range.pool) is not None

    def plan(self, load_budget: int) -> Plan:
        """Return the reads for all that is stale, and at most `load_budget` reads for what was never read."""
        plan = Plan()
        for address in self._stale_pools:
            pool = self._pools[address]
            if pool.span is not None:
                low, high = pool.span
                for tick, outside in pool.ticks.items():
                    if low < tick <= high and outside is not None:
                        self._stale_ticks.add((address, tick))
            self._plan_pool(plan, pool)
        for address, tick in self._stale_ticks:
            plan.add(("tick", address, tick), reads.tick_call(address, tick))
        for key in self._stale_cores:
            self._plan_core(plan, key)
        for token_id in self._stale_ids:
            self._plan_id(plan, token_id, None)
        self._plan_loads(plan, len(plan.calls) + load_budget)
        return plan

    def _plan_loads(self, plan: Plan, limit: int) -> None:
        for token in self._load_tokens:
            if len(plan.calls) >= limit:
                return
            plan.add(("symbol", token), symbol_call(token))
            plan.add(("decimals", token), decimals_call(token))
        for address in self._load_identities:
            if len(plan.calls) >= limit:
                return
            for name, selector in (("token0", reads.TOKEN0), ("token1", reads.TOKEN1), ("fee", reads.FEE)):
                plan.add((name, address), (address, selector))
        for address in self._load_pools:
            if len(plan.calls) >= limit:
                return
            self._plan_pool(plan, self._pools[address])
        for address, tick in self._load_ticks:
            if len(plan.calls) >= limit:
                return
            plan.add(("tick", address, tick), reads.tick_call(address, tick))
        for key in self._load_cores:
            if len(plan.calls) >= limit:
                return
            self._plan_core(plan, key)
        for token_id in [*(self._urgent & self._load_ids.keys()), *(self._load_ids.keys() - self._urgent)]:
            if len(plan.calls) >= limit:
                return
            self._plan_id(plan, token_id, self._load_ids[token_id])
        for owner in self._undiscovered:
            watch = self._owners[owner]
            if len(plan.calls) >= limit:
                return
            for index, call in watch.calls(self._manager, limit - len(plan.calls)):
                plan.add(("enumerate", owner, index), call)

    def _plan_pool(self, plan: Plan, pool: Pool) -> None:
        plan.add(("slot0", pool.address), (pool.address, reads.SLOT0))
        plan.add(("liquidity", pool.address), (pool.address, reads.LIQUIDITY))
        if pool.keeps_growth:
            plan.add(("growth0", pool.address), (pool.address, reads.GROWTH0))
            plan.add(("growth1", pool.address), (pool.address, reads.GROWTH1))

    def _plan_core(self, plan: Plan, key: RangeKey) -> None:
        address, lower, upper = key
        core_key = self._pools[address].ranges[lower, upper].core_key
        plan.add(("core", key), reads.core_call(address, core_key))

    def _plan_id(self, plan: Plan, token_id: TokenId, owner: Address | None) -> None:
        # The owner comes first, so that the position's answer completes the pair.
        if owner is None:
            plan.add(("owner", token_id), reads.owner_call(self._manager, token_id))
        plan.add(("nft", token_id, owner), reads.nft_call(self._manager, token_id))

    def absorb(self, plan: Plan, results: Sequence[bytes | None]) -> None:
        """Take the answers to a plan; None stands for a reverted call."""
        halves: dict[tuple[str, object], bytes | None] = {}
        enumerated: set[Address] = set()
        for key, result in zip(plan.keys, results, strict=True):
            match key:
                case ("slot0", address):
                    halves["slot0", address] = result
                case ("liquidity", address):
                    if (pool := self._pools.get(address)) is not None:
                        self._absorb_pool(pool, halves["slot0", address], result)
                case ("growth0", address):
                    if (pool := self._pools.get(address)) is not None:
                        pool.growth0 = reads.decode_uint(result) or 0
                case ("growth1", address):
                    if (pool := self._pools.get(address)) is not None:
                        pool.growth1 = reads.decode_uint(result) or 0
                        if not pool.has_growth:
                            pool.has_growth = True
                            self._load_pools.pop(address, None)
                case ("tick", address, tick):
                    self._absorb_tick(address, tick, reads.decode_tick(result))
                case ("core", range_key):
                    self._absorb_core(range_key, reads.decode_core(result))
                case ("owner", token_id):
                    halves["owner", token_id] = result
                case ("nft", token_id, owner):
                    if owner is None:
                        owner = reads.decode_address(halves["owner", token_id])
                    self._absorb_nft(token_id, owner, reads.decode_nft(result))
                case ("symbol", token):
                    halves["symbol", token] = result
                case ("decimals", token):
                    self._absorb_token(token, halves["symbol", token], result)
                case ("token0" | "token1" as name, address):
                    halves[name, address] = result
                case ("fee", address):
                    self._absorb_identity(address, halves["token0", address], halves["token1", address], result)
                case ("enumerate", owner, index):
                    if (watch := self._owners.get(owner)) is not None:
                        watch.take(index, result)
                        enumerated.add(owner)
        for owner in enumerated:
            self._settle_owner(self._owners[owner])

    def _absorb_pool(self, pool: Pool, slot0_result: bytes | None, liquidity_result: bytes | None) -> None:
        self._stale_pools.discard(pool.address)
        slot0 = reads.decode_slot0(slot0_result)
        exists = slot0 is not None
        if exists != pool.exists:
            pool.exists = exists
            self._filter = None
            # Its logs were not asked for so far: whatever undoes this block has to read it again.
            self._journal.current.whole_pools.add(pool.address)
        pool.sqrt_price, pool.tick = slot0 or (SqrtPriceX96(0), Tick(0))
        pool.liquidity = reads.decode_uint(liquidity_result) or 0
        pool.walked = pool.span = None
        if not pool.is_read:
            pool.is_read = True
            self._journal.current.whole_pools.add(pool.address)
        if not pool.keeps_growth or pool.has_growth:
            self._load_pools.pop(pool.address, None)
        self._dirty_pools.add(pool.address)

    def _absorb_tick(self, address: Address, tick: Tick, outside: tuple[int, int]) -> None:
        self._stale_ticks.discard((address, tick))
        self._load_ticks.pop((address, tick), None)
        pool = self._pools.get(address)
        if pool is None or tick not in pool.ticks:
            return
        before = pool.ticks[tick]
        if before is None:
            self._journal.current.ticks.add((address, tick))
        if before != outside:
            pool.ticks[tick] = outside
            if address not in self._dirty_pools:
                self._dirty_ranges.update(rng for (lower, upper), rng in pool.ranges.items() if tick in (lower, upper))

    def _absorb_core(self, key: RangeKey, core: reads.CorePosition) -> None:
        self._stale_cores.discard(key)
        self._load_cores.pop(key, None)
        pool = self._pools.get(key[0])
        rng = None if pool is None else pool.ranges.get(key[1:])
        if rng is None:
            return
        rng.core_liquidity, rng.core_last0, rng.core_last1 = core.liquidity, core.last0, core.last1
        rng.core_owed0, rng.core_owed1 = core.owed0, core.owed1
        if not rng.core_read:
            rng.core_read = True
            self._journal.current.cores.add(key)
        self._dirty_ranges.add(rng)

    def _absorb_nft(self, token_id: TokenId, owner: Address | None, read: reads.NftPosition | None) -> None:
        self._stale_ids.discard(token_id)
        self._load_ids.pop(token_id, None)
        for watch in self._owners.values() if owner is None else filter(None, (self._owners.get(owner),)):
            watch.awaiting.discard(token_id)
        nft = self._nfts.get(token_id)
        if read is None or owner is None:
            self._journal.current.token_ids.add(token_id)
            if nft is not None:
                self._removed[token_id] = nft.owner
                self._drop(nft)
            return
        if nft is not None and nft.owner != owner:
            self._moved[token_id] = (
                self._moved[token_id][0] if token_id in self._moved else nft.owner,
                owner,
            )
        if nft is not None and not _is_range_of(nft.range, read):
            # Ids are given in order of minting: on another branch the same id is another position.
            self._drop(nft)
            nft = None
            self._urgent.add(token_id)
        if nft is not None and nft.owner != owner:
            self._owned[nft.owner].discard(token_id)
            if token_id not in self._wanted_ids and owner not in self._owners:
                nft.owner = owner
                self._drop(nft)
                return
            self._owned.setdefault(owner, set()).add(token_id)
            nft.owner = owner
            nft.news |= TOUCHED
        if nft is None:
            if token_id not in self._wanted_ids and owner not in self._owners:
                return
            nft = self._add(token_id, owner, read)
        if nft.liquidity != read.liquidity:
            nft.news |= TOUCHED
        nft.liquidity, nft.last0, nft.last1 = read.liquidity, read.last0, read.last1
        nft.owed0, nft.owed1 = read.owed0, read.owed1
        if not (read.owed0 or read.owed1):
            if nft.has_principal:
                nft.set_principal(0, 0)
            self._load_history.discard(token_id)
        self._dirty_ranges.add(nft.range)

    def _add(self, token_id: TokenId, owner: Address, read: reads.NftPosition) -> Nft:
        address = create2_pool(self._factory, self._init_code_hash, read.token0, read.token1, read.fee_pips)
        pool = self._pool(address, read.token0, read.token1, read.fee_pips)
        self._track_growth(pool)
        rng = self._range(pool, read.lower, read.upper)
        self._hinted.discard((address, read.lower, read.upper))
        nft = Nft(
            token_id=token_id, owner=owner, range=rng, liquidity=read.liquidity,
            last0=read.last0, last1=read.last1, owed0=read.owed0, owed1=read.owed1,
        )  # fmt: skip
        self._nfts[token_id] = rng.nfts[token_id] = nft
        self._owned.setdefault(owner, set()).add(token_id)
        gone_from = self._removed.pop(token_id, owner)
        if gone_from != owner:
            self._moved.setdefault(token_id, (gone_from, owner))
        self._journal.current.first_read_ids.add(token_id)
        self._begin_principal(nft, known=not (read.owed0 or read.owed1))
        return nft

    def _begin_principal(self, nft: Nft, *, known: bool) -> None:
        """Without anything owed there is no owed principal; otherwise only the NFT's own events can tell."""
        if known:
            nft.set_principal(0, 0)
        else:
            nft.set_principal(None, None)
            self._load_history.add(nft.token_id)
            self._history_touched.add(nft.token_id)

    def _absorb_token(self, address: Address, symbol: bytes | None, decimals: bytes | None) -> None:
        self._load_tokens.pop(address, None)
        shown, places = decode_symbol(address, symbol), decode_decimals(decimals)
        view: JsonObject = {"address": checksum(address), "symbol": shown, "decimals": places}
        self._tokens[address] = Token(address=address, symbol=shown, decimals=places, view=view)
        for pool_address in self._pools_of.get(address, ()):
            self._dirty_pools.add(pool_address)

    def _absorb_identity(self, address: Address, *results: bytes | None) -> None:
        self._load_identities.pop(address, None)
        token0, token1 = (reads.decode_address(result) for result in results[:2])
        fee = reads.decode_uint(results[2])
        if (
            token0 is None or token1 is None or fee is None or fee >= 1 << 24
            or create2_pool(self._factory, self._init_code_hash, token0, token1, fee) != address
        ):  # fmt: skip
            self._not_pools.add(address)
            return
        self._track_growth(self._pool(address, token0, token1, fee))

    def _settle_owner(self, watch: OwnerWatch) -> None:
        ids = watch.settle()
        if ids is None:
            return
        del self._undiscovered[watch.owner]
        self._journal.current.first_read_owners.add(watch.owner)
        for token_id in ids:
            if token_id not in self._nfts:
                self._load_ids.setdefault(token_id, watch.owner)
                watch.awaiting.add(token_id)
                if watch.urgent:
                    self._urgent.add(token_id)
        watch.urgent = False
        self._stale_ids.update(self._owned.get(watch.owner, set()) - set(ids))

    def history_query(self) -> HistoryQuery | None:
        """Return past logs that are wanted, or None."""
        ids = tuple(sorted(self._load_history)[:_HISTORY_IDS])
        if not ids:
            return None
        self._history_touched.difference_update(ids)
        topics = ((ev.DECREASE_LIQUIDITY, ev.COLLECT_NFT), tuple(f"0x{token_id:064x}" for token_id in ids))
        return HistoryQuery(self._manager, topics, ids)

    def absorb_history(self, query: HistoryQuery, logs: Sequence[Log] | None) -> None:
        """Take the answer to a history query; None where it could not be read: fees stay unknown."""
        answered = [token_id for token_id in query.token_ids if token_id not in self._history_touched]
        self._load_history.difference_update(answered)
        if logs is None:
            return
        sums: dict[TokenId, tuple[int | None, int | None]] = dict.fromkeys(answered, (0, 0))
        for log in sorted(logs, key=lambda log: (log.block_number, log.index)):
            token_id = TokenId(int(log.topics[1], 16))
            if token_id in sums:
                amounts = ev.word(log.data, 1), ev.word(log.data, 2)
                sums[token_id] = _tally(log.topics[0], *sums[token_id], *amounts)
        for token_id, (principal0, principal1) in sums.items():
            nft = self._nfts.get(token_id)
            if nft is not None:
                nft.set_principal(principal0, principal1)
                self._dirty_ranges.add(nft.range)

    # --- tracking -------------------------------------------------------------------------------------

    def _tokens_of(self, pool: Pool) -> tuple[Token, Token] | None:
        token0, token1 = self._tokens.get(pool.token0), self._tokens.get(pool.token1)
        return None if token0 is None or token1 is None else (token0, token1)

    def _nft_ready(self, nft: Nft) -> bool:
        return nft.is_shown and nft.range.is_ready() and nft.token_id not in self._load_history

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
        """Watch the pools that can price a token in dollars."""
        if token in self._stablecoins:
            return
        for stable in self._stablecoins:
            for fee in FEE_TIERS:
                address = create2_pool(self._factory, self._init_code_hash, token, stable, fee)
                self._quote_pools.add(address)
                self._pool(address, token, stable, fee)
            if stable not in self._tokens:
                self._load_tokens[stable] = None

    def _forget_price(self, token: Address) -> None:
        """Stop watching a token's dollar pools once no tracked pool holds it."""
        pools = self._pools_of[token]
        if token in self._stablecoins or any(self._pools[address].keeps_growth for address in pools):
            return
        for address in pools & self._quote_pools:
            self._quote_pools.discard(address)
            self._drop_pool_if_unused(self._pools[address])

    def _range(self, pool: Pool, lower: Tick, upper: Tick) -> Range:
        rng = pool.ranges.get((lower, upper))
        if rng is None:
            rng = pool.ranges[lower, upper] = Range(pool, lower, upper, reads.core_key(self._manager, lower, upper))
            self._load_cores[pool.address, lower, upper] = None
            for tick in (lower, upper):
                if tick not in pool.ticks:
                    pool.ticks[tick] = None
                    self._load_ticks[pool.address, tick] = None
        return rng

    def _drop(self, nft: Nft) -> None:
        """Stop tracking a position and whatever only it needed."""
        token_id, rng = nft.token_id, nft.range
        del self._nfts[token_id]
        rng.nfts.pop(token_id, None)
        self._owned.get(nft.owner, set()).discard(token_id)
        self._stale_ids.discard(token_id)
        self._load_history.discard(token_id)
        if not rng.nfts:
            self._drop_range(rng)

    def _drop_range(self, rng: Range) -> None:
        pool, key = rng.pool, (rng.pool.address, rng.lower, rng.upper)
        del pool.ranges[key[1:]]
        self._stale_cores.discard(key)
        self._load_cores.pop(key, None)
        self._dirty_ranges.discard(rng)
        used = {tick for ticks in pool.ranges for tick in ticks}
        for tick in {rng.lower, rng.upper} - used:
            pool.ticks.pop(tick, None)
            self._stale_ticks.discard((pool.address, tick))
            self._load_ticks.pop((pool.address, tick), None)
        self._drop_pool_if_unused(pool)

    def _drop_pool_if_unused(self, pool: Pool) -> None:
        if pool.ranges or pool.address in self._wanted_pools:
            return
        if pool.keeps_growth:
            pool.keeps_growth = pool.has_growth = False
            for token in (pool.token0, pool.token1):
                self._forget_price(token)
        if pool.address in self._quote_pools or self._pools.pop(pool.address, None) is None:
            return
        for token in (pool.token0, pool.token1):
            self._pools_of[token].discard(pool.address)
        self._stale_pools.discard(pool.address)
        self._load_pools.pop(pool.address, None)
        self._dirty_pools.discard(pool.address)
        self._filter = None

    def _forget_hints(self) -> None:
        for address, lower, upper in self._hinted:
            pool = self._pools.get(address)
            rng = None if pool is None else pool.ranges.get((lower, upper))
            if rng is not None and not rng.nfts:
                self._drop_range(rng)
        self._hinted.clear()

    # --- evaluation -----------------------------------------------------------------------------------

    def quotes(self) -> dict[Address, list[QuotePool]]:
        """Return, for each token with a dollar pool that was read again, all its dollar pools."""
        tokens = set()
        for address in self._dirty_pools & self._quote_pools:
            pool = self._pools[address]
            tokens.add(pool.token1 if pool.token0 in self._stablecoins else pool.token0)
        return {token: [*self._quotes_of(token)] for token in tokens}

    def _quotes_of(self, token: Address) -> Iterable[QuotePool]:
        for address in sorted(self._pools_of[token] & self._quote_pools):
            pool = self._pools[address]
            if pool.is_read and pool.exists and pool.sqrt_price:
                yield QuotePool(address, pool.token0, pool.token1, pool.sqrt_price, pool.liquidity)

    def decimals(self, token: Address) -> int | None:
        """Return a token's decimals, None while unknown or unusable."""
        known = self._tokens.get(token)
        return None if known is None else known.decimals

    def evaluate(self, prices: Prices, repriced: frozenset[Address]) -> Evaluation:
        """Return what changed for everything that was touched, and for holders of the repriced tokens."""
        result = Evaluation(removed=self._removed, moved=self._moved)
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
            move = evaluate_pool_price(pool, *tokens)
            if move is not None:
                moves[pool] = move
            work[pool] = pool.ranges.values()
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
            move, ticks = moves.get(pool), pool.ticks
            cents0, cents1 = prices.get(pool.token0), prices.get(pool.token1)
            for rng in mine:
                if rng.core_read and ticks[rng.lower] is not None and ticks[rng.upper] is not None:
                    evaluate_range(rng, move, cents0, cents1, whole, result.patches)
                else:
                    self._dirty_ranges.add(rng)
        for nft in whole:
            shown = self._view(nft)
            assert shown is not None
            result.sets[nft.token_id] = shown
        return result


def _is_range_of(rng: Range, read: reads.NftPosition) -> bool:
    pool = rng.pool
    return (pool.token0, pool.token1, pool.fee_pips, rng.lower, rng.upper) == (
        read.token0, read.token1, read.fee_pips, read.lower, read.upper,
    )  # fmt: skip


def _tally(
    topic: str, principal0: int | None, principal1: int | None, amount0: int, amount1: int
) -> tuple[int | None, int | None]:
    """Return owed principal after one more event: a decrease adds, a collect takes principal first."""
    if principal0 is None or principal1 is None:
        return None, None
    if topic == ev.DECREASE_LIQUIDITY:
        return principal0 + amount0, principal1 + amount1
    return max(principal0 - amount0, 0), max(principal1 - amount1, 0)
