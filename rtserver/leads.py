"""The role `engine`: what stands where the hub stands in a single process. Computes nothing itself."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

from .broker.leading import Engine, Leader
from .broker.ports import BrokerAway, ChainLink
from .broker.redis_link import RedisBroker
from .domain.chain import Header
from .domain.ids import ChainId
from .domain.update import BlockUpdate
from .edge.rest import ServedChain
from .hub.ledger import Ledger
from .obs.metrics import Metrics
from .protocols.channels import Channel
from .store.values import KeptStream

__all__ = ["Lead", "Leads", "describe_forever"]

# Also after a Redis that was emptied gateways soon know what there is.
_DESCRIBE_S: Final = 5.0


class Lead:
    """One chain's streams and their way out. The engine is made with it, and it with the engine: hence `begin`."""

    def __init__(self, chain_id: ChainId) -> None:
        self.chain_id = chain_id
        self.ledger = Ledger(chain_id)

    def begin(self, name: str, kinds: frozenset[str], engine: Engine, link: ChainLink, metrics: Metrics) -> None:
        """Join the streams to whoever computes and to whoever listens."""
        self.leader = Leader(
            chain_id=self.chain_id,
            name=name,
            kinds=kinds,
            link=link,
            ledger=self.ledger,
            engine=engine,
            metrics=metrics,
        )

    def publish(self, update: BlockUpdate) -> None:
        """Take a step."""
        self.leader.publish(update)

    def reopen(self, channel: Channel) -> None:
        """Wish for a channel that an earlier process had open."""
        self.leader.reopen(channel)

    def go_on(self, streams: Mapping[str, KeptStream]) -> None:
        """Do nothing: an engine's streams begin anew with each run."""


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


async def describe_forever(broker: RedisBroker, served: Mapping[int, ServedChain]) -> None:
    """Say what is followed here, for gateways that have never heard of it."""
    while True:
        for chain_id, chain in served.items():
            about = {"name": chain.name, "protocols": chain.protocols, "headLimitS": chain.head_limit_s}
            try:
                await broker.describe(chain_id, about)
            except BrokerAway:
                break  # told by whoever writes steps
        await asyncio.sleep(_DESCRIBE_S)
