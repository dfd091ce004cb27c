"""Checks what was captured against the chain, one block after the other, and keeps the tally.

It asks the oracle and compares; it neither listens to the server nor prints.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from ..domain.ids import Address, TokenId
from ..protocols.addresses import checksum
from .capture import Job, owner_of
from .compare import Difference, Findings, compare_head, compare_pool, compare_position, differences
from .truth import BlockGone, Truth

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
    ) -> None:
        self.tally = Tally()
        self._truth = truth
        self._chain_id = chain_id
        self._protocol = protocol
        self._everything = everything
        self._limit = limit
        self._on_difference = on_difference
        self._on_owner = on_owner
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
        truths = await self._truth.positions(ids, job.block_hash)

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
            note(f"{token_id} in {channel}", findings)
        for channel, token_id in job.gone:
            truth = truths[token_id]
            note(f"{token_id} in {channel}", self._compare_gone(channel, None if truth is None else truth.holder))
        for channel, entry in job.pools:
            pool = Address(channel.rpartition(":")[2].lower())
            tokens = self._truth.tokens_of(pool)
            if tokens is not None:
                whole = await self._truth.pools([pool], job.block_hash, whole=True)
                note(channel, compare_pool(entry, whole[pool], self._chain_id, tokens))
        for entry in job.heads:
            note("head", compare_head(entry, await self._truth.require(job.block_hash)))
        if job.owned is not None:
            note_owners = await self._compare_owners(job, job.owned)
            for owner, findings in note_owners.items():
                note(f"owner {checksum(owner)}", findings)
        return found, values, unanswered

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
        if not self._everything:
            return await self._truth.held_by(owned, block_hash)
        gathered: dict[Address, set[TokenId]] = {}
        for token_id, holder in (await self._truth.holders(block_hash, self._limit)).items():
            gathered.setdefault(holder, set()).add(token_id)
        return {holder: frozenset(ids) for holder, ids in gathered.items()}
