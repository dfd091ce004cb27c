"""A mirror is the engine's stream seen from elsewhere: same places, same state, same proof, from wherever it began."""

from __future__ import annotations

import copy
import random

import msgspec
import orjson
import pytest

from rtserver.broker.steps import NO_SHAPE, Held, Snapshot, decode_entry, encode_entry
from rtserver.broker.steps import Step as BrokerStep
from rtserver.domain.chain import BlockRef, Rollback
from rtserver.domain.diff import Change, EncodedPatch, State, apply
from rtserver.domain.errors import PermanentError
from rtserver.domain.update import BlockUpdate, LonePatches
from rtserver.hub.ledger import Ledger
from rtserver.hub.mirror import Mirror, leads_on
from rtserver.hub.stream import RING_ENTRIES
from rtserver.wire.cursor import parse_cursor

from .stage import CHAIN, channel, header

NAME = channel(1).name


class Engine:
    """A ledger with one channel, what Redis would hold of it, and every state that it has had."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.number = 100
        self.ledger = Ledger(CHAIN, clock=lambda: self.now, wall_ms=lambda: int(self.now * 1000))
        state: State = {"0": {"value": "0", "inner": {"a": 1}}}
        step = self.ledger.take(BlockUpdate(chain_id=CHAIN, header=header(self.number), opened={NAME: state}))
        self.snapshot = step.snapshots[NAME]
        self.entries = list(step.entries.values())
        self.states: dict[int, State] = {0: copy.deepcopy(state)}

    def say(
        self,
        change: Change | None = None,
        lone: EncodedPatch | None = None,
        patched: dict[str, EncodedPatch] | None = None,
        rollback: Rollback | None = None,
    ) -> BrokerStep:
        """Publish a step; what is too old leaves the history as it does in Redis."""
        self.number += 1
        self.now += 0.25
        update = BlockUpdate(chain_id=CHAIN, header=header(self.number), rollback=rollback)
        if change:
            update.changes[NAME] = change
        if lone:
            update.lone.append(LonePatches(lone[0], [NAME], [lone[1]]))
        if patched:
            update.patched[NAME] = patched
        step = self.ledger.take(update)
        for name, entry in step.entries.items():
            self.entries.append(decode_entry(encode_entry(entry)))
            self.snapshot = step.snapshots.get(name, self.snapshot)
            self.entries = [one for one in self.entries if one.seq >= step.oldest[name]]
        stream = self.ledger.streams[NAME]
        self.states[stream.seq] = copy.deepcopy(stream.state)
        return step

    def held(self) -> Held:
        return Held(snapshot=self.snapshot, entries=list(self.entries))

    def mirror(self) -> Mirror:
        return Mirror(NAME, CHAIN, self.held(), int(self.now * 1000), lambda: self.now)

    def random_step(self, chance: random.Random) -> BrokerStep:
        state = self.ledger.streams[NAME].state
        change = Change()
        for key in "012":
            roll = chance.random()
            if roll < 0.2:
                change.set[key] = {"value": None, "inner": {"a": chance.randrange(9)}, "is": [1, "é"]}
            elif roll < 0.6 and key in state:
                change.patch[key] = {"value": str(roll), f"f{chance.randrange(4)}": chance.randrange(99)}
            elif roll < 0.7 and key in state:
                change.remove.append(key)
        if chance.random() < 0.1:
            to = BlockRef(number=1, hash=header(1).hash)
            return self.say(change, rollback=Rollback(to=to, dropped=(header(self.number).hash,)))
        roll = chance.random()
        if len(state) == 1 and roll < 0.4:
            return self.say(lone=random_text(chance))
        if len(state) > 1 and roll < 0.4:
            some = chance.sample(sorted(state), chance.randrange(1, len(state)))
            return self.say(patched={key: random_text(chance) for key in some})
        if roll < 0.5:
            # A patch in text beside objects.
            texts = {
                key: random_text(chance) for key in state if key not in {*change.set, *change.patch, *change.remove}
            }
            return self.say(change, patched=texts)
        return self.say(change)


def random_text(chance: random.Random) -> EncodedPatch:
    """Return a patch of some fields of which each has its bit."""
    names = chance.sample(["value", "f1", "f2"], chance.randrange(1, 4))
    patch = {name: str(chance.random()) for name in names}
    return sum({"value": 1, "f1": 2, "f2": 4}[name] for name in names), orjson.dumps(patch).decode()


def assert_same(mirror: Mirror, engine: Engine) -> None:
    stream = engine.ledger.streams[NAME]
    assert (mirror.epoch, mirror.seq, mirror.cursor) == (stream.epoch, stream.seq, stream.cursor)
    assert mirror.state == stream.state
    assert mirror.checksum() == stream.checksum()
    assert not mirror.is_broken


@pytest.mark.parametrize("seed", range(20))
def test_a_mirror_follows_and_leads_on_from_every_place_of_the_ring(seed: int) -> None:
    chance = random.Random(seed)
    engine = Engine()
    for _ in range(chance.randrange(150)):
        engine.random_step(chance)
    mirrors = [engine.mirror()]
    for index in range(60):
        step = engine.random_step(chance)
        for mirror in mirrors:
            for entry in step.entries.values():
                assert leads_on(mirror.epoch, mirror.seq, [entry])
                mirror.take(entry, engine.now)
        if index % 20 == 7:
            mirrors.append(engine.mirror())
    stream = engine.ledger.streams[NAME]
    for mirror in mirrors:
        assert_same(mirror, engine)
        # Whoever began late has as long a history as the engine.
        assert mirror.oldest_seq <= max(stream.oldest_seq + 1, 1)
        for seq, before in engine.states.items():
            merged = mirror.since(seq)
            if merged is None:
                assert seq < mirror.oldest_seq
                continue
            after = copy.deepcopy(before)
            apply(after, merged)
            assert after == stream.state
            assert [one.dropped for one in mirror.rollbacks_since(seq)] == [
                one.dropped for one in stream.rollbacks_since(seq)
            ]


def test_of_changes_that_leave_nothing_of_each_other_one_is_parsed() -> None:
    engine = Engine()
    mirror = engine.mirror()
    said = [engine.say(lone=(fields, f'{{"value":"{fields}"}}')) for fields in (1, 3, 1, 1)]
    said += [engine.say(patched={"0": (fields, f'{{"value":"{fields}"}}')}) for fields in (1, 1)]
    entries = [step.entries[NAME] for step in said]
    shapes = [entry.shape for entry in entries]
    assert len(set(shapes)) == 3 and shapes[0] == shapes[2] == shapes[3] and shapes[4] == shapes[5]
    # What is not the last of its shape may as well be unreadable.
    last = {entry.shape: entry.seq for entry in entries}
    for entry in entries:
        unread = msgspec.structs.replace(entry, fragment="?")
        mirror.take(entry if last[entry.shape] == entry.seq else unread, engine.now)
    assert mirror.state == engine.ledger.streams[NAME].state


def test_an_entry_that_sets_or_removes_has_no_shape() -> None:
    engine = Engine()
    beside: dict[str, EncodedPatch] = {"0": (1, '{"value":"1"}')}
    for step in (
        engine.say(Change(set={"1": {"value": "1"}})),
        engine.say(Change(patch={"1": {"value": "2"}}), patched=beside),
        engine.say(Change(remove=["1"]), patched=beside),
        engine.say(rollback=Rollback(to=BlockRef(number=1, hash=header(1).hash), dropped=(header(9).hash,))),
    ):
        assert step.entries[NAME].shape == NO_SHAPE


def test_the_history_is_as_long_as_the_ring_and_no_longer() -> None:
    engine = Engine()
    for value in range(3 * RING_ENTRIES):
        engine.say(Change(patch={"0": {"value": str(value)}}))
    assert RING_ENTRIES <= len(engine.entries) <= RING_ENTRIES + 64
    mirror = engine.mirror()
    assert_same(mirror, engine)
    assert mirror.oldest_seq == engine.ledger.streams[NAME].oldest_seq
    cursor = parse_cursor(f"{mirror.epoch}.{mirror.oldest_seq}.{header(100 + mirror.oldest_seq).hash[2:18]}")
    assert cursor is not None and mirror.resumable(cursor)


def test_a_slow_chain_keeps_its_history_by_time() -> None:
    engine = Engine()
    for value in range(50):
        engine.now += 12
        engine.say(Change(patch={"0": {"value": str(value)}}))
    assert len(engine.entries) <= 24
    mirror = engine.mirror()
    assert_same(mirror, engine)
    assert mirror.oldest_seq == engine.ledger.streams[NAME].oldest_seq


def test_a_copy_that_differs_from_the_engines_is_found_by_the_next_proof() -> None:
    engine = Engine()
    mirror = engine.mirror()
    mirror.state["0"]["value"] = "altered"
    mirror._stale.add("0")
    for value in range(16):
        for entry in engine.say(Change(patch={"0": {"other": str(value)}})).entries.values():
            mirror.take(entry, engine.now)
    assert mirror.is_broken
    mirror.replace(engine.held(), int(engine.now * 1000), engine.now)
    assert_same(mirror, engine)


def test_a_history_with_a_gap_or_without_a_beginning_is_none() -> None:
    engine = Engine()
    for value in range(5):
        engine.say(Change(patch={"0": {"value": str(value)}}))
    whole = engine.held()
    snapshot = Snapshot(epoch=engine.snapshot.epoch, seq=0, tag="t", at_ms=0, state=b"{")
    for held in (
        Held(snapshot=whole.snapshot, entries=[*whole.entries[:1], *whole.entries[2:]]),
        Held(snapshot=None, entries=whole.entries),
        Held(snapshot=snapshot, entries=[]),
    ):
        with pytest.raises(PermanentError):
            Mirror(NAME, CHAIN, held, 0, lambda: 0.0)


def test_of_removed_keys_only_those_that_the_ring_left_behind_are_forgotten() -> None:
    engine = Engine()
    engine.say(Change(set={f"k{number}": {"value": "1"} for number in range(200)}))
    mirror = engine.mirror()
    for number in range(200):
        for entry in engine.say(Change(remove=[f"k{number}"])).entries.values():
            mirror.take(entry, engine.now)
    merged = mirror.since(1)
    assert merged is not None and len(merged.remove) == 200
    for _ in range(2 * RING_ENTRIES):
        for entry in engine.say(Change(set={"k": {"value": "2"}}, remove=["k0"])).entries.values():
            mirror.take(entry, engine.now)
    assert len(mirror._gone) < 100
    assert_same(mirror, engine)
