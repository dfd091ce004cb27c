"""A server's messages for tests: one channel that is told truly, and lies where a test asks for one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rtserver.domain.diff import Change, State, apply
from rtserver.wire.checksum import checksum_of

__all__ = ["CHAIN_ID", "Told", "block_frame", "block_json", "heartbeat", "welcome"]

CHAIN_ID = 31337


def block_json(number: int, *, fork: str = "a") -> dict[str, Any]:
    """A block; `fork` makes another one of the same height."""
    digest = f"0x{fork * 8}{number:056x}"
    return {"number": number, "hash": digest, "parentHash": "0x" + "0" * 64, "timestamp": 1_700_000_000 + number}


def welcome(*, heartbeat_ms: int = 15_000, protocol: str = "rtserver.v1") -> dict[str, Any]:
    """A server's first message."""
    head = {**block_json(1), "ageMs": 5}
    del head["parentHash"]
    return {
        "type": "welcome", "session": "s1", "protocol": protocol, "limits": {"channels": 256},
        "heartbeatMs": heartbeat_ms, "heads": {str(CHAIN_ID): head},
    }  # fmt: skip


def heartbeat(seqs: Mapping[str, int], checksums: Mapping[str, int] | None = None) -> dict[str, Any]:
    """A heartbeat with what the server sent last on each channel, and what it has there."""
    return {"type": "heartbeat", "time": 1, "heads": {}, "seqs": dict(seqs), "checksums": dict(checksums or {})}


def block_frame(
    block: dict[str, Any], *changes: dict[str, Any], rollback: dict[str, Any] | None = None
) -> dict[str, Any]:
    """One frame of a block."""
    frame: dict[str, Any] = {"type": "block", "chainId": CHAIN_ID, "block": block, "changes": list(changes)}
    if rollback is not None:
        frame["rollback"] = rollback
    return frame


class Told:
    """A channel as its server has it."""

    def __init__(self, channel: str, state: State | None = None, *, epoch: str = "e1") -> None:
        self.channel = channel
        self.epoch = epoch
        self.seq = 1
        self.block = block_json(1)
        self.state: State = {} if state is None else json.loads(json.dumps(state))

    @property
    def cursor(self) -> str:
        return f"{self.epoch}.{self.seq}.{self.block['hash'][2:18]}"

    def snapshot(self, request: int | str | None = None, *, parts: int = 1, lie: int = 0) -> list[dict[str, Any]]:
        """The whole state in so many messages; a `lie` is added to the checksum."""
        state = json.loads(json.dumps(self.state))
        keys = sorted(state)
        messages = []
        for index in range(parts):
            message: dict[str, Any] = {
                "type": "snapshot", "channel": self.channel, "epoch": self.epoch, "seq": self.seq, "block": self.block,
                "state": {key: state[key] for key in keys[index::parts]}, "part": index + 1, "parts": parts,
                "checksum": (checksum_of(self.state) + lie) % 2**32, "cursor": self.cursor,
            }  # fmt: skip
            if request is not None:
                message["id"] = request
            messages.append(message)
        return messages

    def subscribed(self, request: int | str | None, how: str = "snapshot") -> dict[str, Any]:
        """The end of a join."""
        return {
            "type": "subscribed", "channel": self.channel, "how": how, "epoch": self.epoch, "seq": self.seq,
            "cursor": self.cursor, "id": request,
        }  # fmt: skip

    def change(self, block: dict[str, Any], *, prove: bool = False, lie: int = 0, **parts: Any) -> dict[str, Any]:
        """Change the state (`set`, `patch`, `remove`) and return what is sent of it."""
        prev, self.seq, self.block = self.seq, self.seq + 1, block
        apply(self.state, Change(**json.loads(json.dumps(parts))))
        message: dict[str, Any] = {
            "channel": self.channel, "epoch": self.epoch, "prev": prev, "seq": self.seq, "cursor": self.cursor, **parts,
        }  # fmt: skip
        if prove or lie:
            message["checksum"] = (checksum_of(self.state) + lie) % 2**32
        return message
