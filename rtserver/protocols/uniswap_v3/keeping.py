"""What a book leaves behind for the next process, and how that one begins from it.

Kept is what only events or enumeration can tell: who owns what, in which range, what principal is owed, what went into
positions and came out of them, what recent blocks touched. Not kept is what one call reads: prices, growth,
liquidity; after a restart all of that is read again at the new head. So a fact that is missing costs a read, never
a wrong number.

Every fact is JSON under a key of its own: `t:` a token, `n:` a position, `l:` its life, `u:` what it was credited by
staking, `o:` an owner whose positions are all known, `j:` what a block touched (`j:` alone: what blocks that left the
chain have left to the next one).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ...domain.chain import Log
from ...domain.ids import Address, BlockHash, Tick, TokenId
from ..addresses import checksum, create2_pool
from . import events as ev
from .folding import Folding
from .journal import Touched
from .life import Lifetime, kept_event, restored_event
from .state import Nft, Token

__all__ = ["Keeping"]

_GONE: Final = None
# Stands for the newest record, which grows by what is first read at its block: it is told again next time.
_GROWING: Final = Touched()


@dataclass(frozen=True, slots=True)
class _Position:
    owner: Address
    token0: Address
    token1: Address
    fee_pips: int
    lower: Tick
    upper: Tick
    # None where it was unknown, or still being read.
    principal: tuple[int, int] | None


class Keeping(Folding):
    """Facts out, facts in."""

    # --- out ------------------------------------------------------------------------------------------

    def keep(self, *, whole: bool) -> dict[str, Any]:
        """Return the facts that changed since this was last asked for, None for those that are no more.

        Only to be asked when everything that blocks touched has been read. Walks all positions: 0.2 µs each.

        Args:
            whole: Return all facts, whatever was returned before.
        """
        if whole:
            for kept in (self._kept_nfts, self._kept_lives, self._kept_owners, self._kept_tokens, self._kept_records):
                kept.clear()
        facts = self._keep_tokens() | self._keep_nfts() | self._keep_lives()
        if self._staking is not None:
            facts |= self._staking.keep(whole=whole)
        return facts | self._keep_owners() | self._keep_records()

    def _keep_tokens(self) -> dict[str, Any]:
        kept = self._kept_tokens
        # A token says the same for ever, and is never forgotten.
        new = [token for address, token in self._tokens.items() if address not in kept]
        kept.update(token.address for token in new)
        return {f"t:{token.address}": [token.symbol, token.decimals, token.view["flags"]] for token in new}

    def _keep_nfts(self) -> dict[str, Any]:
        changed: dict[str, Any] = {}
        kept, asked = self._kept_nfts, self._load_history
        for token_id, nft in self._nfts.items():
            rng, owner, principal0, principal1 = nft.range, nft.owner, nft.principal0, nft.principal1
            known = kept.get(token_id)
            if (
                known is not None
                and known[0] is rng
                and known[1] == owner
                and known[2] == principal0
                and known[3] == principal1
            ):
                continue
            kept[token_id] = (rng, owner, principal0, principal1)
            is_known = principal0 is not None and principal1 is not None and token_id not in asked
            changed[f"n:{token_id}"] = [
                owner, rng.pool.token0, rng.pool.token1, rng.pool.fee_pips, rng.lower, rng.upper,
                [str(principal0), str(principal1)] if is_known else None,
            ]  # fmt: skip
        if len(kept) != len(self._nfts):
            for token_id in kept.keys() - self._nfts.keys():
                del kept[token_id]
                changed[f"n:{token_id}"] = _GONE
        return changed

    def _keep_lives(self) -> dict[str, Any]:
        changed: dict[str, Any] = {}
        kept = self._kept_lives
        for token_id, nft in self._nfts.items():
            life, known = nft.life, kept.get(token_id)
            version = 0 if life is None else life.version
            if known is not None and known[0] is life and known[1] == version:
                continue
            if life is not None and life.is_known:
                changed[f"l:{token_id}"] = [[str(total) for total in life.older], [*map(kept_event, life.events)]]
            elif known is not None:
                changed[f"l:{token_id}"] = _GONE
            kept[token_id] = life, version
        if len(kept) != len(self._nfts):
            for token_id in kept.keys() - self._nfts.keys():
                del kept[token_id]
                changed[f"l:{token_id}"] = _GONE
        return changed

    def _keep_owners(self) -> dict[str, Any]:
        kept, unread = self._kept_owners, self._load_ids
        # Half an enumeration, or one whose positions are still to be read, is begun again by the next process.
        whole = {
            owner
            for owner, watch in self._owners.items()
            if watch.discovered and (not watch.awaiting or watch.awaiting.isdisjoint(unread))
        }
        changed: dict[str, Any] = {f"o:{owner}": 1 for owner in whole - kept}
        changed.update((f"o:{owner}", _GONE) for owner in kept - whole)
        self._kept_owners = whole
        return changed

    def _keep_records(self) -> dict[str, Any]:
        journal, kept = self._journal, self._kept_records
        records = {block_hash: journal.record(block_hash) for block_hash in journal.hashes()}
        records[BlockHash("")] = journal.carried
        changed: dict[str, Any] = {
            f"j:{block_hash}": _record_fact(record)
            for block_hash, record in records.items()
            if kept.get(block_hash) is not record
        }
        changed.update((f"j:{block_hash}", _GONE) for block_hash in kept.keys() - records.keys())
        self._kept_records = {
            block_hash: _GROWING if record is journal.current or not block_hash else record
            for block_hash, record in records.items()
        }
        return changed

    # --- in -------------------------------------------------------------------------------------------

    def restored_topics(self) -> tuple[Address, tuple[str, ...]]:
        """Return whose logs (contract, first topics) have to be folded after `restore`: pools are read whole."""
        return self._manager, tuple(sorted(ev.MANAGER_TOPICS))

    def remembered(self) -> list[BlockHash]:
        """Return the blocks that can be undone."""
        return self._journal.hashes()

    def check(self, logs: Iterable[Log]) -> None:
        """Raise RetryableError where a log is not what its event says: `fold` would refuse it."""
        for log in logs:
            ev.check_shape(log.topics, log.data)

    def restore(self, facts: Mapping[str, Any], dropped: Sequence[BlockHash], at: BlockHash) -> None:
        """Begin from what an earlier process kept: everything known, and all of it to be read again.

        Comes after the wishes and before anything is read. What nobody wants is passed over.

        Args:
            facts: As `keep` returned them, all together, of one moment.
            dropped: Blocks of then that are not on the chain any more, newest first.
            at: The newest block of then that is.

        Raises:
            ValueError: The facts are not what `keep` returns; nothing was taken.
        """
        try:
            tokens = {
                Address(key[2:]): (str(fact[0]), fact[1], [*fact[2]]) for key, fact in facts.items() if key[:2] == "t:"
            }
            positions = {TokenId(int(key[2:])): _position(fact) for key, fact in facts.items() if key[:2] == "n:"}
            lives = {TokenId(int(key[2:])): _lifetime(fact) for key, fact in facts.items() if key[:2] == "l:"}
            owners = [Address(key[2:]) for key in facts if key[:2] == "o:"]
            records = {BlockHash(key[2:]): _record(fact) for key, fact in facts.items() if key[:2] == "j:"}
            if self._staking is not None:
                self._staking.restore(facts)
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"not the facts of a book: {error!r}") from error
        for address, (symbol, decimals, flags) in tokens.items():
            view = {"address": checksum(address), "symbol": symbol, "decimals": decimals, "flags": flags}
            self._tokens[address] = Token(address=address, symbol=symbol, decimals=decimals, view=view)
            self._load_tokens.pop(address, None)
        pools: dict[tuple[Address, Address, int], Address] = {}
        for token_id, position in positions.items():
            if position.owner in self._owners or token_id in self._wanted_ids:
                key = (position.token0, position.token1, position.fee_pips)
                if key not in pools:
                    pools[key] = create2_pool(self._factory, self._init_code_hash, *key)
                self._restore_nft(token_id, position, pools[key], lives.get(token_id))
        for owner in owners:
            watch = self._owners.get(owner)
            if watch is not None:
                watch.discovered = True
                self._undiscovered.pop(owner, None)
        self._journal.restore(records)
        self.unwind(dropped)
        self._journal.go_on(at)
        if self._staking is not None:
            # All of staking is first read after this block, or at it; what is kept of it is of the past alone.
            self._staking.open(at)

    def _restore_nft(self, token_id: TokenId, position: _Position, address: Address, life: Lifetime | None) -> None:
        pool = self._pool(address, position.token0, position.token1, position.fee_pips)
        self._track_growth(pool)
        rng = self._range(pool, position.lower, position.upper)
        # The numbers are read before anything is evaluated: what is stale holds every publication back.
        nft = Nft(token_id, position.owner, rng, liquidity=0, last0=0, last1=0, owed0=0, owed1=0)
        self._nfts[token_id] = rng.nfts[token_id] = nft
        self._owned.setdefault(position.owner, set()).add(token_id)
        self._load_ids.pop(token_id, None)
        self._stale_ids.add(token_id)
        self._sample_queue[token_id] = None
        self._unseeded[token_id] = None
        if position.principal is None:
            self._begin_principal(nft, known=False)
        else:
            nft.set_principal(*position.principal)
        if life is None:
            self._begin_life(nft)
        else:
            nft.life = life
            self._unsampled.add(token_id)
            self._unlooked[token_id] = None


def _position(fact: Any) -> _Position:
    owner, token0, token1, fee_pips, lower, upper, principal = fact
    if not all(isinstance(number, int) for number in (fee_pips, lower, upper)):
        raise ValueError(f"not a range: {fact!r:.80}")
    owed = None if principal is None else (int(principal[0]), int(principal[1]))
    return _Position(Address(owner), Address(token0), Address(token1), fee_pips, Tick(lower), Tick(upper), owed)


def _lifetime(fact: Any) -> Lifetime:
    older, events = fact
    life = Lifetime()
    for event in map(restored_event, events):
        life.add(event)
    life.older = tuple(int(total) for total in older)
    life.net0 += life.older[4] - life.older[2]
    life.net1 += life.older[5] - life.older[3]
    life.is_known = True
    if len(life.older) != 6:
        raise ValueError(f"not the sums of a life: {older!r:.80}")
    return life


def _record_fact(record: Touched) -> dict[str, Any]:
    """Return what outlives the process of a record: not pools, ticks and ranges, which are read anew anyway."""
    fact = {
        "ids": [str(token_id) for token_id in record.token_ids],
        "owners": list(record.owners),
        "newIds": [str(token_id) for token_id in record.first_read_ids],
        "newOwners": list(record.first_read_owners),
        "owed": {
            str(token_id): None if before[0] is None or before[1] is None else [str(before[0]), str(before[1])]
            for token_id, before in record.principal_before.items()
        },
    }
    return {name: value for name, value in fact.items() if value}


def _record(fact: Mapping[str, Any]) -> Touched:
    return Touched(
        token_ids={TokenId(int(token_id)) for token_id in fact.get("ids", ())},
        owners={Address(owner) for owner in fact.get("owners", ())},
        first_read_ids={TokenId(int(token_id)) for token_id in fact.get("newIds", ())},
        first_read_owners={Address(owner) for owner in fact.get("newOwners", ())},
        principal_before={
            TokenId(int(token_id)): (None, None) if owed is None else (int(owed[0]), int(owed[1]))
            for token_id, owed in fact.get("owed", {}).items()
        },
    )
