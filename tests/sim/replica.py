"""The independent replica: the protocol's text in as few lines as it takes, sharing no code with the server.

A channel's copy moves by a proved snapshot, or by a change whose epoch is its own and whose `prev` is its
`seq`. Anything else is answered with `resync`, and nothing is applied until the snapshot has come.
"""

import json
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Copy", "Move", "Replica"]

_UNANSWERED_S: Final = 20.0


@dataclass(slots=True)
class Copy:
    """What a client holds of a channel."""

    epoch: str
    seq: int
    cursor: str
    block_hash: str
    state: dict[str, Any]


@dataclass(slots=True)
class Move:
    """A change that was applied: from which block to which, and what its frame told of a reorganisation."""

    channel: str
    before: str
    after: str
    rollback: dict[str, Any] | None


def _checksum(state: dict[str, Any]) -> int:
    total = 0
    for key, value in state.items():
        canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        total += zlib.crc32((key + canonical).encode())
    return total % 2**32


def _merge(value: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(value) if isinstance(value, dict) else {}
    for name, inner in patch.items():
        merged[name] = _merge(merged.get(name), inner)
    return merged


class Replica:
    """All channels of one client; `wanted` maps a channel to its mode, `waiting` to when it asks again."""

    def __init__(self) -> None:
        self.wanted: dict[str, str] = {}
        self.copies: dict[str, Copy] = {}
        self.waiting: dict[str, float] = {}
        self.noticed: Counter[str] = Counter()
        self.resumed: list[str] = []
        self.out: list[dict[str, Any]] = []
        self.moves: list[Move] = []
        self._parts: dict[str, dict[int, Any]] = {}

    def ask(self, channel: str, now: float, kind: str = "subscribe", **more: Any) -> None:
        """Ask for a channel, from its copy's cursor if it has one and no other is given."""
        self._parts.pop(channel, None)
        self.waiting[channel] = now + _UNANSWERED_S
        if kind == "subscribe":
            more.setdefault("mode", self.wanted[channel])
            if "cursor" not in more and channel in self.copies:
                more["cursor"] = self.copies[channel].cursor
        self.out.append({"type": kind, "id": channel, "channel": channel, **more})

    def _heal(self, channel: str, reason: str, now: float) -> None:
        self.noticed[reason] += 1
        self.ask(channel, now, "resync", reason=reason)

    def receive(self, payload: bytes, now: float) -> None:
        """Take one message."""
        try:
            message = json.loads(payload)
        except ValueError:
            self.noticed["unreadable"] += 1
            return
        match message["type"]:
            case "welcome":
                for channel in self.wanted:
                    self.ask(channel, now)
            case "snapshot":
                self._take(message, now)
            case "subscribed":
                self._joined(message, now)
            case "block":
                for change in message["changes"]:
                    assert "rollback" not in message or "checksum" in change, "a rollback proves every channel"
                    if change["channel"] in self.wanted:
                        self._apply(change, message["block"]["hash"], message.get("rollback"), now)
            case "heartbeat":
                self.out.append({"type": "pong"})
                for channel, seq in message["seqs"].items():
                    copy = self.copies.get(channel)
                    if channel not in self.wanted or channel in self.waiting or copy is None:
                        continue
                    checksums = message.get("checksums", {})
                    if copy.seq != seq:
                        self._heal(channel, "missed", now)
                    elif channel in checksums and _checksum(copy.state) != checksums[channel]:
                        self._heal(channel, "checksum", now)
            case "error" if message.get("id") in self.wanted:
                if "retryAfterMs" in message:
                    self.waiting[message["id"]] = now + message["retryAfterMs"] / 1000
                else:
                    self.leave(message["id"])

    def _take(self, message: dict[str, Any], now: float) -> None:
        channel = message["channel"]
        if channel not in self.wanted:
            return
        parts = self._parts.setdefault(channel, {})
        if any((part["epoch"], part["seq"]) != (message["epoch"], message["seq"]) for part in parts.values()):
            parts.clear()
        parts[message["part"]] = message
        if len(parts) < message["parts"]:
            return
        del self._parts[channel]
        state = {key: value for part in parts.values() for key, value in part["state"].items()}
        if _checksum(state) != message["checksum"]:
            self._heal(channel, "checksum", now)
            return
        place = message["epoch"], message["seq"], message["cursor"]
        self.copies[channel] = Copy(*place, message["block"]["hash"], state)
        self.waiting.pop(channel, None)

    def _joined(self, message: dict[str, Any], now: float) -> None:
        channel, copy = message["channel"], self.copies.get(message["channel"])
        if message["how"] != "resumed" or channel not in self.wanted:
            return
        self.resumed.append(channel)
        self.waiting.pop(channel, None)
        if copy is None or (copy.epoch, copy.seq) != (message["epoch"], message["seq"]):
            self._heal(channel, "missed", now)

    def _apply(self, change: dict[str, Any], block_hash: str, rollback: dict[str, Any] | None, now: float) -> None:
        channel, copy = change["channel"], self.copies.get(change["channel"])
        fits = copy is not None and copy.epoch == change["epoch"] and copy.seq == change["prev"]
        if not fits or copy is None:
            if channel not in self.waiting:
                self._heal(channel, "gap", now)
            return
        state = {key: value for key, value in copy.state.items() if key not in change.get("remove", ())}
        state.update(change.get("set", {}))
        for key, patch in change.get("patch", {}).items():
            state[key] = _merge(state.get(key), patch)
        if "checksum" in change and _checksum(state) != change["checksum"]:
            self._heal(channel, "checksum", now)
            return
        self.moves.append(Move(channel, copy.block_hash, block_hash, rollback))
        self.copies[channel] = Copy(change["epoch"], change["seq"], change["cursor"], block_hash, state)

    def tick(self, now: float) -> None:
        """Ask again for what was not answered."""
        for channel, due in list(self.waiting.items()):
            if now >= due:
                self.noticed["unanswered"] += 1
                # Not from the cursor again: the first answer may be on its way, and moves the copy on.
                self.ask(channel, now, "resync", reason="unanswered")

    def leave(self, channel: str) -> None:
        """Forget a channel."""
        self.wanted.pop(channel, None)
        self.copies.pop(channel, None)
        self.waiting.pop(channel, None)
        self._parts.pop(channel, None)

    def disconnected(self) -> None:
        """Keep the copies, forget what was asked."""
        self.out.clear()
        self.waiting.clear()
        self._parts.clear()
