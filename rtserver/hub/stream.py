"""One channel's stream: its state, its place (epoch, seq), and the recent changes that let a client resume.

Encodes each change once. A change covers (prev, seq], so any run of changes composes into one that still
proves that nothing is missing: resuming, catching up after a lag and the ring are the same thing here.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import orjson

from ..domain.diff import Change, JsonObject, State, compose
from ..domain.ids import ChainId
from ..wire.checksum import MASK_32, object_crc
from ..wire.cursor import Cursor, cursor_text

__all__ = ["RING_ENTRIES", "RING_S", "Encoder", "Stream"]

# The ring covers a reconnect (page reload, tunnel, deploy), not a night: a snapshot is cheaper than that.
RING_ENTRIES: Final = 256
RING_S: Final = 120.0
# Each 16th change proves the client's copy; a snapshot and a rollback always do.
_CHECKSUM_EVERY: Final = 16
# A snapshot part: small enough that a phone parses it between two frames.
PART_BYTES: Final = 256 * 1024


@dataclass(slots=True)
class _Entry:
    seq: int
    tag: str
    change: Change
    at: float


class Encoder:
    """Encodes each object of one step once, however many channels hold it. Lives for one step."""

    def __init__(self) -> None:
        self._known: dict[int, bytes] = {}
        self._kept: list[JsonObject] = []

    def __call__(self, value: JsonObject) -> bytes:
        """Return an object's JSON."""
        encoded = self._known.get(id(value))
        if encoded is None:
            encoded = self._known[id(value)] = orjson.dumps(value)
            self._kept.append(value)  # an id is only unique while its object lives
        return encoded


class Stream:
    """A channel that is open.

    Args:
        channel: Its name.
        chain_id: The chain that it is anchored to.
        epoch: Changes whenever continuity with what clients hold can't be proven.
        state: The first state; copied.
        block_hash: The block that the state is of.
        clock: Monotonic seconds.
    """

    __slots__ = (
        "_clock", "_crcs", "_name_json", "_ring", "_stale", "_sum", "_tags",
        "chain_id", "channel", "epoch", "listeners", "seq", "state",
    )  # fmt: skip

    def __init__(
        self,
        channel: str,
        chain_id: ChainId,
        epoch: str,
        state: State,
        block_hash: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.channel = channel
        self.chain_id = chain_id
        self.epoch = epoch
        self.seq = 0
        self.state: State = {key: dict(value) for key, value in state.items()}
        # Whoever listens; the hub's business, kept here because fan-out looks nowhere else.
        self.listeners: dict[object, None] = {}
        self._clock = clock
        self._ring: deque[_Entry] = deque(maxlen=RING_ENTRIES)
        # The block tag at each seq from which a client may resume: one more than the ring has entries.
        self._tags: dict[int, str] = {0: _tag(block_hash)}
        self._crcs: dict[str, int] = {}
        self._sum = 0
        self._stale: set[str] = set(self.state)
        self._name_json = orjson.dumps(channel)

    @property
    def cursor(self) -> str:
        """Return the place from which a client with this state resumes."""
        return f"{self.epoch}.{self.seq}.{self._tags[self.seq]}"

    def checksum(self) -> int:
        """Return the state's checksum; costs the objects changed since it was last asked for."""
        for key in self._stale:
            value = self.state.get(key)
            crc = 0 if value is None else object_crc(key, value)
            self._sum += crc - self._crcs.pop(key, 0)
            if value is not None:
                self._crcs[key] = crc
        self._stale.clear()
        return self._sum & MASK_32

    def apply(self, change: Change, block_hash: str, encode: Encoder, *, prove: bool) -> bytes:
        """Take a change into state and ring; return its fragment of a `block` frame.

        Args:
            change: What changes; may be empty when it only proves (a rollback).
            block_hash: The block that the state is of afterwards.
            encode: The step's encoder.
            prove: Whether the checksum has to be in it.
        """
        state = self.state
        stale = self._stale
        for key in change.remove:
            state.pop(key, None)
            stale.add(key)
        for key, value in change.set.items():
            state[key] = dict(value)
            stale.add(key)
        for key, patch in change.patch.items():
            # The same as RFC 7396 here: patches hold no nulls, and nested objects come whole.
            state[key].update(patch)
            stale.add(key)
        prev = self.seq
        seq = self.seq = prev + 1
        tag = _tag(block_hash)
        # Objects in a change belong to the engine and live on: the ring keeps its own.
        kept = Change(
            set={key: dict(value) for key, value in change.set.items()}, patch=change.patch, remove=change.remove
        )
        self._remember(_Entry(seq, tag, kept, self._clock()))
        return self._fragment(change, prev, tag, encode, prove=prove or seq % _CHECKSUM_EVERY == 0)

    def _remember(self, entry: _Entry) -> None:
        ring, tags = self._ring, self._tags
        if len(ring) == RING_ENTRIES:
            tags.pop(ring[0].seq - 1, None)
        ring.append(entry)
        tags[entry.seq] = entry.tag
        while ring and ring[0].at < entry.at - RING_S:
            tags.pop(ring.popleft().seq - 1, None)

    def _fragment(self, change: Change, prev: int, tag: str, encode: Encoder, *, prove: bool) -> bytes:
        parts = [
            b'{"channel":%b,"epoch":"%b","prev":%d,"seq":%d' % (self._name_json, self.epoch.encode(), prev, self.seq)
        ]
        if change.set:
            parts.append(b',"set":{%b}' % b",".join(_members(change.set, encode)))
        if change.patch:
            parts.append(b',"patch":{%b}' % b",".join(_members(change.patch, encode)))
        if change.remove:
            parts.append(b',"remove":%b' % orjson.dumps(change.remove))
        if prove:
            parts.append(b',"checksum":%d' % self.checksum())
        parts.append(b',"cursor":"%b.%d.%b"}' % (self.epoch.encode(), self.seq, tag.encode()))
        return b"".join(parts)

    def resumable(self, cursor: Cursor) -> bool:
        """Return whether a client at this cursor can go on from it without a snapshot."""
        return cursor.epoch == self.epoch and self._tags.get(cursor.seq) == cursor.block_tag

    def since(self, seq: int) -> Change | None:
        """Return the one change that covers (seq, now], None where the ring no longer has all of it."""
        if seq not in self._tags:
            return None
        merged = Change()
        for entry in self._ring:
            if entry.seq > seq:
                merged = compose(merged, entry.change)
        return merged

    def merged_fragment(self, seq: int) -> bytes | None:
        """Return the fragment that covers (seq, now] with a checksum, None where only a snapshot helps."""
        change = self.since(seq)
        if change is None:
            return None
        return self._fragment(change, seq, self._tags[self.seq], Encoder(), prove=True)

    def snapshot_parts(self) -> Iterator[bytes]:
        """Yield the state's JSON in parts of about PART_BYTES; at least one."""
        members: list[bytes] = []
        size = 0
        for member in _members(self.state, orjson.dumps):
            if members and size + len(member) > PART_BYTES:
                yield b"{%b}" % b",".join(members)
                members, size = [], 0
            members.append(member)
            size += len(member) + 1
        yield b"{%b}" % b",".join(members)


def _tag(block_hash: str) -> str:
    return cursor_text("", 0, block_hash)[3:]


def _members(objects: State, encode: Callable[[JsonObject], bytes]) -> Iterator[bytes]:
    for key, value in objects.items():
        yield b"%b:%b" % (orjson.dumps(key), encode(value))
