"""The laws of changes, over states with nested objects, lists and nulls."""

import copy
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtserver.domain.diff import Change, JsonObject, State, apply, compose, diff, diff_objects

NAMES = st.sampled_from(["a", "b", "c"])
SCALARS = st.one_of(st.none(), st.integers(2, 5), st.sampled_from(["", "x", "é"]))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=6,
)
OBJECTS: st.SearchStrategy[JsonObject] = st.dictionaries(NAMES, VALUES, max_size=3)
STATES: st.SearchStrategy[State] = st.dictionaries(st.sampled_from(["k1", "k2", "k3"]), OBJECTS, max_size=3)


def _applied(state: State, change: Change) -> State:
    result = copy.deepcopy(state)
    apply(result, change)
    return result


def _has_null_in_patch(value: object) -> bool:
    return value is None or (isinstance(value, dict) and any(map(_has_null_in_patch, value.values())))


@given(STATES, STATES)
def test_a_diff_leads_there(old: State, new: State) -> None:
    change = diff(old, new)
    assert _applied(old, change) == new
    assert bool(change) == (old != new)


@given(STATES, STATES)
def test_a_patch_holds_no_null_and_a_key_stands_once(old: State, new: State) -> None:
    change = diff(old, new)
    assert not any(_has_null_in_patch(patch) for patch in change.patch.values())
    keys = [*change.set, *change.patch, *change.remove]
    assert len(keys) == len(set(keys))


@given(STATES, STATES, STATES)
def test_two_changes_compose_into_one(first: State, second: State, third: State) -> None:
    one, two = diff(first, second), diff(second, third)
    both = compose(one, two)
    assert _applied(first, both) == third
    keys = [*both.set, *both.patch, *both.remove]
    assert len(keys) == len(set(keys))


@given(st.lists(STATES, min_size=2, max_size=6))
def test_any_run_of_changes_composes(states: list[State]) -> None:
    merged = Change()
    for before, after in pairwise(states):
        merged = compose(merged, diff(before, after))
    assert _applied(states[0], merged) == states[-1]


@given(STATES, STATES, STATES, STATES)
def test_composing_is_associative_in_effect(a: State, b: State, c: State, d: State) -> None:
    one, two, three = diff(a, b), diff(b, c), diff(c, d)
    assert _applied(a, compose(compose(one, two), three)) == _applied(a, compose(one, compose(two, three))) == d


@given(STATES, STATES, STATES)
def test_nothing_is_shared_or_spoilt(first: State, second: State, third: State) -> None:
    one, two = diff(first, second), diff(second, third)
    kept = copy.deepcopy((one, two))
    state = copy.deepcopy(first)
    compose(one, two)
    apply(state, one)
    apply(state, two)
    assert (one, two) == kept


def test_the_algebra() -> None:
    whole: JsonObject = {"a": 1, "b": 2}
    assert compose(Change(patch={"k": {"a": 3}}), Change(set={"k": whole})) == Change(set={"k": whole})
    assert compose(Change(set={"k": whole}), Change(patch={"k": {"a": 3}})) == Change(set={"k": {"a": 3, "b": 2}})
    assert compose(Change(patch={"k": {"a": 1}}), Change(patch={"k": {"b": 2}})) == Change(patch={"k": whole})
    assert compose(Change(patch={"k": {"a": 1}}), Change(remove=["k"])) == Change(remove=["k"])
    assert compose(Change(remove=["k"]), Change(set={"k": whole})) == Change(set={"k": whole})
    assert compose(Change(), Change(remove=["k"])) == Change(remove=["k"])


@pytest.mark.parametrize(
    ("old", "new", "patch"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, {"b": 3}),
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1}, {"a": None}, None),
        ({"a": None}, {"a": 1}, {"a": 1}),
        ({"a": 1, "b": 2}, {"a": 1}, None),
        ({"t": {"x": 1, "y": 2}}, {"t": {"x": 1, "y": 3}}, {"t": {"x": 1, "y": 3}}),
        ({"t": {"x": 1, "y": 2}}, {"t": {"x": 1}}, None),
        ({"t": {"x": {"p": 1}}}, {"t": {"x": {"q": 1}}}, None),
        ({"t": {"x": 1}}, {"t": {"x": None}}, None),
        ({"t": "text"}, {"t": {"x": 1}}, {"t": {"x": 1}}),
        ({"t": {"x": 1}}, {"t": "text"}, None),
        ({"l": [1, 2]}, {"l": [None]}, {"l": [None]}),
    ],
)
def test_patches_of_objects(old: JsonObject, new: JsonObject, patch: JsonObject | None) -> None:
    assert diff_objects(old, new) == patch


def test_a_patch_of_nothing_is_an_error() -> None:
    with pytest.raises(KeyError):
        apply({}, Change(patch={"k": {"a": 1}}))
