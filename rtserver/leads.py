"""The role `engine`: what stands where the hub stands in a single process. Computes nothing itself."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, assert_never

import orjson

from .broker.answering import Answering
from .broker.asks import parse_key
from .broker.leading import Engine, Leader, LeadLimits
from .broker.ports import BrokerAway
from .broker.redis_asks import RedisAsks
from .broker.redis_link import RedisBroker
from .domain.chain import Header
from .domain.errors import ConfigError
from .domain.ids import ChainId
from .domain.shards import ONE, Shards, label_of, named, shard_of
from .domain.update import BlockUpdate
from .edge.earnings import BookEarnings
from .edge.rest import ServedChain
from .history.apart import past_answer
from .history.reading import Histories
from .hub.ledger import Ledger
from .obs.metrics import Metrics
from .protocols.channels import Channel
from .store.values import KeptStream

__all__ = ["Lead", "Leads", "claim_shards", "first_of", "lead_all", "reckoner"]

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
        self._answering: list[Answering] = []

    @property
    def ledger(self) -> Ledger:
        """Return the streams of one of the shards: all are at the same block."""
        return self._ledgers[self._shards.mine[0]]

    @property
    def leaders(self) -> Iterable[Leader]:
        """Return who leads, or stands by, for each shard."""
        return self._leaders.values()

    @property
    def charge(self) -> str | None:
        """Return what proves that this engine is in charge; None while it is not, and of one for any shard."""
        tokens = [leader.token for leader in self._leaders.values()]
        return tokens[0] if len(tokens) == 1 else None

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
        self._links = {shard: broker.chain(self.chain_id, shard, count) for shard in self._ledgers}
        self._leaders = {
            shard: Leader(
                chain_id=self.chain_id,
                name=named(name, label_of(shard, count)),
                kinds=kinds,
                link=self._links[shard],
                ledger=ledger,
                engine=engine,
                metrics=metrics,
                limits=limits,
            )
            for shard, ledger in self._ledgers.items()
        }

    def answer(
        self,
        reckon: Callable[[str], bytes | None],
        first: Callable[[str], Coroutine[Any, Any, None] | None],
        is_at_rest: Callable[[], bool],
        metrics: Metrics,
    ) -> Sequence[Answering]:
        """Return what answers gateways, for each shard that this engine is in charge of; these are to be run.

        Args:
            reckon: Returns the answer to a key as of the newest step.
            first: Returns what is to be waited for before a key is answered for the first time.
            is_at_rest: Returns whether all that is known of the chain is in that.
            metrics: Where answers are counted.
        """
        self._answering = [
            Answering(
                name=leader.name,
                link=RedisAsks(self._links[shard]),
                reckon=reckon,
                first=first,
                head=partial(_head_of, self._ledgers[shard]),
                token=partial(_token_of, leader),
                is_at_rest=is_at_rest,
                metrics=metrics,
            )
            for shard, leader in self._leaders.items()
        ]
        return self._answering

    def publish(self, update: BlockUpdate) -> None:
        """Take a step."""
        self._publish(update)
        for answering in self._answering:
            answering.published()

    def _publish(self, update: BlockUpdate) -> None:
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


def _head_of(ledger: Ledger) -> Header | None:
    return ledger.head


def _token_of(leader: Leader) -> str | None:
    return leader.token


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


def reckoner(
    chain_id: ChainId, kinds: frozenset[str], earnings: BookEarnings, past: Histories | None
) -> Callable[[str], bytes | None]:
    """Return what computes the answers of one chain, as JSON; None for a key that is unknown here."""

    def reckon(key: str) -> bytes | None:
        asked = parse_key(key)
        if asked is None or asked[1] not in kinds:
            return None
        kind, protocol, token_id = asked
        match kind:
            case "brief" | "full":
                return orjson.dumps(dict(earnings.of(chain_id, protocol, token_id, is_brief=kind == "brief")))
            case "past":
                unwritten = None if past is None else past.unwritten(chain_id, protocol, token_id)
                return past_answer(unwritten, is_kept=past is not None)
            case _:
                assert_never(kind)

    return reckon


def first_of(
    chain_id: ChainId, kinds: frozenset[str], earnings: BookEarnings, past: Histories | None
) -> Callable[[str], Coroutine[Any, Any, None] | None]:
    """Return what says what a key's first answer waits for: as in a single process, all that a position earned.

    And for what is on the chain of its past, which an engine that took charge finds out within a second or two: an
    answer is its block's, and the next one may be long in coming.
    """

    def first(key: str) -> Coroutine[Any, Any, None] | None:
        asked = parse_key(key)
        if asked is None or asked[1] not in kinds:
            return None
        if asked[0] == "past":
            return None if past is None else past.proof(chain_id)
        if asked[0] != "full":
            return None
        return earnings.first(chain_id, *asked[1:])

    return first


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
    return [*tasks, group.create_task(_describe_forever(broker, served, count), name="description")]


async def _describe_forever(broker: RedisBroker, served: Mapping[int, ServedChain], count: int) -> None:
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
