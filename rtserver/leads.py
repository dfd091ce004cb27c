"""The role `engine`: what stands where the hub stands in a single process. Computes nothing itself."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from .broker.leading import Engine, Leader, LeadLimits
from .broker.ports import BrokerAway
from .broker.redis_link import RedisBroker
from .domain.chain import Header
from .domain.errors import ConfigError
from .domain.ids import ChainId
from .domain.shards import ONE, Shards, shard_of
from .domain.update import BlockUpdate
from .edge.rest import ServedChain
from .hub.ledger import Ledger
from .obs.metrics import Metrics
from .protocols.channels import Channel
from .store.values import KeptStream

__all__ = ["Lead", "Leads", "claim_shards", "describe_forever", "lead_all"]

# Also after a Redis that was emptied gateways soon know what there is.
_DESCRIBE_S: Final = 5.0


class Lead:
    """One chain's streams and their way out. The engine is made with it, and it with the engine: hence `begin`.

    Args:
        chain_id: The chain.
        shards: Which of its channels are this engine's; each shard has streams, a lease and a run of its own.
    """

    def __init__(self, chain_id: ChainId, shards: Shards = ONE) -> None:
        self.chain_id = chain_id
        self._shards = shards
        self._ledgers = {shard: Ledger(chain_id) for shard in shards.mine}
        self._leaders: dict[int, Leader] = {}

    @property
    def ledger(self) -> Ledger:
        """Return the streams of one of the shards: all are at the same block."""
        return self._ledgers[self._shards.mine[0]]

    @property
    def leaders(self) -> Iterable[Leader]:
        """Return who leads, or stands by, for each shard."""
        return self._leaders.values()

    def begin(
        self,
        name: str,
        kinds: frozenset[str],
        engine: Engine,
        broker: RedisBroker,
        metrics: Metrics,
        limits: LeadLimits | None = None,
    ) -> None:
        """Join the streams to whoever computes and to whoever listens."""
        count = self._shards.count
        self._leaders = {
            shard: Leader(
                chain_id=self.chain_id,
                name=name if count == 1 else f"{name} {shard}/{count}",
                kinds=kinds,
                link=broker.chain(self.chain_id, shard, count),
                ledger=ledger,
                engine=engine,
                metrics=metrics,
                limits=limits,
            )
            for shard, ledger in self._ledgers.items()
        }

    def publish(self, update: BlockUpdate) -> None:
        """Take a step."""
        if len(self._leaders) == 1:
            for leader in self._leaders.values():
                leader.publish(update)
            return
        # Changes of channels that a ledger doesn't have are nobody's to it; what begins or is refused it would take.
        for shard, leader in self._leaders.items():
            leader.publish(
                replace(update, opened=self._part(shard, update.opened), refused=self._part(shard, update.refused))
            )

    def _part(self, shard: int, named: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in named.items() if shard_of(name, self._shards.count) == shard}

    def reopen(self, channel: Channel) -> None:
        """Wish for a channel that an earlier process had open, if it is this one's still."""
        leader = self._leaders.get(shard_of(channel.name, self._shards.count))
        if leader is not None:
            leader.reopen(channel)

    def go_on(self, streams: Mapping[str, KeptStream]) -> None:
        """Do nothing: an engine's streams begin anew with each run."""

    def report(self) -> dict[str, Any]:
        """Return what the health report says: of all shards together, and of each where there are several."""
        reports = {str(shard): leader.report() for shard, leader in self._leaders.items()}
        if self._shards.count == 1:
            return reports["0"]
        return {
            "inCharge": all(one["inCharge"] for one in reports.values()),
            "shardCount": self._shards.count,
            "shards": reports,
        }


class Leads:
    """Where all chains of an engine are, for its health."""

    def __init__(self, leads: Iterable[Lead]) -> None:
        self._ledgers = {lead.chain_id: lead.ledger for lead in leads}

    def head(self, chain_id: ChainId) -> Header | None:
        """Return the newest block."""
        return self._ledgers[chain_id].head

    def head_age_ms(self, chain_id: ChainId) -> int | None:
        """Return its age."""
        return self._ledgers[chain_id].head_age_ms()


async def claim_shards(broker: RedisBroker, chain_id: int, name: str, count: int) -> None:
    """Make sure that nobody leads the chain in another number of shards: gateways would follow the one or the other.

    What is left of another number is deleted.

    Raises:
        ConfigError: Somebody does.
        BrokerAway: Redis does not answer.
    """
    known = (await broker.described()).get(chain_id, {}).get("shards", 1)
    if known == count:
        return
    if await broker.is_led(chain_id, known):
        raise ConfigError(
            f"shard: {name} is spread over {known} by engines that are running, and here over {count}; "
            "stop those first, or give this one the same number"
        )
    await broker.wipe(chain_id, known)


def lead_all(
    group: asyncio.TaskGroup, leads: Iterable[Lead], broker: RedisBroker, served: Mapping[int, ServedChain], count: int
) -> list[asyncio.Task[None]]:
    """Lead, or stand by, in tasks of a group, and say what is followed; a ConfigError ends the group."""
    tasks = [group.create_task(leader.run(), name="leader") for lead in leads for leader in lead.leaders]
    return [*tasks, group.create_task(describe_forever(broker, served, count), name="description")]


async def describe_forever(broker: RedisBroker, served: Mapping[int, ServedChain], count: int = 1) -> None:
    """Say what is followed here, for gateways that have never heard of it.

    Raises:
        ConfigError: Engines disagree in how many shards there are; whoever sees it first ends.
    """
    while True:
        for chain_id, chain in served.items():
            about = {
                "name": chain.name, "protocols": chain.protocols, "headLimitS": chain.head_limit_s, "shards": count,
            }  # fmt: skip
            try:
                await claim_shards(broker, chain_id, chain.name, count)
                await broker.describe(chain_id, about)
            except BrokerAway:
                break  # told by whoever writes steps
        await asyncio.sleep(_DESCRIBE_S)
