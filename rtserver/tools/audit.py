"""Checks what was captured against the chain, one block after the other, and keeps the tally.

It asks the oracle and compares; it neither listens to the server nor prints.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..domain.diff import JsonObject
from ..domain.ids import Address, TokenId
from ..protocols.addresses import checksum
from .capture import Job, owner_of
from .compare import Difference, Findings, compare_head, compare_pool, compare_position, differences
from .staking import StakerTruth, compare_rewards
from .truth import BlockGone, PositionTruth, Truth

__all__ = ["Audit", "Tally"]

# More differences than anyone reads; the count goes on.
_KEPT = 1000


@dataclass(slots=True)
class Tally:
    """The outcome so far. `skipped` blocks had left the chain when they were asked about."""

    blocks: int = 0
    positions: int = 0
    values: int = 0
    differences: int = 0
    skipped: int = 0
    late: int = 0  # captures dropped because checking was slower than the chain
    unanswered: int = 0  # values for which the chain's own call reverts
    unsteady: int = 0  # differences that a second reading of the same block hash did not find
    ownership_checks: int = 0
    found: list[Difference] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


class Audit:
    """The check of one deployment.

    Args:
        truth: The chain's answers.
        chain_id: The chain's id.
        protocol: The protocol's name in the served objects.
        everything: Whether the whole of the ownership is checked and new owners are wanted.
        limit: Most positions to enumerate.
        on_difference: Called with each difference as it is found.
        on_owner: Called with each owner that nobody watches yet.
        staker: Says whose the positions are that the staker holds; None where the server follows none.
        keeps_final: Whether the node never takes back what it called safe or final, as on any chain but a test's.
    """

    def __init__(
        self,
        truth: Truth,
        chain_id: int,
        protocol: str,
        *,
        everything: bool,
        limit: int,
        on_difference: Callable[[Difference], None],
        on_owner: Callable[[Address], None],
        staker: StakerTruth | None = None,
        keeps_final: bool = True,
    ) -> None:
        self.tally = Tally()
        self._truth = truth
        self._chain_id = chain_id
        self._protocol = protocol
        self._everything = everything
        self._limit = limit
        self._on_difference = on_difference
        self._on_owner = on_owner
        self._staker = staker
        self._keeps_final = keeps_final
        self._seen: set[TokenId] = set()

    async def check(self, job: Job) -> None:
        """Compare everything of a captured block with the chain at that block."""
        try:
            found, values, unanswered = await self._compare(job)
            if found:
                found = await self._confirm(job, found)
        except BlockGone:
            self.tally.skipped += 1
            return
        tally = self.tally
        tally.blocks += job.is_block
        tally.values += values
        tally.unanswered += unanswered
        tally.ownership_checks += job.owned is not None
        self._seen.update(token_id for _, token_id, _ in job.positions)
        tally.positions = len(self._seen)
        for difference in found:
            self.note(difference)

    async def _confirm(self, job: Job, found: list[Difference]) -> list[Difference]:
        """Return the differences that a second reading finds too: what the chain says of a hash never changes.

        A node may say it wrongly for a moment: anvil, asked about its newest block while it mines the next one,
        answers from the next one in one of fifteen calls. And some answer for an orphan from what replaced it.
        """
        again, _, _ = await self._compare(job)
        await self._truth.require(job.block_hash)
        kept = {(each.what, each.field, each.ours) for each in again}
        confirmed = [each for each in found if (each.what, each.field, each.ours) in kept]
        self.tally.unsteady += len(found) - len(confirmed)
        return confirmed

    def note(self, difference: Difference) -> None:
        """Count and tell a difference."""
        self.tally.differences += 1
        if len(self.tally.found) < _KEPT:
            self.tally.found.append(difference)
        self._on_difference(difference)

    async def _compare(self, job: Job) -> tuple[list[Difference], int, int]:
        found: list[Difference] = []
        values = unanswered = 0
        ids = [token_id for _, token_id, _ in job.positions] + [token_id for _, token_id in job.gone]
        truths = await self._positions(ids, job.block_hash)

        def note(what: str, findings: Findings) -> None:
            nonlocal values, unanswered
            values += findings.compared
            unanswered += findings.unanswered
            found.extend(differences(findings, what, job.number, job.block_hash))

        for channel, token_id, entry in job.positions:
            truth = truths[token_id]
            if truth is None:
                findings = Findings()
                findings.wrong("exists", True, "no such position")
            else:
                findings = compare_position(entry, truth, self._chain_id, self._protocol)
                await self._compare_rewards(job, entry, truth, findings)
            note(f"{token_id} in {channel}", findings)
        for channel, token_id in job.gone:
            truth = truths[token_id]
            note(
                f"{token_id} in {channel}",
                self._compare_gone(channel, None if truth is None else truth.owner or truth.holder),
            )
        for channel, entry in job.pools:
            pool = Address(channel.rpartition(":")[2].lower())
            tokens = self._truth.tokens_of(pool)
            if tokens is not None:
                whole = await self._truth.pools([pool], job.block_hash, whole=True)
                note(channel, compare_pool(entry, whole[pool], self._chain_id, tokens))
        for entry in job.heads:
            note("head", compare_head(entry, await self._truth.require(job.block_hash)))
        for tag, entry in job.tags:
            note(f"{tag} in head", await self._compare_tag(tag, entry, job))
        if job.owned is not None:
            note_owners = await self._compare_owners(job, job.owned)
            for owner, findings in note_owners.items():
                note(f"owner {checksum(owner)}", findings)
        return found, values, unanswered

    async def _compare_tag(self, tag: str, entry: JsonObject, job: Job) -> Findings:
        """Compare a block that is called safe or final: on the chain, and no newer than the node calls so."""
        number = entry.get("number")
        if not isinstance(number, int) or not 0 <= number <= job.number:
            findings = Findings()
            findings.wrong("number", number, f"none above {job.number}")
            return findings
        block = await self._truth.at_height(number)
        if block is None:
            raise BlockGone(job.block_hash)
        findings = compare_head(entry, block)
        told = await self._truth.tagged(tag, number) if self._keeps_final else None
        if told is not None and told.number < number:
            findings.wrong("number", number, f"{tag} is {told.number}")
        elif told is not None:
            findings.compared += 1
        return findings

    async def _positions(self, ids: list[TokenId], block_hash: str) -> dict[TokenId, PositionTruth | None]:
        """Return each position at a block, with whose it is where the staker holds it."""
        truths = await self._truth.positions(ids, block_hash)
        staker = self._staker
        if staker is None:
            return truths
        inside = [truth for truth in truths.values() if truth is not None and truth.holder == staker.at]
        held = await staker.held([truth.token_id for truth in inside], block_hash)
        for truth in inside:
            each = held[truth.token_id]
            truths[truth.token_id] = replace(truth, owner=each.owner, stakes=each.stakes)
        return truths

    async def _compare_rewards(self, job: Job, entry: JsonObject, truth: PositionTruth, findings: Findings) -> None:
        if self._staker is None or not truth.stakes or entry.get("rewards") is None:
            return
        block = await self._truth.require(job.block_hash)
        answers = await self._staker.rewards(entry, job.block_hash)
        compare_rewards(entry, truth.stakes, answers, block.timestamp, findings)

    @staticmethod
    def _compare_gone(channel: str, holder: Address | None) -> Findings:
        """A position that was removed must not be there: burned, or in other hands."""
        findings = Findings(compared=1)
        owner = owner_of(channel)
        if holder is not None and (owner is None or owner == holder):
            findings.differing.append(("exists", "removed", f"held by {checksum(holder)}"))
        return findings

    async def _compare_owners(self, job: Job, owned: dict[Address, frozenset[TokenId]]) -> dict[Address, Findings]:
        held = await self._holdings(job.block_hash, owned)
        results: dict[Address, Findings] = {}
        for owner, ours in owned.items():
            findings = results[owner] = Findings(compared=1)
            theirs = held.get(owner, frozenset())
            if ours != theirs:
                lacks, has = sorted(theirs - ours), sorted(ours - theirs)
                findings.differing.append(("positions", f"lacks {lacks}, has wrongly {has}", f"holds {sorted(theirs)}"))
        for owner in held.keys() - owned.keys():
            self._on_owner(owner)
        return results

    async def _holdings(
        self, block_hash: str, owned: dict[Address, frozenset[TokenId]]
    ) -> dict[Address, frozenset[TokenId]]:
        gathered: dict[Address, set[TokenId]] = {}
        if self._everything:
            for token_id, holder in (await self._truth.holders(block_hash, self._limit)).items():
                gathered.setdefault(holder, set()).add(token_id)
        else:
            gathered = {owner: set(ids) for owner, ids in (await self._truth.held_by(owned, block_hash)).items()}
        if self._staker is not None:
            gathered.pop(self._staker.at, None)
            for owner, ids in (await self._staker.deposited_by(block_hash)).items():
                if self._everything or owner in owned:
                    gathered.setdefault(owner, set()).update(ids)
        return {holder: frozenset(ids) for holder, ids in gathered.items()}
