"""What logs touch, block by block, and how blocks that left the chain are undone: by marking the same again.

Decides nothing about values; whatever is marked is read again at the new head.
"""

from collections.abc import Iterable, Sequence

from ...domain.chain import Log
from ...domain.ids import Address, BlockHash, SqrtPriceX96, TokenId
from ..addresses import ZERO_ADDRESS
from ..base import LogFilter
from . import events as ev
from .living import Living, Payment
from .state import RangeKey

__all__ = ["Folding", "tally"]


class Folding(Living):
    """Logs in, marks out."""

    def log_filter(self) -> LogFilter:
        """Return which logs the next block's query must hold."""
        if self._filter is None:
            pools = (address for address, pool in self._pools.items() if pool.exists)
            self._filter = LogFilter(
                addresses=frozenset((self._manager, self._factory, *pools, *self._holders)),
                topics=ev.POOL_TOPICS | ev.MANAGER_TOPICS | {ev.POOL_CREATED} | self._staking_topics,
            )
        return self._filter

    def fold(self, block_hash: BlockHash, logs: Sequence[Log]) -> None:
        """Mark what a block's logs touched and remember it, so that the block can be undone."""
        # All of them before any is taken: a block that is folded by half would be folded twice.
        for log in logs:
            ev.check_shape(log.topics, log.data)
        self._open_staking(block_hash, logs)
        record = self._journal.open(block_hash)
        self._forget_hints()
        minted: list[RangeKey] = []
        payments: dict[RangeKey, Payment] = {}
        for log in logs:
            topic = log.topics[0]
            if log.address == self._manager:
                self._fold_manager(topic, log, payments)
            elif log.address == self._factory:
                if topic == ev.POOL_CREATED:
                    self._fold_created(Address("0x" + log.data[64 + 24 : 128].lower()))
            elif log.address in self._holders:
                self._fold_staking(log)
            else:
                pool = self._pools.get(log.address)
                if pool is None:
                    continue
                if topic == ev.COLLECT_POOL and ev.topic_address(log.topics[1]) == self._manager:
                    key = (pool.address, ev.topic_int24(log.topics[2]), ev.topic_int24(log.topics[3]))
                    payments[key] = log.tx_hash, ev.word(log.data, 1), ev.word(log.data, 2)
                if not pool.is_read:
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
                    self._told[pool.address] = SqrtPriceX96(ev.word(log.data, 2))
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

    def _fold_manager(self, topic: str, log: Log, payments: dict[RangeKey, Payment]) -> None:
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
                if before == ZERO_ADDRESS:
                    self._be_born(token_id)
            else:
                return
            record.token_ids.add(token_id)
            return
        token_id = TokenId(int(log.topics[1], 16))
        nft = self._nfts.get(token_id)
        if nft is None:
            if token_id in self._born:
                self._grow(token_id, log)
            return
        record.token_ids.add(token_id)
        self._stale_ids.add(token_id)
        self._live(nft, log, payments)
        if topic == ev.INCREASE_LIQUIDITY:
            return
        record.principal_before.setdefault(token_id, (nft.principal0, nft.principal1))
        amount0, amount1 = ev.word(log.data, 1), ev.word(log.data, 2)
        nft.set_principal(*tally(topic, nft.principal0, nft.principal1, amount0, amount1))
        self._history_touched.add(token_id)

    def _fold_created(self, pool_address: Address) -> None:
        """A pool that was looked for in vain, as a price source, may now exist."""
        pool = self._pools.get(pool_address)
        if pool is not None:
            self._journal.current.pools.setdefault(pool_address, None)
            self._stale_pools.add(pool_address)

    def unwind(self, block_hashes: Iterable[BlockHash]) -> None:
        """Mark what these blocks had touched, newest first: they left the chain."""
        block_hashes = list(block_hashes)
        self._turn()
        self._unsee(block_hashes)
        if self._staking is not None:
            self._staking.unwind(block_hashes)
        for block_hash in block_hashes:
            record = self._journal.pop(block_hash)
            if record is None:
                continue
            for address, span in record.pools.items():
                pool = self._pools.get(address)
                if pool is None or not pool.is_read:
                    continue
                self._stale_pools.add(address)
                self._told.pop(address, None)
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
            if record.evaluated_at is not None:
                self._unsample(record.sampled, record.evaluated_at)
            for token_id in record.token_ids:
                if (nft := self._nfts.get(token_id)) is not None:
                    self._stale_ids.add(token_id)
                    if nft.life is not None:
                        nft.life.drop((block_hash,))
                else:
                    self._urge(token_id, None)
            for token_id in record.first_read_ids:
                if (nft := self._nfts.get(token_id)) is not None:
                    self._stale_ids.add(token_id)
                    self._begin_principal(nft, known=False)
                    self._begin_life(nft)
            for owner in record.first_read_owners:
                if (watch := self._owners.get(owner)) is not None:
                    self._rediscover(watch)

    def forget(self, block_hash: BlockHash) -> None:
        """Drop the memory of a block that is too deep to be undone."""
        self._journal.forget(block_hash)
        if self._staking is not None:
            self._staking.forget(block_hash)

    def mark_all(self) -> None:
        """Mark everything: nothing that was read so far can be trusted."""
        self._told.clear()
        self._turn()
        self._seen_in.clear()
        if self._staking is not None:
            self._staking.mark_all()
        for pool in self._pools.values():
            self._mark_pool(pool)
            pool.span = None
            pool.walked = None
        for nft in self._nfts.values():
            self._stale_ids.add(nft.token_id)
            self._begin_principal(nft, known=False)
            self._begin_life(nft)
        for pool in self._pools.values():
            pool.ring = None
        for token_id in self._wanted_ids:
            if token_id not in self._nfts:
                self._urge(token_id, None)
        for watch in self._owners.values():
            self._rediscover(watch)


def tally(
    topic: str, principal0: int | None, principal1: int | None, amount0: int, amount1: int
) -> tuple[int | None, int | None]:
    """Return owed principal after one more event: a decrease adds, a collect takes principal first."""
    if principal0 is None or principal1 is None:
        return None, None
    if topic == ev.DECREASE_LIQUIDITY:
        return principal0 + amount0, principal1 + amount1
    return max(principal0 - amount0, 0), max(principal1 - amount1, 0)
