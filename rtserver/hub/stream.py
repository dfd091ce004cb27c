"""One channel's stream: its state, its place (epoch, seq), and the recent changes that let a client resume.

Encodes each change once. A change covers (prev, seq], so any run of changes composes into one that still
proves that nothing is missing: resuming, catching up after a lag and the ring are the same thing here.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Final, NamedTuple
from zlib import crc32

import orjson

from ..domain.diff import Change, EncodedPatch, JsonObject, State, compose
from ..domain.ids import ChainId
from ..wire.checksum import MASK_32, object_crc
from ..wire.cursor import Cursor, cursor_text

__all__ = ["RING_ENTRIES", "RING_S", "Encoder", "Stream", "block_tag"]

# The ring covers a reconnect (page reload, tunnel, deploy), not a night: a snapshot is cheaper than that.
RING_ENTRIES: Final = 256
RING_S: Final = 120.0
# Each 16th change proves the client's copy; a snapshot and a rollback always do.
_CHECKSUM_EVERY: Final = 16
# A snapshot part: small enough that a phone parses it between two frames.
PART_BYTES: Final = 256 * 1024


class _Entry(NamedTuple):
    seq: int
    tag: str
    change: Change | None
    patched: Mapping[str, EncodedPatch]
    at: float


_NOTHING: Final[Mapping[str, EncodedPatch]] = {}


class Encoder:
    """Encodes each object of one step once, however many channels hold it. Lives for one step."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}
        self._kept: list[JsonObject] = []

    def __call__(self, value: JsonObject) -> str:
        """Return an object's JSON."""
        encoded = self._known.get(id(value))
        if encoded is None:
            encoded = self._known[id(value)] = orjson.dumps(value).decode()
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
        "_base_tag", "_clock", "_crcs", "_folded", "_head", "_merged", "_merged_at", "_phase", "_ring",
        "_stale", "_state", "_sum",
        "chain_id", "channel", "epoch", "listeners", "seq",
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
        self._state: State = {key: dict(value) for key, value in state.items()}
        # The seq up to which the state holds the ring's text patches: they are parsed only when someone asks.
        self._folded = 0
        # Whoever listens; the hub's business, kept here because fan-out looks nowhere else.
        self.listeners: dict[object, None] = {}
        self._clock = clock
        self._ring: deque[_Entry] = deque(maxlen=RING_ENTRIES)
        # The block tag of the state before the ring's first entry: the oldest place to resume from.
        self._base_tag = block_tag(block_hash)
        self._crcs: dict[str, int] = {}
        self._sum = 0
        # Fragments from older seqs to the one in `_merged_at`: whoever was dropped with others comes back with them.
        self._merged: dict[int, str] = {}
        self._merged_at = 0
        self._stale: set[str] = set(self._state)
        # Channels that opened together prove themselves in different blocks: all in one would be a stall.
        self._phase = crc32(channel.encode()) % _CHECKSUM_EVERY
        self._head = f'{{"channel":{orjson.dumps(channel).decode()},"epoch":"{epoch}","prev":'

    @property
    def state(self) -> State:
        """Return the state; not to be changed."""
        if self._folded != self.seq:
            self._fold()
        return self._state

    def _fold(self) -> None:
        """Take the ring's patches that the state doesn't hold yet into it, parsing only what is still of use."""
        ring = self._ring
        waiting: dict[str, list[EncodedPatch]] = {}
        for index in range(self._folded + 1 - ring[0].seq, len(ring)):
            for key, patch in ring[index].patched.items():
                older = waiting.get(key)
                if older is None:
                    waiting[key] = [patch]
                else:
                    # A patch that holds at least an older one's fields makes that one needless.
                    older[:] = [one for one in older if one[0] & ~patch[0]]
                    older.append(patch)
        for key, patches in waiting.items():
            target = self._state[key]
            for _, text in patches:
                # The same as RFC 7396 here: patches hold no nulls, and nested objects come whole.
                target.update(orjson.loads(text))
        self._stale.update(waiting)
        self._folded = self.seq

    @property
    def _tag_now(self) -> str:
        return self._ring[-1].tag if self._ring else self._base_tag

    @property
    def cursor(self) -> str:
        """Return the place from which a client with this state resumes."""
        return f"{self.epoch}.{self.seq}.{self._tag_now}"

    def checksum(self) -> int:
        """Return the state's checksum; costs the objects changed since it was last asked for."""
        state = self.state
        for key in self._stale:
            value = state.get(key)
            crc = 0 if value is None else object_crc(key, value)
            self._sum += crc - self._crcs.pop(key, 0)
            if value is not None:
                self._crcs[key] = crc
        self._stale.clear()
        return self._sum & MASK_32

    def apply(
        self,
        change: Change | None,
        tag: str,
        encode: Encoder,
        *,
        prove: bool,
        patched: Mapping[str, EncodedPatch] = _NOTHING,
        now: float | None = None,
    ) -> str:
        """Take a change into state and ring; return its fragment of a `block` frame.

        Args:
            change: What changes; None or empty when it only proves (a rollback).
            tag: `block_tag` of the block that the state is of afterwards.
            encode: The step's encoder.
            prove: Whether the checksum has to be in it.
            patched: Patches that are text already; keys that `change` doesn't name.
            now: Monotonic seconds, where the caller knows them.
        """
        at = self._clock() if now is None else now
        ring = self._ring
        if ring and (len(ring) == RING_ENTRIES or ring[0].at < at - RING_S):
            self._prune(at)
        if change is not None:
            if self._folded != self.seq:
                self._fold()
            change = self._apply_objects(change)
        prev = self.seq
        seq = self.seq = prev + 1
        ring.append(_Entry(seq, tag, change, patched, at))
        if change is not None:
            self._fold()
        elif len(patched) == 1 and not prove and (seq + self._phase) % _CHECKSUM_EVERY:
            ((key, (_, text)),) = patched.items()
            return f'{self._head}{prev},"seq":{seq},"patch":{{"{key}":{text}}},"cursor":"{self.epoch}.{seq}.{tag}"}}'
        return self._fragment(
            change, patched, prev, tag, encode, prove=prove or (seq + self._phase) % _CHECKSUM_EVERY == 0
        )

    def _prune(self, at: float) -> None:
        """Drop entries that are too many or too old; the state takes in what it needs of them first."""
        if self._folded != self.seq:
            self._fold()
        ring = self._ring
        while ring and (len(ring) >= RING_ENTRIES or ring[0].at < at - RING_S):
            self._base_tag = ring.popleft().tag

    def _apply_objects(self, change: Change) -> Change:
        """Take objects in; return the change with objects of our own: the engine's live on."""
        state, stale = self._state, self._stale
        for key in change.remove:
            state.pop(key, None)
            stale.add(key)
        kept = {key: dict(value) for key, value in change.set.items()}
        for key, value in kept.items():
            state[key] = dict(value)
            stale.add(key)
        for key, patch in change.patch.items():
            state[key].update(patch)
            stale.add(key)
        return Change(set=kept, patch=change.patch, remove=change.remove)

    def _fragment(
        self,
        change: Change | None,
        patched: Mapping[str, EncodedPatch],
        prev: int,
        tag: str,
        encode: Encoder,
        *,
        prove: bool,
    ) -> str:
        body = ""
        if patched:
            # Keys are ours: protocol names and numbers, nothing that JSON would escape.
            body = ",".join([f'"{key}":{patch[1]}' for key, patch in patched.items()])
        extra = ""
        if change is not None:
            if change.patch:
                members = ",".join(_members(change.patch, encode))
                body = f"{body},{members}" if body else members
            if change.set:
                extra = f',"set":{{{",".join(_members(change.set, encode))}}}'
            if change.remove:
                extra += f',"remove":{orjson.dumps(change.remove).decode()}'
        if body:
            extra += f',"patch":{{{body}}}'
        if prove:
            extra += f',"checksum":{self.checksum()}'
        return f'{self._head}{prev},"seq":{self.seq}{extra},"cursor":"{self.epoch}.{self.seq}.{tag}"}}'

    def _tag_at(self, seq: int) -> str | None:
        ring = self._ring
        if not ring:
            return self._base_tag if seq == self.seq else None
        index = seq - ring[0].seq
        if index == -1:
            return self._base_tag
        return ring[index].tag if 0 <= index < len(ring) else None

    def resumable(self, cursor: Cursor) -> bool:
        """Return whether a client at this cursor can go on from it without a snapshot."""
        return cursor.epoch == self.epoch and self._tag_at(cursor.seq) == cursor.block_tag

    def since(self, seq: int) -> Change | None:
        """Return the one change that covers (seq, now], None where the ring no longer has all of it."""
        if self._tag_at(seq) is None:
            return None
        merged = Change()
        # Fields of texts come whole, so texts in a row are one patch: composed once, not once a block.
        run: dict[str, JsonObject] = {}
        ring = self._ring
        for entry in islice(ring, seq + 1 - ring[0].seq if ring else 0, None):
            if entry.change is not None:
                if run:
                    merged, run = compose(merged, Change(patch=run)), {}
                merged = compose(merged, entry.change)
            for key, (_, text) in entry.patched.items():
                patch = orjson.loads(text)
                mine = run.get(key)
                if mine is None:
                    run[key] = patch
                else:
                    mine.update(patch)
        return compose(merged, Change(patch=run)) if run else merged

    def merged_fragment(self, seq: int) -> str | None:
        """Return the fragment that covers (seq, now] with a checksum, None where only a snapshot helps."""
        if self._merged_at != self.seq:
            self._merged.clear()
            self._merged_at = self.seq
        fragment = self._merged.get(seq)
        if fragment is None:
            change = self.since(seq)
            if change is None:
                return None
            fragment = self._fragment(change, _NOTHING, seq, self._tag_now, Encoder(), prove=True)
            self._merged[seq] = fragment
        return fragment

    def snapshot_parts(self) -> Iterator[bytes]:
        """Yield the state's JSON in parts of about PART_BYTES; at least one."""
        members: list[str] = []
        size = 0
        for member in _members(self.state, _dumps):
            if members and size + len(member) > PART_BYTES:
                yield f"{{{','.join(members)}}}".encode()
                members, size = [], 0
            members.append(member)
            size += len(member) + 1
        yield f"{{{','.join(members)}}}".encode()


def block_tag(block_hash: str) -> str:
    """Return the part of a block hash that cursors hold."""
    return cursor_text("", 0, block_hash)[3:]


def _dumps(value: JsonObject) -> str:
    return orjson.dumps(value).decode()


def _members(objects: State, encode: Callable[[JsonObject], str]) -> Iterator[str]:
    for key, value in objects.items():
        yield f"{orjson.dumps(key).decode()}:{encode(value)}"
