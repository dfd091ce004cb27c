"""A client's copies against the chain: every value, by the comparison that `rtserver verify` makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rtserver.chain.rpc import HttpEndpoint
from rtserver.demo.lab import Lab
from rtserver.domain.diff import State
from rtserver.domain.ids import Address
from rtserver.tools.audit import Audit
from rtserver.tools.capture import Job
from rtserver.tools.compare import Difference
from rtserver.tools.staking import StakerTruth
from rtserver.tools.truth import Truth

__all__ = ["AgainstChain"]

_PROTOCOL = "uniswap-v3"


class AgainstChain:
    """Asks the node itself, past all that a test may have put before it."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        deployment = lab.deployment
        self._node = HttpEndpoint(lab.node.http_url, timeout_s=30.0)
        manager, factory = (Address(each.lower()) for each in (deployment.position_manager, deployment.factory))
        self._truth = Truth(self._node, manager, factory)
        self._staker = StakerTruth(self._truth, manager, Address(deployment.staker.lower()))

    async def differences(self, states: Mapping[str, State], least: int = 100) -> list[Difference]:
        """Return what the copies say that the chain doesn't, at the lab's head; `least` values have to be compared."""
        head = self._lab.head
        job = Job(number=head.number, block_hash=head.hash, is_block=True, owned={})
        assert job.owned is not None
        for channel, state in states.items():
            kind, _, rest = channel.partition(":")
            if kind == "head":
                job.heads.append(state["head"])
            elif kind == "pool":
                job.pools.extend((channel, entry) for entry in state.values())
            elif kind == "owner":
                entries: dict[Any, Any] = {int(key.rpartition(":")[2]): entry for key, entry in state.items()}
                job.positions.extend((channel, token_id, entry) for token_id, entry in entries.items())
                job.owned[Address(rest.rpartition(":")[2].lower())] = frozenset(entries)
        found: list[Difference] = []
        audit = Audit(
            self._truth, self._lab.deployment.chain_id, _PROTOCOL, everything=False, limit=10_000,
            on_difference=found.append, on_owner=lambda owner: None, staker=self._staker,
        )  # fmt: skip
        await audit.check(job)
        assert audit.tally.blocks == 1 and audit.tally.values > least, "nothing was compared"
        return found

    async def close(self) -> None:
        """Close the connection to the node."""
        await self._node.close()
