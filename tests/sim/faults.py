"""Accidents between server and client: frames that are lost, repeated, swapped, or changed on their way.

TCP rules them out; a proxy, a buggy client library or a bug in the server's fan-out does not. What is
changed is what the protocol proves: a state's keys and values, and the numbers of a change's place.
"""

import random
from typing import Any, Final

import orjson

__all__ = ["TAMPERING", "TRANSPORT", "alter"]

# Frames that don't arrive as they were sent: no copy may ever be wrong by these, not for a moment.
TRANSPORT: Final = ("lose", "repeat", "swap", "garble")
# Frames that were changed and are still readable: a copy may be wrong until the next proof.
TAMPERING: Final = ("value", "key", "place")


def alter(payload: bytes, kind: str, rng: random.Random) -> bytes | None:
    """Return the payload with that damage, None where it has nothing to damage in that way."""
    if kind == "garble":
        at = rng.randrange(1, len(payload))
        return rng.choice((payload[:at], payload[:at] + b"\xff" + payload[at:], b"\x00" + payload[1:]))
    message = orjson.loads(payload)
    part = _part(message, rng)
    if part is None:
        return None
    if not {"value": _alter_value, "key": _alter_key, "place": _alter_place}[kind](part, rng):
        return None
    return orjson.dumps(message)


def _part(message: dict[str, Any], rng: random.Random) -> dict[str, Any] | None:
    if message["type"] == "snapshot":
        return message
    if message["type"] == "block" and message["changes"]:
        chosen: dict[str, Any] = rng.choice(message["changes"])
        return chosen
    return None


def _objects(part: dict[str, Any]) -> list[dict[str, Any]]:
    return [objects for name in ("state", "set", "patch") if (objects := part.get(name))]


def _alter_value(part: dict[str, Any], rng: random.Random) -> bool:
    objects = _objects(part)
    if not objects:
        return False
    chosen = rng.choice(list(rng.choice(objects).values()))
    if not chosen:
        return False
    name = rng.choice(list(chosen))
    value = chosen[name]
    chosen[name] = not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else f"{value}7"
    return True


def _alter_key(part: dict[str, Any], rng: random.Random) -> bool:
    if part.get("remove") and rng.random() < 0.5:
        del part["remove"]
        return True
    objects = _objects(part)
    if not objects:
        return False
    chosen = rng.choice(objects)
    value = chosen.pop(rng.choice(list(chosen)))
    if rng.random() < 0.5:
        chosen["uniswap-v3:999"] = value
    return True


def _alter_place(part: dict[str, Any], rng: random.Random) -> bool:
    name = rng.choice([name for name in ("prev", "seq", "epoch", "checksum", "part") if name in part])
    value = part[name]
    part[name] = f"{value}0" if isinstance(value, str) else max(0, value + rng.choice((-1, 1, 2)))
    return bool(part[name] != value)
