"""Which reads make everything fresh, and what their answers mean.

Plans name calls, `absorb` takes what they returned; nothing here knows how or when they are sent.
"""

from collections.abc import Sequence
from typing import Final

from ...domain.diff import JsonObject
from ...domain.errors import Contradiction
from ...domain.ids import Address, SqrtPriceX96, Tick, TokenId
from ..addresses import checksum, create2_pool
from ..base import Plan
from ..tokens import decimals_call, decode_decimals, decode_symbol, symbol_call, token_flags
from . import reads
from .discovery import OwnerWatch
from .living import Living
from .state import TOUCHED, Nft, Pool, Range, RangeKey, Token

__all__ = ["Reading"]

# The shell asks again four times a second: two seconds in which a node may come to itself.
_MAX_CONTRADICTIONS: Final = 8


class Reading(Living):
    """Calls out, answers in."""

    def is_settled(self) -> bool:
        """Return whether everything that a block touched has been read."""
        if self._stale_pools or self._stale_ticks or self._stale_cores or self._stale_ids:
            return False
        if not self._staking_settled():
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
        self._plan_staking(plan)
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
        if self._staking is not None:
            self._staking.plan_loads(plan, limit)

    def _plan_pool(self, plan: Plan, pool: Pool) -> None:
        plan.add(("slot0", pool.address), (pool.address, reads.SLOT0))
        plan.add(("liquidity", pool.address), (pool.address, reads.LIQUIDITY))
        if pool.keeps_growth:
            plan.add(("growth0", pool.address), (pool.address, reads.GROWTH0))
            plan.add(("growth1", pool.address), (pool.address, reads.GROWTH1))
        if pool.keeps_time:
            self._plan_times(plan, pool)

    def _plan_core(self, plan: Plan, key: RangeKey) -> None:
        address, lower, upper = key
        core_key = self._pools[address].ranges[lower, upper].core_key
        plan.add(("core", key), reads.core_call(address, core_key))

    def _plan_id(self, plan: Plan, token_id: TokenId, owner: Address | None) -> None:
        # The owner comes first, so that the position's answer completes the pair.
        if owner is None:
            plan.add(("owner", token_id), reads.owner_call(self._manager, token_id))
        if self._staking is not None and (owner is None or owner in self._holders):
            plan.add(("deposit", token_id), self._staking.deposit_call(token_id))
        plan.add(("nft", token_id, owner), reads.nft_call(self._manager, token_id))

    def absorb(self, plan: Plan, results: Sequence[bytes | None]) -> None:
        """Take the answers to a plan; None stands for a reverted call.

        Raises:
            Contradiction: An answer disagrees with a log. Nothing was taken: the same plan is to be asked again.
        """
        if self._told:
            self._compare_with_logs(plan, results)
        halves: dict[tuple[str, object], bytes | None] = {}
        enumerated: set[Address] = set()
        for key, result in zip(plan.keys, results, strict=True):
            match key:
                case ("slot0", address):
                    halves["slot0", address] = result
                case ("liquidity", address):
                    if (pool := self._pools.get(address)) is not None:
                        self._absorb_pool(pool, halves["slot0", address], result)
                        self._expect_time(pool, halves["slot0", address])
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
                case ("owner" | "deposit" as name, token_id):
                    halves[name, token_id] = result
                case ("nft", token_id, owner):
                    if owner is None:
                        owner = reads.decode_address(halves["owner", token_id])
                    owner, stakes = self._held_for(owner, halves.get(("deposit", token_id)))
                    self._absorb_nft(token_id, owner, reads.decode_nft(result))
                    self._absorb_stakes(token_id, stakes)
                case ("symbol", token):
                    halves["symbol", token] = result
                case ("decimals", token):
                    self._absorb_token(token, halves["symbol", token], result)
                case ("token0" | "token1" as name, address):
                    halves[name, address] = result
                case ("fee", address):
                    self._absorb_identity(address, halves["token0", address], halves["token1", address], result)
                case ("observation", address, index):
                    self._absorb_time(address, index, reads.decode_observation(result))
                case ("staking", cell):
                    assert self._staking is not None
                    self._staking.absorb(cell, result)
                case ("enumerate", owner, index):
                    if (watch := self._owners.get(owner)) is not None:
                        watch.take(index, result)
                        enumerated.add(owner)
        for owner in enumerated:
            # Half an enumeration is of this block, too: a fork has to begin it again.
            self._journal.current.first_read_owners.add(owner)
            self._settle_owner(self._owners[owner])

    def _compare_with_logs(self, plan: Plan, results: Sequence[bytes | None]) -> None:
        """Refuse answers that are of another block: the last swap left a pool's price, and its log tells it.

        Nodes do that. anvil answers from the block that it is mining, a balancer from the node beside. A node that
        sticks to it is believed in the end: its answer is then what this chain says.
        """
        for key, result in zip(plan.keys, results, strict=True):
            if key[0] != "slot0" or (told := self._told.get(key[1])) is None:
                continue
            slot0 = reads.decode_slot0(result)
            if slot0 is not None and slot0[0] == told:
                continue
            if self._contradictions < _MAX_CONTRADICTIONS:
                self._contradictions += 1
                read = None if slot0 is None else slot0[0]
                raise Contradiction(f"pool {key[1]} has sqrtPriceX96 {read}, but its last swap left {told}")
        self._contradictions = 0

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
        self._told.pop(pool.address, None)
        if not pool.is_read:
            pool.is_read = True
            self._journal.current.whole_pools.add(pool.address)
        if not pool.keeps_growth or pool.has_growth:
            self._load_pools.pop(pool.address, None)
        self._dirty_pools.add(pool.address)

    def _absorb_tick(self, address: Address, tick: Tick, outside: tuple[int, int, int]) -> None:
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
                self._dirty_ranges.update(pool.bounded[tick])

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
            if not nft.is_shown:
                self._urgent.add(token_id)
        if nft is None:
            if token_id not in self._wanted_ids and owner not in self._owners:
                if self._staking is not None:
                    # It was deposited for someone here once, and would be again if this block left the chain.
                    self._journal.current.token_ids.add(token_id)
                return
            nft = self._add(token_id, owner, read)
        if nft.liquidity != read.liquidity:
            nft.news |= TOUCHED
            self._resized.add(token_id)
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
        self._start_life(nft)
        self._sample_queue[token_id] = None
        self._resized.add(token_id)
        return nft

    def _absorb_token(self, address: Address, symbol: bytes | None, decimals: bytes | None) -> None:
        self._load_tokens.pop(address, None)
        shown, places = decode_symbol(address, symbol), decode_decimals(decimals)
        view: JsonObject = {
            "address": checksum(address),
            "symbol": shown,
            "decimals": places,
            "flags": [*token_flags(symbol, decimals)],
        }
        self._tokens[address] = Token(address=address, symbol=shown, decimals=places, view=view)
        if address not in self._stablecoins:
            self._requote.add(address)
        for pool_address in self._pools_of.get(address, ()):
            self._dirty_pools.add(pool_address)

    def _absorb_identity(self, address: Address, *results: bytes | None) -> None:
        self._load_identities.pop(address, None)
        if address not in self._wanted_pools:
            return
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
        for token_id in ids:
            if token_id not in self._nfts:
                self._load_ids.setdefault(token_id, watch.owner)
                watch.awaiting.add(token_id)
                if watch.urgent:
                    self._urgent.add(token_id)
        watch.urgent = False
        self._stale_ids.update(self._owned.get(watch.owner, set()) - set(ids))


def _is_range_of(rng: Range, read: reads.NftPosition) -> bool:
    pool = rng.pool
    return (pool.token0, pool.token1, pool.fee_pips, rng.lower, rng.upper) == (
        read.token0, read.token1, read.fee_pips, read.lower, read.upper,
    )  # fmt: skip
