"""The v3-staker as a book needs it: deposits, stakes, incentives and claims, marked by logs and read again.

A state machine without I/O; see protocols.staking.Staking for the contract. What is kept are cells, each the
answer of one view of the contract. A log marks the cells that it touched, a reorganisation marks them again,
and whatever is marked is read at the new head. No running sum is kept: nothing can drift.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ....domain.chain import Log
from ....domain.clmath.rewards import reward
from ....domain.errors import RetryableError
from ....domain.ids import Address, BlockHash, Liquidity, RawAmount, TokenId
from ...addresses import ZERO_ADDRESS
from ...base import Call, HistoryQuery, Plan
from ...staking import Deposit, Reward, StakedRange
from ..events import topic_address, word
from . import events as ev
from .cells import Cell, Depositor, IncentiveSums, Stakes
from .events import IncentiveId
from .past import INCENTIVES, deposits_to, stakes_of, unstakes_of
from .rates import yearly_rates
from .remembering import Remembering

__all__ = ["V3Staker"]


class V3Staker(Remembering):
    """One v3-staker contract."""

    topics: Final = ev.TOPICS

    def __init__(self, staker: Address) -> None:
        super().__init__(staker)
        self.holders: Final = frozenset((staker,))
        self._at = staker
        self._now = 0
        # Before anyone asks for a position: with these known, its rewards take no round trip more than the rest of it.
        self._past.want(INCENTIVES)
        self._paid: frozenset[Address] = frozenset()
        self._incentives: dict[IncentiveId, IncentiveSums] = {}
        self._tokens: dict[TokenId, Stakes] = {}
        self._owners: dict[Address, Depositor] = {}
        self._owners_of: dict[TokenId, set[Address]] = {}  # wanted owners for whom it was ever held
        self._staked_in: dict[TokenId, set[IncentiveId]] = {}  # ever
        self._stale: set[Cell] = set()
        self._load: dict[Cell, None] = {}
        self._changed: set[TokenId] = set()
        self._changed_claims: set[Address] = set()
        self._records: dict[BlockHash, set[Cell]] = {}
        self._record: set[Cell] = set()
        self._head = BlockHash("")
        # What was first read at a block that then left is no better known for any block before the next one.
        self._carried: set[Cell] = set()

    # --- whose it is, and whether it is staked --------------------------------------------------------

    def deposit_call(self, token_id: TokenId) -> Call:
        """Return the call that says for whom an NFT is held."""
        return ev.deposit_call(self._at, token_id)

    def deposit(self, result: bytes | None) -> Deposit:
        """Return what that call's answer means."""
        return ev.decode_deposit(result)

    def track(self, token_id: TokenId, stakes: int, *, is_born: bool) -> None:
        """Keep the rewards of a position that was read with so many stakes."""
        token = self._tokens.get(token_id)
        is_new = token is None
        if token is None:
            token = self._tokens[token_id] = Stakes()
        if self._credits.track(token_id):
            if is_born:
                self._credits.complete(token_id, ())
            else:
                self._past.want(unstakes_of(token_id))
        if token.stakes != stakes:
            self._changed.add(token_id)
        token.stakes = stakes
        if not stakes:
            self._release(token_id, token)
            return
        for incentive in self._staked_in.get(token_id, ()):
            self._keep(token_id, token, incentive, urgent=not is_new)
        self._check(token_id, token)

    def untrack(self, token_id: TokenId) -> None:
        """Forget a position."""
        token = self._tokens.pop(token_id, None)
        if token is not None:
            self._release(token_id, token)
            self._changed.discard(token_id)
            self._forget_token(token_id)
            self._credits.untrack(token_id)
            self._past.forget(unstakes_of(token_id))

    def _forget_token(self, token_id: TokenId) -> None:
        if token_id not in self._tokens and token_id not in self._owners_of:
            self._staked_in.pop(token_id, None)
            self._past.forget(stakes_of(token_id))

    def want_owner(self, owner: Address) -> None:
        """Find all positions held for an owner, and what it can claim, from now on."""
        if owner not in self._owners:
            self._owners[owner] = Depositor()
            self._past.want(deposits_to(owner))

    def unwant_owner(self, owner: Address) -> None:
        """Undo `want_owner`."""
        depositor = self._owners.pop(owner, None)
        if depositor is None:
            return
        self._past.forget(deposits_to(owner))
        self._changed_claims.discard(owner)
        for token in depositor.claims:
            self._drop(("claim", owner, token))
        for token_id in depositor.ids:
            holders = self._owners_of[token_id]
            holders.discard(owner)
            if not holders:
                del self._owners_of[token_id]
                self._forget_token(token_id)

    def owner_ready(self, owner: Address) -> bool:
        """Return whether all positions held for an owner have been named by `absorb_history`."""
        return not self._past.is_pending(deposits_to(owner))

    # --- cells ----------------------------------------------------------------------------------------

    def _keep(self, token_id: TokenId, token: Stakes, incentive: IncentiveId, *, urgent: bool) -> None:
        """Read a stake and its incentive, if that was not done; at once where a block may have brought it."""
        if incentive not in token.found:
            token.found[incentive] = None
            self._want(("stake", token_id, incentive), urgent=urgent)
        if token.found[incentive] != (0, 0):
            self._use(token_id, incentive, urgent=urgent)

    def _use(self, token_id: TokenId, incentive: IncentiveId, *, urgent: bool) -> None:
        known = self._incentives.get(incentive)
        if known is None:
            known = self._incentives[incentive] = IncentiveSums()
            self._want(("incentive", incentive), urgent=urgent)
            self._pay(incentive)
        known.users.add(token_id)

    def _pay(self, incentive: IncentiveId) -> None:
        """Note the token that an incentive is paid in."""
        key = self._keys.get(incentive)
        if key is not None and key.reward_token not in self._paid:
            self._paid |= {key.reward_token}

    def _unuse(self, token_id: TokenId, incentive: IncentiveId) -> None:
        known = self._incentives.get(incentive)
        if known is not None:
            known.users.discard(token_id)
            if not known.users:
                del self._incentives[incentive]
                self._drop(("incentive", incentive))

    def _release(self, token_id: TokenId, token: Stakes) -> None:
        for incentive in token.found:
            self._drop(("stake", token_id, incentive))
            self._unuse(token_id, incentive)
        token.found.clear()

    def _want(self, cell: Cell, *, urgent: bool) -> None:
        if urgent:
            self._stale.add(cell)
        else:
            self._load[cell] = None

    def _drop(self, cell: Cell) -> None:
        self._stale.discard(cell)
        self._load.pop(cell, None)

    def _is_kept(self, cell: Cell) -> bool:
        match cell:
            case ("stake", token_id, incentive):
                token = self._tokens.get(token_id)
                return token is not None and incentive in token.found
            case ("incentive", incentive):
                return incentive in self._incentives
            case ("claim", owner, reward_token):
                depositor = self._owners.get(owner)
                return depositor is not None and reward_token in depositor.claims
        return False

    def _mark(self, cell: Cell) -> None:
        """Read a kept cell again, and note that this block touched it."""
        self._record.add(cell)
        if self._is_kept(cell):
            self._stale.add(cell)

    def _check(self, token_id: TokenId, token: Stakes) -> None:
        """Ask for the past of a position of which fewer stakes are known than the contract counts."""
        stakes = token.found.values()
        if None not in stakes and sum(1 for stake in stakes if stake is not None and stake[1]) < token.stakes:
            self._past.want(stakes_of(token_id))

    # --- claims ---------------------------------------------------------------------------------------

    def _deposited(self, owner: Address, token_id: TokenId) -> None:
        """Note that a position was held for a wanted owner at some time."""
        self._owners[owner].ids.add(token_id)
        self._owners_of.setdefault(token_id, set()).add(owner)

    def _link(self, token_id: TokenId, incentive: IncentiveId, *, again: bool) -> None:
        """Whoever had a position in an incentive may have earned its token.

        `again` reads what is known, too: as long as the past was not told, logs were not seen as theirs.
        """
        key = self._keys.get(incentive)
        if key is None:
            return
        self._pay(incentive)
        for owner in self._owners_of.get(token_id, ()):
            claims = self._owners[owner].claims
            if again or key.reward_token not in claims:
                claims[key.reward_token] = None
                self._want(("claim", owner, key.reward_token), urgent=not again)

    # --- blocks ---------------------------------------------------------------------------------------

    def open(self, block_hash: BlockHash) -> None:
        """Begin the record of a block."""
        self._head = block_hash
        self._record = self._records[block_hash] = self._carried
        self._carried = set()

    def check(self, log: Log) -> None:
        """Raise RetryableError for a log that can't be the event that it names."""
        ev.check(log)

    def fold(self, log: Log) -> tuple[TokenId, tuple[Address, ...]] | None:
        """Take a log; return the position that has to be read again and the owners it names, None if none."""
        match log.topics[0]:
            case ev.DEPOSIT_TRANSFERRED:
                token_id = TokenId(int(log.topics[1], 16))
                owners = tuple(map(topic_address, log.topics[2:4]))
                if owners[1] in self._owners:
                    self._deposited(owners[1], token_id)
                return token_id, tuple(owner for owner in owners if owner != ZERO_ADDRESS)
            case ev.TOKEN_STAKED | ev.TOKEN_UNSTAKED:
                token_id, incentive = TokenId(int(log.topics[1], 16)), log.topics[2].lower()
                if log.topics[0] == ev.TOKEN_UNSTAKED:
                    sums = self._incentives.get(incentive)
                    is_fresh = sums is not None and ("incentive", incentive) not in self._stale
                    self._credits.fold(log, sums.sums if sums is not None and is_fresh else None)
                self._mark(("incentive", incentive))
                token = self._tokens.get(token_id)
                if token is not None or token_id in self._owners_of:
                    self._staked_in.setdefault(token_id, set()).add(incentive)
                    self._link(token_id, incentive, again=False)
                if token is not None:
                    self._keep(token_id, token, incentive, urgent=True)
                    self._use(token_id, incentive, urgent=True)
                self._mark(("stake", token_id, incentive))
                if log.topics[0] == ev.TOKEN_UNSTAKED and (key := self._keys.get(incentive)) is not None:
                    # Credited is the depositor of that moment: one of those for whom it was ever held.
                    for owner in self._owners_of.get(token_id, ()):
                        self._mark(("claim", owner, key.reward_token))
                return token_id, ()
            case ev.INCENTIVE_CREATED:
                key = self._learn(log)
                self._mark(("incentive", key.id))
            case ev.INCENTIVE_ENDED:
                self._mark(("incentive", log.topics[1].lower()))
            case ev.REWARD_CLAIMED:
                # Says where the reward went and how much it was, not whose it was nor of which token. Of a stale
                # claim the amount is not known: an earlier block may have raised it.
                amount = word(log.data, 0)
                for owner, depositor in self._owners.items() if amount else ():
                    for reward_token, claim in depositor.claims.items():
                        cell = "claim", owner, reward_token
                        if claim is None or claim >= amount or cell in self._stale:
                            self._mark(cell)
        return None

    def unwind(self, block_hashes: Iterable[BlockHash]) -> None:
        """Mark what these blocks had touched, newest first; time went back, too."""
        block_hashes = list(block_hashes)
        self._turns += 1
        self._credits.drop(set(block_hashes))
        for block_hash in block_hashes:
            record = self._records.pop(block_hash, set())
            self._carried |= record
            self._stale |= {cell for cell in record if self._is_kept(cell)}
        self._changed |= {token_id for token_id, token in self._tokens.items() if token.stakes}

    def forget(self, block_hash: BlockHash) -> None:
        """Drop the memory of a block that is too deep to be undone."""
        self._records.pop(block_hash, None)
        self._credits.forget(block_hash)

    def mark_all(self) -> None:
        """Mark everything, and ask for all of the past again."""
        self._past.restart()
        self._turns += 1
        self._credits.unknow()
        self._stale |= {("incentive", incentive) for incentive in self._incentives}
        for token_id, token in self._tokens.items():
            self._past.want(unstakes_of(token_id))
            self._stale |= {("stake", token_id, incentive) for incentive in token.found}
            if token.stakes:
                self._changed.add(token_id)
        for owner, depositor in self._owners.items():
            self._stale |= {("claim", owner, reward_token) for reward_token in depositor.claims}

    # --- reads ----------------------------------------------------------------------------------------

    def is_settled(self) -> bool:
        """Return whether everything that a block touched has been read."""
        return not self._stale

    def plan(self, plan: Plan) -> None:
        """Add the reads for all that is stale."""
        for cell in self._stale:
            plan.add(("staking", cell), self._call(cell))

    def plan_loads(self, plan: Plan, limit: int) -> None:
        """Add reads for what was never read, up to a number of reads in all."""
        for cell in self._load:
            if len(plan.calls) >= limit:
                return
            if cell not in self._stale:
                plan.add(("staking", cell), self._call(cell))

    def _call(self, cell: Cell) -> Call:
        match cell:
            case ("stake", token_id, incentive):
                return ev.stake_call(self._at, token_id, incentive)
            case ("incentive", incentive):
                return ev.incentive_call(self._at, incentive)
            case (_, owner, reward_token):
                return ev.claim_call(self._at, reward_token, owner)
        raise AssertionError(cell)

    def absorb(self, key: Any, result: bytes | None) -> None:
        """Take one answer."""
        cell: Cell = key
        self._drop(cell)
        if cell[0] == "incentive":
            self._credits.saw(cell[1], ev.decode_words(result))
        if not self._is_kept(cell):
            return
        words = ev.decode_words(result)
        before: object
        match cell:
            case ("stake", token_id, incentive):
                token = self._tokens[token_id]
                before, token.found[incentive] = token.found[incentive], words
                if before != words:
                    self._changed.add(token_id)
                if words[1]:
                    self._use(token_id, incentive, urgent=True)
                else:
                    self._unuse(token_id, incentive)
                self._check(token_id, token)
            case ("incentive", incentive):
                known = self._incentives[incentive]
                before, known.sums = known.sums, words
                if before != words:
                    self._changed |= known.users
            case _:
                _, owner, reward_token = cell
                claims = self._owners[owner].claims
                before, claims[reward_token] = claims[reward_token], words[0]
                if before != words[0]:
                    self._changed_claims.add(owner)
        if before is None:
            self._record.add(cell)

    def absorb_history(self, query: HistoryQuery, logs: Sequence[Log] | None) -> Mapping[Address, set[TokenId]]:
        """Take the answer to a history query; return positions that may be held for wanted owners."""
        if logs is not None:
            try:
                for log in logs:
                    ev.check(log)
            except RetryableError:
                logs = None  # as good as no answer: the log is not what its node says it is
        found: dict[Address, set[TokenId]] = {}
        answered = self._past.answer(query, logs, self._now)
        for log in logs if answered and logs is not None else ():
            match log.topics[0]:
                case ev.INCENTIVE_CREATED:
                    self._learn(log)
                case ev.DEPOSIT_TRANSFERRED:
                    token_id, owner = TokenId(int(log.topics[1], 16)), topic_address(log.topics[3])
                    if owner in self._owners:
                        self._deposited(owner, token_id)
                        # What it earned there before now; from now on the blocks' own logs tell.
                        self._past.want(stakes_of(token_id))
                        found.setdefault(owner, set()).add(token_id)
                case ev.TOKEN_STAKED:
                    token_id, incentive = TokenId(int(log.topics[1], 16)), log.topics[2].lower()
                    token = self._tokens.get(token_id)
                    if token is not None or token_id in self._owners_of:
                        self._staked_in.setdefault(token_id, set()).add(incentive)
                    if token is not None and token.stakes:
                        self._keep(token_id, token, incentive, urgent=False)
        for kind, of in answered:
            if kind == "deposits":
                owner = Address(str(of))
                self._changed_claims.add(owner)
                # Of some the stakes were asked for before, for another owner.
                self._relink(found.get(owner, ()))
            elif kind == "stakes":
                self._relink([TokenId(int(of))])
            elif kind == "unstakes":
                self._absorb_unstakes(TokenId(int(of)), query, logs)
            else:
                self._relink(list(self._staked_in))
                for incentive in self._incentives:
                    self._pay(incentive)
        return found

    def _relink(self, token_ids: Iterable[TokenId]) -> None:
        for token_id in token_ids:
            for incentive in self._staked_in.get(token_id, ()):
                self._link(token_id, incentive, again=True)
            self._changed_claims |= self._owners_of.get(token_id, set())
            if token_id in self._tokens:
                self._changed.add(token_id)

    # --- values ---------------------------------------------------------------------------------------

    def reward_tokens(self) -> frozenset[Address]:
        """Return the tokens in which tracked positions and wanted owners are rewarded."""
        return self._paid

    def take_changed(self, now: int) -> set[TokenId]:
        """Return the positions whose rewards changed by more than time since this was last asked."""
        self._now = now
        self._past.retry(now)
        self._credits.settle(self._head, now)
        changed, self._changed = self._changed, set()
        return changed

    def is_known(self, token_id: TokenId) -> bool:
        """Return whether a position's rewards are known, or are known to be unreadable."""
        token = self._tokens.get(token_id)
        if token is None or not token.stakes:
            return True
        if self._past.is_pending(stakes_of(token_id)) or self._past.is_pending(INCENTIVES):
            return False
        return all(
            stake is not None and (not stake[1] or self._incentives[incentive].sums is not None)
            for incentive, stake in token.found.items()
        )

    def rewards(self, token_id: TokenId, place: StakedRange, now: int) -> list[Reward] | None:
        """Return what a staked position has earned at a block, one entry an incentive; None while unknown."""
        token = self._tokens[token_id]
        earned: list[Reward] = []
        for incentive in sorted(token.found):
            stake = token.found[incentive]
            if stake == (0, 0):
                continue
            key, known = self._keys.get(incentive), self._incentives.get(incentive)
            if stake is None or key is None or known is None or known.sums is None:
                return None
            amount = reward(
                unclaimed=RawAmount(known.sums[0]), claimed_x128=known.sums[1], start=key.start, end=key.end,
                liquidity=Liquidity(stake[1]), initial=stake[0], inside=place.seconds_inside, now=now,
            )  # fmt: skip
            earned.append(Reward(key.reward_token, self._terms_of(key), amount))
        return earned if len(earned) == token.stakes else None

    def rates(self, token_id: TokenId, liquidity: Liquidity, now: int) -> dict[Address, int] | None:
        """Return what a staked position in range would earn in a year at the present rate, by token, raw units."""
        return yearly_rates(self._tokens[token_id], self._keys, self._incentives, liquidity, now)

    def take_claims(self) -> set[Address]:
        """Return the wanted owners whose claims changed since this was last asked."""
        changed, self._changed_claims = self._changed_claims, set()
        return changed & self._owners.keys()

    def claims(self, owner: Address) -> Mapping[Address, int] | None:
        """Return what an owner can claim, by token, without zeros; None while that is unread."""
        depositor, is_open = self._owners.get(owner), self._past.is_open
        if depositor is None or is_open(deposits_to(owner)):
            return None
        if depositor.ids and (is_open(INCENTIVES) or any(is_open(stakes_of(token_id)) for token_id in depositor.ids)):
            return None
        claims: dict[Address, int] = {}
        for reward_token, claim in sorted(depositor.claims.items()):
            if claim is None:
                return None
            if claim:
                claims[reward_token] = claim
        return claims
