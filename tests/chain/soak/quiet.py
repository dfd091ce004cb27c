"""A quiet point: the faults are over, the chain stands still. Then everything has to be right, and is compared.

What the server says of every channel is compared with the chain by the tools' own code (`rtserver verify --all`),
what every client shows with what its server says.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rtserver.domain.diff import State
from rtserver.domain.ids import Address, ChainId, TokenId
from rtserver.protocols.channels import HeadChannel, OwnerChannel
from rtserver.tools.audit import Audit, Tally
from rtserver.tools.capture import Job, owner_of
from rtserver.wire.checksum import checksum_of

from .served import SoakServer
from .world import SoakChain

__all__ = ["PATIENCE_S", "Checker", "Outcome"]

# Far above what it takes: the longest rest of an endpoint that failed again and again is half of it.
PATIENCE_S: Final = 60.0
_POLL_S: Final = 0.05
# Of the blocks that clients showed since the last quiet point; each costs some hundred calls.
_SHOWN: Final = 6


@dataclass(slots=True)
class Outcome:
    """What a quiet point found; `settled_s` is how long the slowest server took to show the chain's head, and
    `equal_s` how long until the last client had the same."""

    settled_s: float = 0.0
    equal_s: float = 0.0
    channels: int = 0
    copies: int = 0
    shown: int = 0
    gone: int = 0
    values: int = 0
    unknown: int = 0
    differences: list[str] = field(default_factory=list)


class Checker:
    """Compares.

    Args:
        chain: The chain.
        servers: What follows it.
        channels: All that is compared; grows by owners that turn up.
        passing: Channels of positions that may be there or not: minted later, burned, or undone.
        make_audit: Makes the tools' comparison, with its callbacks for differences and for owners nobody watches.
    """

    def __init__(
        self,
        chain: SoakChain,
        servers: Sequence[SoakServer],
        channels: set[str],
        passing: Mapping[str, TokenId],
        make_audit: Any,
    ) -> None:
        self.channels = channels
        self._passing = passing
        self.patience_s = PATIENCE_S
        self.tallies = {server.name: Tally() for server in servers}
        self._chain = chain
        self._servers = servers
        self._chain_id = ChainId(chain.lab.deployment.chain_id)
        self._head = HeadChannel(self._chain_id).name
        self._make_audit = make_audit

    async def check(self) -> Outcome:
        """Wait until all is right, and compare; what never becomes right is a difference."""
        outcome = Outcome()
        began = time.monotonic()
        head = await self._chain.head()
        for server in self._servers:
            await self._settle(server, head, began, outcome)
        outcome.settled_s = time.monotonic() - began
        if outcome.differences:
            return outcome
        for server in self._servers:
            await self._compare_chain(server, head, outcome)
            await self._compare_clients(server, outcome)
            await self._compare_shown(server, outcome)
        outcome.equal_s = time.monotonic() - began
        for server in self._servers:
            for client in server.clients:
                if client.mismatches:
                    outcome.differences.append(f"{client.name}: {client.mismatches} checksums did not match")
        if (await self._chain.head())["hash"] != head["hash"]:
            outcome.differences.append("the chain moved while it was compared: the soak itself is wrong")
        return outcome

    async def _settle(self, server: SoakServer, head: dict[str, Any], began: float, outcome: Outcome) -> None:
        shown: Any = None
        while time.monotonic() - began < self.patience_s:
            answer = await server.snapshot(self._head)
            shown = answer and answer["block"]
            if shown and shown["hash"] == head["hash"]:
                return
            await asyncio.sleep(_POLL_S)
        wanted = f"{int(head['number'], 16)} {head['hash']}"
        text = f"{server.name}: after {self.patience_s:g} s at {shown}, the chain at {wanted}"
        outcome.differences.append(f"{text}: {await server.ready()}")

    async def _all(self, server: SoakServer, head: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Return what the server says of every channel, all of them at the head."""
        found: dict[str, dict[str, Any]] = {}
        until = time.monotonic() + self.patience_s
        for name in sorted(self.channels):
            while not _is_at(answer := await server.snapshot(name), head) and time.monotonic() < until:
                await asyncio.sleep(_POLL_S)
            if answer is not None and _is_at(answer, head):
                found[name] = answer
        for name in self._passing:
            while (answer := await server.snapshot(name)) and not _is_at(answer, head) and time.monotonic() < until:
                await asyncio.sleep(_POLL_S)
            found[name] = answer or {"state": {}}
        return found

    async def _compare_chain(self, server: SoakServer, head: dict[str, Any], outcome: Outcome) -> None:
        """Compare every channel with the chain; owners that turn up meanwhile are compared as well."""
        while True:
            before = len(self.channels)
            found = await self._all(server, head)
            for name in self.channels - found.keys():
                outcome.differences.append(f"{server.name}: no answer of the head for {name}")
            tally = await self._audit(server, head, found, outcome)
            if len(self.channels) == before:
                break
        total = self.tallies[server.name]
        for each in ("blocks", "values", "skipped", "unanswered", "unsteady", "ownership_checks"):
            setattr(total, each, getattr(total, each) + getattr(tally, each))
        total.positions = max(total.positions, tally.positions)
        outcome.values += tally.values
        outcome.channels += len(found)
        if tally.skipped:
            outcome.differences.append(f"{server.name}: the node does not know the block that it is compared at")

    async def _audit(
        self, server: SoakServer, head: dict[str, Any], found: dict[str, dict[str, Any]], outcome: Outcome
    ) -> Tally:
        job = Job(number=int(head["number"], 16), block_hash=head["hash"], owned={}, is_block=True)
        for name, answer in found.items():
            state: State = answer["state"]
            if name.startswith("pool:"):
                job.pools += [(name, entry) for entry in state.values()]
            elif name == self._head:
                job.heads.append(state["head"])
                job.tags += [(tag, entry) for tag, entry in state.items() if tag != "head"]
            elif (token_id := self._passing.get(name)) is not None:
                job.positions += [(name, token_id, entry) for entry in state.values()]
                if not state:
                    job.gone.append((name, token_id))
            elif (owner := owner_of(name)) is not None:
                ids = {key: TokenId(int(key.rpartition(":")[2])) for key in state}
                job.positions += [(name, ids[key], state[key]) for key in state]
                assert job.owned is not None
                job.owned[owner] = frozenset(ids.values())
        outcome.unknown += sum(entry["isStaked"] is True and entry["rewards"] is None for _, _, entry in job.positions)
        new: set[str] = set()
        audit: Audit = self._make_audit(
            lambda one: outcome.differences.append(f"{server.name}: {one}"),
            lambda owner: new.add(OwnerChannel(self._chain_id, Address(owner)).name),
        )
        await audit.check(job)
        self.channels |= new
        return audit.tally

    async def _compare_shown(self, server: SoakServer, outcome: Outcome) -> None:
        """Compare some of what clients showed on the way, each with the chain at its own block.

        A state may be late, but never wrong. Blocks that have left the chain meanwhile can't be asked about.
        """
        shown = [job for client in server.clients for job in client.take_shown() if job.number >= self._chain.floor]
        every = max(len(shown) // _SHOWN, 1)
        audit: Audit = self._make_audit(
            lambda one: outcome.differences.append(f"{server.name}, on the way: {one}"), lambda owner: None
        )
        for job in shown[::every]:
            await audit.check(job)
        outcome.shown += audit.tally.blocks
        outcome.gone += audit.tally.skipped
        outcome.values += audit.tally.values
        self.tallies[server.name].unsteady += audit.tally.unsteady

    async def _compare_clients(self, server: SoakServer, outcome: Outcome) -> None:
        """Wait until every client's copy is what its server says, by value and by checksum."""
        until = time.monotonic() + self.patience_s
        waiting = [(client, name) for client in server.clients for name in sorted(client.wishes)]
        outcome.copies += len(waiting)
        while True:
            said = {name: await server.snapshot(name) for name in {name for _, name in waiting}}
            waiting = [
                (client, name)
                for client, name in waiting
                if not _is_equal(client.states.get(name), said[name], may_be_gone=name in self._passing)
            ]
            if not waiting:
                return
            if time.monotonic() > until:
                for client, name in waiting[:20]:
                    ours, theirs = client.states.get(name), said[name]
                    outcome.differences.append(f"{client.name}: {name} is {_differing(ours, theirs)}")
                return
            await asyncio.sleep(_POLL_S)


def _is_at(answer: dict[str, Any] | None, head: dict[str, Any]) -> bool:
    """Return whether an answer is of the head. A block that the chain has just lost may be told for a while yet."""
    return answer is not None and answer["block"]["hash"] == head["hash"]


def _is_equal(state: State | None, said: dict[str, Any] | None, *, may_be_gone: bool) -> bool:
    if may_be_gone and not state and not (said and said["state"]):
        return True  # refused as not there, or there and empty: a client that came later was refused
    if state is None or said is None:
        return False
    theirs: State = said["state"]
    return state == theirs and checksum_of(state) == int(said["checksum"])


def _differing(state: State | None, said: dict[str, Any] | None) -> str:
    if state is None or said is None:
        return "not shown" if state is None else "not served"
    theirs = said["state"]
    keys = [key for key in state.keys() | theirs.keys() if state.get(key) != theirs.get(key)]
    return f"not the server's in {keys[:5]}, at {said['block']}, seq {said['seq']}"
