"""Clients that come, lag, leave and resume in any order: their copies always equal the truth."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rtserver.domain.diff import Change
from rtserver.hub.session import LAG_BYTES
from rtserver.protocols.channels import PositionChannel

from .replica import Replica
from .stage import OTHER_CHAIN, Client, Stage, channel

CHANNELS = (channel(1), channel(2), channel(3, OTHER_CHAIN))
ONE = st.sampled_from(CHANNELS)
WHO = st.integers(0, 2)
KEYS = st.sampled_from(["0", "1", "é"])
OBJECTS = st.fixed_dictionaries({"value": st.text(max_size=3), "inner": st.just({"a": 2})})


class Sessions(RuleBasedStateMachine):
    """A hub with three clients."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage()
        self.stage.start()
        self.stage.open(*CHANNELS, size=2)
        self.clients: list[Client] = [self.stage.client(str(index)) for index in range(3)]

    @rule(who=WHO, one=ONE, latest=st.booleans())
    def subscribe(self, who: int, one: PositionChannel, latest: bool) -> None:
        client = self.clients[who]
        client.subscribe(one, latest=latest)

    @rule(who=WHO, one=ONE)
    def unsubscribe(self, who: int, one: PositionChannel) -> None:
        self.stage.hub.unsubscribe(self.clients[who].session, one, None)

    @rule(who=WHO, one=ONE)
    def resync(self, who: int, one: PositionChannel) -> None:
        self.stage.hub.resync(self.clients[who].session, one, None)

    @rule(one=ONE, key=KEYS, value=OBJECTS)
    def set_object(self, one: PositionChannel, key: str, value: dict[str, object]) -> None:
        self.stage.change(one, Change(set={key: value}))  # type: ignore[dict-item]

    @rule(one=ONE, key=KEYS, text=st.text(max_size=3))
    def patch_object(self, one: PositionChannel, key: str, text: str) -> None:
        if key in self.stage.truth[one.name]:
            self.stage.change(one, Change(patch={key: {"value": text}}))

    @rule(one=ONE, key=KEYS, text=st.text(max_size=3), also_block=st.booleans())
    def patch_as_text(self, one: PositionChannel, key: str, text: str, also_block: bool) -> None:
        if key in self.stage.truth[one.name]:
            self.stage.patch_text(one, key, text, also_block=also_block)

    @rule(one=ONE, key=KEYS)
    def remove_object(self, one: PositionChannel, key: str) -> None:
        self.stage.change(one, Change(remove=[key]))

    @rule(depth=st.integers(1, 3), one=ONE)
    def reorg(self, depth: int, one: PositionChannel) -> None:
        changed = (one,) if "0" in self.stage.truth[one.name] else ()
        self.stage.reorg(depth, *changed, chain_id=one.chain_id)

    @rule(who=WHO, size=st.sampled_from([0, 1, LAG_BYTES + 1]))
    def fill_or_drain(self, who: int, size: int) -> None:
        self.clients[who].unsent = size

    @rule(seconds=st.sampled_from([0.1, 5.0]))
    def pass_time(self, seconds: float) -> None:
        self.stage.later(seconds)
        for client in self.clients:
            client.session.awaiting_pong_since = None

    @rule(who=WHO, keep=st.booleans())
    def reconnect(self, who: int, keep: bool) -> None:
        old = self.clients[who]
        old.read()
        self.stage.hub.close(old.session)
        new = self.clients[who] = self.stage.client(str(who))
        if keep:
            new.replica = Replica()
            new.replica.states, new.replica.places = old.replica.states, old.replica.places
            for one in CHANNELS:
                if one.name in old.replica.cursors:
                    new.subscribe(one, cursor=old.replica.cursors[one.name])

    @invariant()
    def copies_are_consistent(self) -> None:
        for client in self.clients:
            client.read()
            for one in CHANNELS:
                held_back = client.session.lag_since is not None or client.session.held
                if one.name in client.session.joined and not held_back:
                    assert client.replica.states[one.name] == self.stage.truth[one.name]

    def teardown(self) -> None:
        for client in self.clients:
            client.unsent = 0
        self.stage.later(0.1)
        alive = [client for client in self.clients if not client.codes]
        self.stage.assert_same(*alive)


Sessions.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
    database=None,
    derandomize=True,
)
test_sessions = Sessions.TestCase
