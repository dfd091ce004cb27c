"""Changes of a channel's state, and the algebra that keeps merged changes provable.

A state is `key → flat JSON object`. Values in a change are absolute, never relative, so two changes in a
row compose into one: set∘any = set, patch∘set = set, patch∘patch = patch, remove∘any = remove.
Never encodes and never knows who is listening.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = ["Change", "EncodedPatch", "JsonObject", "JsonValue", "State", "apply", "compose", "diff", "diff_objects"]

JsonValue: TypeAlias = "str | int | bool | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = dict[str, "JsonValue"]
State: TypeAlias = dict[str, JsonObject]
# A patch as JSON text, made where it was computed, with a bit for each field or group of fields that it holds.
# Of one key, a patch makes an earlier one needless if it holds at least its bits.
EncodedPatch: TypeAlias = tuple[int, str]


@dataclass(slots=True)
class Change:
    """What happens to a state: `remove` keys go, `set` replaces objects, `patch` merges into them.

    A key stands in at most one of the three. A patch holds no null: RFC 7396 would read it as a deletion,
    so an object that gains a null is `set` whole.
    """

    set: dict[str, JsonObject] = field(default_factory=dict)
    patch: dict[str, JsonObject] = field(default_factory=dict)
    remove: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Return whether anything changes."""
        return bool(self.set or self.patch or self.remove)


def _holds_null(value: JsonValue) -> bool:
    return value is None or (isinstance(value, dict) and any(map(_holds_null, value.values())))


def _loses_inner(old: JsonValue, new: JsonValue) -> bool:
    """Return whether a field of a nested object goes away, at any level.

    Also when the object as a whole gives way to something else: two patches in a row, object → text → object,
    would compose into one that merges the last object into the first.
    """
    if not isinstance(old, dict):
        return False
    if not isinstance(new, dict):
        return True
    return any(name not in new or _loses_inner(value, new[name]) for name, value in old.items())


def diff_objects(old: JsonObject, new: JsonObject) -> JsonObject | None:
    """Return the patch from one object to another, or None where only a replacement can say it.

    A replacement is needed when a field goes away or becomes null. The patch may be empty.
    """
    if old.keys() - new.keys():
        return None
    patch = {name: value for name, value in new.items() if name not in old or old[name] != value}
    if any(_holds_null(value) for value in patch.values()):
        return None
    # Nested objects are sent whole: RFC 7396 would merge them, which can't take an inner field away.
    if any(_loses_inner(old.get(name), value) for name, value in patch.items()):
        return None
    return patch


def diff(old: Mapping[str, JsonObject], new: Mapping[str, JsonObject]) -> Change:
    """Return the change that turns `old` into `new`: apply(old, diff(old, new)) == new."""
    change = Change(remove=[key for key in old if key not in new])
    for key, value in new.items():
        before = old.get(key)
        if before is None:
            change.set[key] = value
        elif before != value:
            patch = diff_objects(before, value)
            if patch is None:
                change.set[key] = value
            else:
                change.patch[key] = patch
    return change


def _merge(into: JsonObject, patch: JsonObject) -> None:
    for name, value in patch.items():
        before = into.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            merged = dict(before)
            _merge(merged, value)
            into[name] = merged
        else:
            into[name] = value


def apply(state: State, change: Change) -> None:
    """Apply a change in place. Objects that the change sets are copied, so the two never share one.

    Raises:
        KeyError: The change patches a key that the state doesn't have.
    """
    for key in change.remove:
        state.pop(key, None)
    for key, value in change.set.items():
        state[key] = dict(value)
    for key, patch in change.patch.items():
        _merge(state[key], patch)


def compose(first: Change, second: Change) -> Change:
    """Return the one change that does what `first` and then `second` do."""
    result = Change(set=dict(first.set), patch=dict(first.patch), remove=list(first.remove))
    gone = set(result.remove)
    for key in second.remove:
        result.set.pop(key, None)
        result.patch.pop(key, None)
        gone.add(key)
    for key, value in second.set.items():
        result.patch.pop(key, None)
        gone.discard(key)
        result.set[key] = value
    for key, patch in second.patch.items():
        target = result.set if key in result.set else result.patch
        merged = dict(target.get(key, {}))
        _merge(merged, patch)
        target[key] = merged
    result.remove = [key for key in dict.fromkeys([*result.remove, *second.remove]) if key in gone]
    return result
