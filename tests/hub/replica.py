"""An independent client: applies what a session was sent, by the rules of the protocol and nothing else."""

from __future__ import annotations

import json
from typing import Any
from zlib import crc32

__all__ = ["Replica", "checksum_of", "frames_in"]

Json = dict[str, Any]


def frames_in(data: bytes) -> list[Json]:
    """Return the messages in a server's bytes: whole, unmasked text frames."""
    messages = []
    while data:
        assert data[0] == 0x81
        size, start = data[1], 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, start = int.from_bytes(data[2:10], "big"), 10
        payload, data = data[start : start + size], data[start + size :]
        assert len(payload) == size
        messages.append(json.loads(payload))
    return messages


def checksum_of(state: dict[str, Json]) -> int:
    """Return Σ CRC32(key ‖ canonical JSON) mod 2^32."""
    total = 0
    for key, value in state.items():
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        total += crc32((key + text).encode())
    return total % 2**32


def _merge_patch(target: Json, patch: Json) -> None:
    """Apply RFC 7396."""
    for name, value in patch.items():
        if isinstance(value, dict):
            inner = target.get(name)
            target[name] = dict(inner) if isinstance(inner, dict) else {}
            _merge_patch(target[name], value)
        else:
            assert value is not None, "a patch holds no null"
            target[name] = value


class Replica:
    """Copies of channels; fails on any gap, wrong epoch, unknown key or wrong checksum."""

    def __init__(self) -> None:
        self.states: dict[str, dict[str, Json]] = {}
        self.places: dict[str, tuple[str, int]] = {}
        self.cursors: dict[str, str] = {}
        self.proofs = 0
        self.blocks: list[Json] = []
        # The blocks that states were told of, in order; and how many of these were snapshots.
        self.numbers: list[int] = []
        self.snapshots = 0
        self.others: list[Json] = []

    def take(self, messages: list[Json]) -> None:
        """Apply messages in order."""
        for message in messages:
            match message["type"]:
                case "snapshot":
                    self.numbers.append(message["block"]["number"])
                    self.snapshots += 1
                    self._snapshot(message)
                case "block":
                    self.blocks.append(message)
                    self.numbers.append(message["block"]["number"])
                    for change in message["changes"]:
                        self._change(change)
                case _:
                    self.others.append(message)

    def _snapshot(self, message: Json) -> None:
        channel = message["channel"]
        if message["part"] == 1:
            self.states[channel] = {}
        assert not self.states[channel].keys() & message["state"].keys()
        self.states[channel].update(message["state"])
        self.places[channel] = (message["epoch"], message["seq"])
        self.cursors[channel] = message["cursor"]
        if message["part"] == message["parts"]:
            assert message["checksum"] == checksum_of(self.states[channel])

    def _change(self, change: Json) -> None:
        channel = change["channel"]
        assert self.places[channel] == (change["epoch"], change["prev"])
        assert change["seq"] > change["prev"]
        state = self.states[channel]
        for key in change.get("remove", ()):
            state.pop(key, None)
        state.update(change.get("set", {}))
        for key, patch in change.get("patch", {}).items():
            _merge_patch(state[key], patch)
        self.places[channel] = (change["epoch"], change["seq"])
        self.cursors[channel] = change["cursor"]
        if "checksum" in change:
            self.proofs += 1
            assert change["checksum"] == checksum_of(state)

    def reply(self, request_id: int) -> Json:
        """Return the one reply to a request."""
        (found,) = [message for message in self.others if message.get("id") == request_id]
        return found
