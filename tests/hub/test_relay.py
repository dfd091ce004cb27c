"""When a gateway follows, when it heals, and that nothing is told under a block that it is not of."""

from __future__ import annotations

from typing import Any

import pytest

from rtserver.broker.memory import MemoryLink
from rtserver.broker.ports import Reading
from rtserver.broker.steps import Heard
from rtserver.domain.diff import Change, State
from rtserver.domain.errors import ClientError
from rtserver.domain.update import BlockUpdate
from rtserver.hub import relay as relay_module
from rtserver.hub.hub import Hub
from rtserver.hub.ledger import Ledger
from rtserver.hub.limits import Limits
from rtserver.hub.relay import Relay
from rtserver.obs.metrics import Metrics

from .stage import CHAIN, Client, channel, header

A, B, C = channel(1), channel(2), channel(3)
TTL_MS = 10_000


class Gateway:
    """A relay whose line and reads are moved by hand; an engine that the test plays, and what joins them."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.link = MemoryLink(lambda: self.now)
        self.ledger = Ledger(CHAIN, clock=lambda: self.now, wall_ms=lambda: int(self.now * 1000))
        self.token, self.number, self.head = "", 0, 100
        self.heard: list[Heard] = []
        metrics = Metrics()
        clock = lambda: self.now  # noqa: E731
        self.relay = Relay(CHAIN, "test", None, metrics, clock)  # type: ignore[arg-type]
        self.hub = self.relay._hub = Hub(self.relay, Limits(), metrics, clock, lambda: 42)

    # --- the engine -----------------------------------------------------------------------------------

    async def begin(self, *names: str) -> None:
        """Take charge and begin a run with what the ledger holds, and these."""
        self.token = await self.link.acquire("e", TTL_MS) or ""
        self.number = 0
        if self.ledger.head is None:
            self.ledger.take(BlockUpdate(chain_id=CHAIN, header=header(self.head)))
        opened: dict[str, State] = {name: {"0": {"value": "0"}} for name in names}
        self.ledger.take(BlockUpdate(chain_id=CHAIN, header=header(self.head), opened=opened, is_new_head=False))
        for step in self.ledger.begin_run():
            await self._write(step)

    async def say(self, value: str = "", *names: str, opened: str = "", **more: Any) -> None:
        """Publish a block."""
        self.head += 1
        update = BlockUpdate(chain_id=CHAIN, header=header(self.head), **more)
        update.changes.update({name: Change(patch={"0": {"value": value}}) for name in names})
        if opened:
            update.opened[opened] = {"0": {"value": value}}
        await self._write(self.ledger.take(update))

    async def _write(self, step: Any) -> None:
        told: list[Heard] = []
        vars(self.link)["_tell"] = told.append
        self.number += 1
        await self.link.publish(self.token, self.number, step)
        self.heard += told

    # --- the line -------------------------------------------------------------------------------------

    def deliver(self, count: int = 1000) -> None:
        """Let the gateway hear what was published, or a part."""
        told, self.heard = self.heard[:count], self.heard[count:]
        for one in told:
            self.relay.hear(one)

    def lose(self) -> None:
        """Lose what was published and not heard."""
        self.heard.clear()

    def is_live(self) -> bool:
        return self.relay.is_live

    def beat(self) -> None:
        self.relay.hear(Heard(run=self.token, number=self.number, is_beat=True))

    async def announce(self) -> None:
        while any(wishes := self.relay.next_wishes()) or not self.relay.is_leased:
            are_all_there = await self.link.announce("g", *wishes, TTL_MS)
            self.relay.announced(*wishes, self.now + TTL_MS / 1000, are_all_there=are_all_there)

    async def read_once(self) -> bool:
        places = self.relay.next_read()
        if places is not None:
            self.relay.read(await self.link.read(places))
        return places is not None

    async def settle(self) -> None:
        """Announce, read and hear until there is nothing more to do."""
        self.now += 0.3
        await self.announce()
        while await self.read_once():
            self.deliver()
            await self.announce()
        self.deliver()

    # --- clients --------------------------------------------------------------------------------------

    def client(self, *wanted: Any) -> Client:
        client = Client(self, "client")  # type: ignore[arg-type]
        for index, one in enumerate(wanted):
            client.subscribe(one, index)
        return client


@pytest.fixture
async def gateway() -> Gateway:
    """A gateway in a run with A and B, listening."""
    one = Gateway()
    await one.begin(A.name, B.name)
    one.relay.listen()
    await one.settle()
    assert one.is_live()
    return one


def value(client: Client, of: Any = A) -> str:
    return str(client.state(of)["0"]["value"])


async def joined(gateway: Gateway, *wanted: Any) -> Client:
    client = gateway.client(*wanted)
    await gateway.settle()
    client.read()
    assert set(client.replica.states) == {one.name for one in wanted}
    return client


async def test_a_missed_step_is_healed_by_one_merged_change(gateway: Gateway) -> None:
    client = await joined(gateway, A)
    await gateway.say("lost", A.name)
    gateway.lose()
    await gateway.say("later", A.name)
    gateway.deliver()
    assert not gateway.is_live()
    client.read()
    assert not client.replica.blocks
    await gateway.settle()
    assert gateway.is_live()
    assert value(client) == "later"
    (frame,) = client.replica.blocks
    assert (frame["changes"][0]["prev"], frame["changes"][0]["seq"]) == (0, 2)
    assert "checksum" in frame["changes"][0]


async def test_a_beat_tells_of_a_last_step_that_was_missed(gateway: Gateway) -> None:
    client = await joined(gateway, A)
    gateway.beat()
    assert gateway.is_live()
    await gateway.say("last", A.name)
    gateway.lose()
    gateway.beat()
    await gateway.settle()
    assert value(client) == "last"


async def test_what_was_read_of_a_later_step_opens_when_that_is_heard(gateway: Gateway) -> None:
    await gateway.announce()
    await gateway.say("one", A.name)
    client = gateway.client(A)
    await gateway.announce()
    await gateway.read_once()
    client.read()
    # The state is of a block that this gateway is not at yet.
    assert A.name not in client.replica.states
    gateway.deliver()
    assert value(client) == "one"
    assert gateway.hub.head(CHAIN) == header(gateway.head)


async def test_what_changed_while_it_was_read_is_replayed(gateway: Gateway) -> None:
    client = gateway.client(A)
    await gateway.announce()
    places = gateway.relay.next_read()
    assert places is not None
    reading = await gateway.link.read(places)
    await gateway.say("meanwhile", A.name)
    gateway.deliver()
    gateway.relay.read(reading)
    assert value(client) == "meanwhile"
    assert client.replica.places[A.name][1] == 1


async def test_a_read_in_parts_is_led_to_one_step(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "_READ_CHANNELS", 1)
    client = await joined(gateway, A, B)
    gateway.relay.deafen()
    await gateway.say("one", A.name, B.name)
    gateway.lose()
    gateway.relay.listen()
    await gateway.announce()
    gateway.now += 1
    assert await gateway.read_once()
    await gateway.say("two", A.name, B.name)
    assert await gateway.read_once()
    assert not gateway.is_live()
    gateway.deliver()
    assert gateway.is_live()
    assert (value(client, A), value(client, B)) == ("two", "two")
    assert gateway.hub.head(CHAIN) == header(gateway.head)
    client.read()
    assert len(client.replica.blocks) == 1


async def test_a_run_that_is_not_complete_is_not_entered(gateway: Gateway) -> None:
    client = await joined(gateway, A)
    before = gateway.hub.head(CHAIN)
    gateway.token = await gateway.link.acquire("e", TTL_MS) or ""
    gateway.head += 1
    gateway.ledger.take(BlockUpdate(chain_id=CHAIN, header=header(gateway.head)))
    (step,) = gateway.ledger.begin_run()
    step.is_complete = False
    gateway.number = 0
    await gateway._write(step)
    await gateway.settle()
    assert not gateway.is_live()
    assert gateway.hub.head(CHAIN) == before
    gateway.now += 5
    assert (gateway.hub.head_age_ms(CHAIN) or 0) >= 5000
    await gateway.say("complete", A.name)
    gateway.deliver()
    await gateway.settle()
    assert gateway.is_live()
    assert value(client) == "complete"
    assert client.replica.places[A.name][0] == gateway.ledger.streams[A.name].epoch


async def test_a_channel_that_a_new_run_lacks_is_waited_for(gateway: Gateway) -> None:
    client = await joined(gateway, A, B)
    gateway.ledger.forget([B.name])
    await gateway.begin()
    gateway.deliver()
    await gateway.settle()
    assert gateway.is_live()
    assert list(client.session.joined) == [A.name]
    assert list(client.session.pending) == [B.name]
    await gateway.say("again", opened=B.name)
    gateway.deliver()
    await gateway.settle()
    assert value(client, B) == "again"


async def test_nothing_is_told_once_the_wishes_may_have_expired(gateway: Gateway) -> None:
    client = await joined(gateway, A)
    gateway.now += TTL_MS / 1000 + 1
    await gateway.say("stale?", A.name)
    gateway.deliver()
    assert not gateway.is_live()
    # Not even read before the engine knows of us: it may close what we read.
    assert gateway.relay.next_read() is None
    assert not await gateway.link.announce("g", [], [], TTL_MS)
    gateway.relay.announced([], [], gateway.now + 9, are_all_there=False)
    assert gateway.relay.next_wishes() == ([A.name], [])
    await gateway.settle()
    assert gateway.is_live()
    assert value(client) == "stale?"


async def test_a_channel_is_not_read_before_its_wish_is_known(gateway: Gateway) -> None:
    gateway.client(A)
    assert gateway.relay.next_read() is None
    await gateway.announce()
    assert gateway.relay.next_read() == {A.name: None}


async def test_steps_that_come_faster_than_a_read_end_it(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "_MAX_KEPT", 3)
    client = await joined(gateway, B)
    gateway.client(A)
    await gateway.announce()
    assert gateway.relay.next_read() is not None
    for number in range(5):
        await gateway.say(str(number), A.name, B.name)
    gateway.deliver()
    gateway.relay.read(Reading())
    assert not gateway.is_live()
    await gateway.settle()
    assert value(client, B) == "4"


async def test_a_copy_that_differs_is_read_again_as_a_whole(gateway: Gateway) -> None:
    client = await joined(gateway, A)
    mirror = gateway.relay._mirrors[A.name]
    mirror.state["0"]["more"] = "altered here"
    mirror._stale.add("0")
    for number in range(16):
        await gateway.say(str(number), A.name)
    gateway.deliver()
    await gateway.settle()
    assert mirror.state == gateway.ledger.streams[A.name].state
    client.read()
    assert client.replica.states[A.name] == mirror.state


async def test_a_refusal_reaches_whoever_asked_and_takes_the_wish_back(gateway: Gateway) -> None:
    client = gateway.client(C)
    await gateway.settle()
    await gateway.say(refused={C.name: ClientError("bad_channel", "no")})
    gateway.deliver()
    client.read()
    assert client.replica.reply(0)["code"] == "bad_channel"
    assert gateway.relay.next_wishes() == ([], [C.name])


async def test_a_new_run_is_not_entered_before_it_is_wished_for_there(gateway: Gateway) -> None:
    client = await joined(gateway, A)
    gateway.link.wipe()
    await gateway.begin()
    gateway.deliver()
    assert not gateway.is_live()
    # Nobody wishes for anything here yet: what its engine closes now is told to nobody.
    assert not await gateway.read_once()
    assert await gateway.link.close(gateway.token, [A.name]) == [A.name]
    gateway.ledger.forget([A.name])
    await gateway.say("of others")
    gateway.deliver()
    before = gateway.head - 1
    assert gateway.hub.head(CHAIN) == header(before)
    await gateway.settle()
    assert list(client.session.joined) == []
    await gateway.say("anew", opened=A.name)
    gateway.deliver()
    await gateway.settle()
    assert value(client) == "anew"


async def test_a_run_that_is_read_of_first_is_wished_for_first(gateway: Gateway) -> None:
    client = await joined(gateway, A)
    gateway.relay.deafen()
    gateway.relay.listen()
    await gateway.announce()
    gateway.link.wipe()
    await gateway.begin()
    gateway.lose()
    assert await gateway.read_once()
    assert not gateway.is_live()
    gateway.now += 1
    assert not await gateway.read_once()
    await gateway.settle()
    assert gateway.is_live()
    assert A.name in (await gateway.link.interests()).added
    assert value(client) == "0"
