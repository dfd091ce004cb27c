"""The checksum as the protocol describes it, computed a second way."""

import json
from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st

from rtserver.domain.diff import JsonObject, State
from rtserver.wire.checksum import MASK_32, checksum_of, object_crc

VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53) + 1, 2**53 - 1), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=8,
)
STATES: st.SearchStrategy[State] = st.dictionaries(
    st.text(max_size=6), st.dictionaries(st.text(max_size=6), VALUES, max_size=4), max_size=4
)


def _second_way(state: State) -> int:
    total = 0
    for key, value in state.items():
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        total += crc32(key.encode() + text.encode())
    return total % 2**32


def test_examples() -> None:
    assert checksum_of({}) == 0
    assert checksum_of({"k": {}}) == crc32(b"k{}")
    assert object_crc("42", {"b": "1", "a": None}) == crc32(b'42{"a":null,"b":"1"}')
    assert object_crc("é", {"pair": "Ω/€"}) == crc32('é{"pair":"Ω/€"}'.encode())
    assert object_crc("k", {"t": {"z": 1, "a": [True, False]}}) == crc32(b'k{"t":{"a":[true,false],"z":1}}')


@given(STATES)
def test_it_is_the_sum_that_the_protocol_says(state: State) -> None:
    assert checksum_of(state) == _second_way(state)


@given(STATES)
def test_the_order_of_keys_means_nothing(state: State) -> None:
    turned = {key: dict(reversed(value.items())) for key, value in reversed(state.items())}
    assert checksum_of(turned) == checksum_of(state)


@given(STATES, st.text(max_size=6), st.integers(0, 9))
def test_one_object_costs_one_subtraction_and_one_addition(state: State, key: str, value: int) -> None:
    before = object_crc(key, state[key]) if key in state else 0
    new: JsonObject = {"n": value}
    assert (checksum_of(state) - before + object_crc(key, new)) & MASK_32 == checksum_of({**state, key: new})
