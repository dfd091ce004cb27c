"""Lone patches say and leave exactly what the same patches do one by one, whatever comes between them."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from rtserver.domain.diff import Change, JsonObject
from rtserver.domain.ids import ChainId
from rtserver.domain.update import LonePatches
from rtserver.hub.stream import RING_S, Encoder, Stream, apply_lone
from rtserver.wire.cursor import Cursor

NAME, KEY = "position:1:uniswap-v3:7", "7"
FIRST: JsonObject = {"a": "0", "b": 0, "c": None}
# (what, fields, seconds since the last step). A text has the fields a (1) and b (2) by its bits.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["text", "text", "text", "text", "prove", "set", "patch", "nothing", "ask", "away"]),
        st.integers(1, 3),
        st.sampled_from([0.5, 12.0, RING_S / 2, RING_S + 1]),
    ),
    max_size=40,
)


class Pair:
    """Two streams with the same past: one takes texts alone, one with all others in one loop."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.one, self.many = (
            Stream(NAME, ChainId(1), "e", {KEY: dict(FIRST)}, "0x" + "0" * 64, lambda: self.now) for _ in range(2)
        )
        self.number = 0
        self.places = [Cursor("e", 0, "0" * 16)]

    def step(self, what: str, fields: int, seconds: float) -> None:
        self.number += 1
        self.now += seconds
        step = f"{self.number:016x}", self.now
        patch = {name: str(self.number) for bit, name in ((1, "a"), (2, "b")) if fields & bit}
        match what:
            case "text" | "prove":
                text, prove = json.dumps(patch), what == "prove"
                said = self.one.apply(None, step, Encoder(), prove=prove, patched={KEY: (fields, text)})
                told: list[Stream] = []
                batches = [LonePatches(fields, ["another", NAME], [text, text])]
                apply_lone({NAME: self.many}, batches, step, told, prove=prove)
                assert told == [self.many]
                assert self.many.fragment == said
            case "set" | "patch" | "nothing" | "away":
                change = {
                    "set": Change(set={KEY: {"a": str(self.number), "c": None}}),
                    "patch": Change(patch={KEY: dict(patch)}),
                    "nothing": None,
                    "away": Change(set={KEY: {"a": "back"}}, remove=["8"]),
                }[what]
                said, same = (one.apply(change, step, Encoder(), prove=True) for one in (self.one, self.many))
                assert said == same
            case _:
                self.assert_same()
                return
        self.places.append(Cursor("e", self.one.seq, step[0]))

    def assert_same(self) -> None:
        one, many = self.one, self.many
        assert (one.seq, one.cursor, one.checksum()) == (many.seq, many.cursor, many.checksum())
        assert one.state == many.state
        assert list(one.snapshot_parts()) == list(many.snapshot_parts())
        for place in self.places:
            assert one.resumable(place) == many.resumable(place)
            assert one.merged_fragment(place.seq) == many.merged_fragment(place.seq)


@given(STEPS)
def test_the_same_as_one_by_one(steps: list[tuple[str, int, float]]) -> None:
    pair = Pair()
    for step in steps:
        pair.step(*step)
    pair.assert_same()


def test_a_proof_is_due_in_the_same_step() -> None:
    pair = Pair()
    for _ in range(40):
        pair.step("text", 3, 1.0)
    pair.assert_same()


def test_texts_of_a_lone_channel_do_not_pile_up() -> None:
    pair = Pair()
    for index in range(2000):
        pair.step("text", 1 + index % 3, 0.01)
        assert sum(len(known) for known in pair.many._texts.values()) <= 3
    pair.assert_same()
