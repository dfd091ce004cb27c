"""One channel's stream: its state, its place (epoch, seq), and the recent changes that let a client resume.

Encodes each change once. A change covers (prev, seq], so any run of changes composes into one that still
proves that nothing is missing: resuming, catching up after a lag and the ring are the same thing here.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Final, TypeAlias
from zlib import crc32

import orjson

from ..domain.chain import Rollback
from ..domain.diff import Change, EncodedPatch, JsonObject, State, compose
from ..domain.ids import ChainId
from ..domain.update import LonePatches
from ..wire.checksum import MASK_32, object_crc
from ..wire.cursor import Cursor, cursor_text

__all__ = ["RING_ENTRIES", "RING_S", "Encoder", "Step", "Stream", "apply_lone", "block_tag"]

# The ring covers a reconnect (page reload, tunnel, deploy), not a night: a snapshot is cheaper than that.
RING_ENTRIES: Final = 256
RING_S: Final = 120.0
# Each 16th change proves the client's copy; a snapshot and a rollback always do.
_CHECKSUM_EVERY: Final = 16
# A snapshot part: small enough that a phone parses it between two frames.
PART_BYTES: Final = 256 * 1024
# What a snapshot says besides the state, in bytes, of which a fragment has only a part: the block, above all.
_SNAPSHOT_HEAD: Final = 512

# A block's tag in cursors and when it was published, monotonic seconds: one tuple for all channels of a step.
Step: TypeAlias = tuple[str, float]

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
        seq: The first state's place, where an earlier process's stream goes on.
        shard: Of a chain that engines share, whose it is, as frames say it: the changes of a frame are all of one.
    """

    __slots__ = (
        "_crcs", "_fields", "_folded", "_key", "_lone_head", "_merged", "_merged_at", "_newest", "_objects", "_phase",
        "_rollbacks", "_stale", "_state", "_steps", "_sum", "_texts", "chain_id", "channel", "epoch", "fragment",
        "listeners", "seq", "shard",
    )  # fmt: skip

    def __init__(
        self,
        channel: str,
        chain_id: ChainId,
        epoch: str,
        state: State,
        block_hash: str,
        clock: Callable[[], float] = time.monotonic,
        seq: int = 0,
        shard: str = "",
    ) -> None:
        self.channel = channel
        self.chain_id = chain_id
        self.shard = shard
        self.epoch = epoch
        self.seq = seq
        self._state: State = {key: dict(value) for key, value in state.items()}
        # Whoever listens; the hub's business, kept here because fan-out looks nowhere else.
        self.listeners: dict[object, None] = {}
        # What it tells in the step that is on its way; empty between steps. The hub's business, too.
        self.fragment = ""
        # The ring. The steps of the newest seqs, the oldest being the oldest place to resume from.
        self._steps: deque[Step] = deque([(block_tag(block_hash), clock())], RING_ENTRIES + 1)
        # Per key the text patches, (seq, fields, text), that no later one makes needless: whoever resumes gets
        # all later ones, too. So the ring holds one or two texts a key, not one a block.
        self._texts: dict[str, list[tuple[int, int, str]]] = {}
        # Of a channel with one object, whose key this is, the newest text (and fields, 0 without one) is here; it
        # moves into the lists when a later one leaves something of it, or when someone asks.
        self._fields, self._newest = 0, ""
        self._objects: deque[tuple[int, Change]] = deque()
        # The seq up to which the state holds the texts: they are parsed only when someone asks for it.
        self._folded = seq
        self._crcs: dict[str, int] = {}
        self._sum = 0
        # Fragments from older seqs to the one in `_merged_at`: whoever was dropped with others comes back with them.
        self._merged: dict[int, str] = {}
        self._merged_at = 0
        # The seqs that told of a reorganisation, as far back as the ring. A tuple: most streams never have one.
        self._rollbacks: tuple[tuple[int, Rollback], ...] = ()
        self._stale: set[str] = set(self._state)
        # Channels that opened together prove themselves in different blocks: all in one would be a stall.
        self._phase = crc32(channel.encode()) % _CHECKSUM_EVERY
        self._find_lone()

    def _find_lone(self) -> None:
        """Note the key of the one object, and how a fragment that patches it begins."""
        self._key = next(iter(self._state), "")
        self._lone_head = f'{self._head()},"patch":{{"{self._key}":'

    def _head(self) -> str:
        # Names and keys are ours: protocols, numbers and addresses, nothing that JSON would escape.
        return f'{{"channel":"{self.channel}","epoch":"{self.epoch}"'

    def begin_epoch(self, epoch: str) -> None:
        """Leave everything behind but the state: from here no change leads on from what clients hold."""
        self._fold()
        self.epoch = epoch
        self._find_lone()
        self._steps = deque([self._steps[-1]], RING_ENTRIES + 1)
        self._texts.clear()
        self._fields, self._newest = 0, ""
        self._objects.clear()
        self._merged.clear()
        self._rollbacks = ()

    @property
    def state(self) -> State:
        """Return the state; not to be changed."""
        if self._folded != self.seq:
            self._fold()
        return self._state

    def _fold(self) -> None:
        """Take the texts that the state doesn't hold yet into it, and let go of those that left the ring."""
        folded, oldest = self._folded, self._oldest()
        for key, texts in self._texts.items():
            if texts[-1][0] <= folded:
                continue
            target = self._state[key]
            for seq, _, text in texts:
                if seq > folded:
                    # The same as RFC 7396 here: patches hold no nulls, and nested objects come whole.
                    target.update(orjson.loads(text))
            self._stale.add(key)
            if texts[0][0] <= oldest:
                texts[:] = [one for one in texts if one[0] > oldest] or texts[-1:]
        if self._fields:
            self._state[self._key].update(orjson.loads(self._newest))
            self._stale.add(self._key)
        self._folded = self.seq

    def _oldest(self) -> int:
        """Return the oldest place that the ring has, having let go of what is too old."""
        steps = self._steps
        while len(steps) > 1 and steps[1][1] < steps[-1][1] - RING_S:
            steps.popleft()
        return self.seq - len(steps) + 1

    def _keep_newest(self) -> None:
        """Move a lone channel's newest text into the ring's lists. It is of the newest seq: call before a next one."""
        if self._fields:
            self._keep({self._key: (self._fields, self._newest)}, self.seq)
            self._fields, self._newest = 0, ""

    def _keep(self, patched: Mapping[str, EncodedPatch], seq: int) -> None:
        known = self._texts
        for key, (fields, text) in patched.items():
            texts = known.get(key)
            if texts is None:
                known[key] = [(seq, fields, text)]
            elif len(texts) == 1 and not texts[0][1] & ~fields:
                texts[0] = (seq, fields, text)
            else:
                texts[:] = [one for one in texts if one[1] & ~fields]
                texts.append((seq, fields, text))

    @property
    def cursor(self) -> str:
        """Return the place from which a client with this state resumes."""
        return f"{self.epoch}.{self.seq}.{self._steps[-1][0]}"

    @property
    def tag(self) -> str:
        """Return the block's part of the cursor."""
        return self._steps[-1][0]

    @property
    def oldest_seq(self) -> int:
        """Return the oldest place from which a client resumes."""
        return self._oldest()

    @property
    def kept_changes(self) -> int:
        """Return how many changes the ring has."""
        return len(self._steps) - 1

    def unsummed(self) -> int:
        """Return how many objects the next checksum has to look at, at most; 0 where it is known."""
        return len(self._stale) + (len(self._texts) + bool(self._fields) if self._folded != self.seq else 0)

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
        step: Step,
        encode: Encoder,
        *,
        prove: bool,
        patched: Mapping[str, EncodedPatch] = _NOTHING,
    ) -> str:
        """Take a change into state and ring; return its fragment of a `block` frame.

        Args:
            change: What changes; None or empty when it only proves (a rollback).
            step: The block that the state is of afterwards.
            encode: The step's encoder.
            prove: Whether the checksum has to be in it.
            patched: Patches that are text already; keys that `change` doesn't name.
        """
        self._keep_newest()
        self._steps.append(step)  # bounded: the oldest place falls out
        prev = self.seq
        seq = prev + 1
        if change is not None:
            if self._folded != prev:
                self._fold()
            self._apply_objects(change, seq)
        self.seq = seq
        self._keep(patched, seq)
        if change is not None:
            self._fold()
        elif len(patched) == 1 and not prove and (seq + self._phase) % _CHECKSUM_EVERY:
            ((key, (_, text)),) = patched.items()
            return (
                f'{self._head()},"patch":{{"{key}":{text}}},"prev":{prev},"seq":{seq},'
                f'"cursor":"{self.epoch}.{seq}.{step[0]}"}}'
            )
        prove = prove or (seq + self._phase) % _CHECKSUM_EVERY == 0
        return self._fragment(change, patched, prev, step[0], encode, prove=prove)

    def _apply_objects(self, change: Change, seq: int) -> None:
        """Take objects in. What is kept is our own: the engine's objects live on."""
        state, stale = self._state, self._stale
        for key in change.remove:
            state.pop(key, None)
            self._texts.pop(key, None)
            stale.add(key)
        kept = {key: dict(value) for key, value in change.set.items()}
        for key, value in kept.items():
            state[key] = dict(value)
            self._texts.pop(key, None)
            stale.add(key)
        for key, patch in change.patch.items():
            state[key].update(patch)
            stale.add(key)
        self._find_lone()
        objects = self._objects
        objects.append((seq, Change(set=kept, patch=change.patch, remove=change.remove)))
        oldest = seq - self.seq + self._oldest()  # the step is in the ring already, its seq is not set yet
        while objects[0][0] <= oldest:
            objects.popleft()

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
        proof = f',"checksum":{self.checksum()}' if prove else ""
        return f'{self._head()}{extra},"prev":{prev},"seq":{self.seq}{proof},"cursor":"{self.epoch}.{self.seq}.{tag}"}}'

    def _tag_at(self, seq: int) -> str | None:
        index = seq - self._oldest()
        return self._steps[index][0] if 0 <= index < len(self._steps) else None

    def note_rollback(self, rollback: Rollback) -> None:
        """Remember that the newest change told of a reorganisation, for as long as the ring reaches behind it."""
        oldest = self._oldest()
        self._rollbacks = (*[one for one in self._rollbacks if one[0] > oldest], (self.seq, rollback))

    def rollbacks_since(self, seq: int) -> list[Rollback]:
        """Return the reorganisations that (seq, now] tells of, oldest first."""
        return [rollback for at, rollback in self._rollbacks if at > seq]

    def resumable(self, cursor: Cursor) -> bool:
        """Return whether a client at this cursor can go on from it without a snapshot."""
        return cursor.epoch == self.epoch and self._tag_at(cursor.seq) == cursor.block_tag

    def since(self, seq: int) -> Change | None:
        """Return the one change that covers (seq, now], None where the ring no longer has all of it."""
        if self._tag_at(seq) is None:
            return None
        self._keep_newest()
        merged = Change()
        # Fields of texts come whole, so texts in a row are one patch: composed once, not one by one.
        run: dict[str, JsonObject] = {}
        texts = [(one[0], key, one[2]) for key, known in self._texts.items() for one in known if one[0] > seq]
        texts.sort(key=itemgetter(0))
        objects = [one for one in self._objects if one[0] > seq]
        for at, change in objects:
            while texts and texts[0][0] < at:
                _merge_text(run, *texts.pop(0)[1:])
            merged, run = compose(compose(merged, Change(patch=run)), change), {}
        for _, key, text in texts:
            _merge_text(run, key, text)
        return compose(merged, Change(patch=run)) if run else merged

    def merged_fragment(self, seq: int) -> str | None:
        """Return the fragment that covers (seq, now] with a checksum.

        None where a snapshot has to be sent, or is shorter: most keys are gone, say, and a few are left.
        """
        if self._merged_at != self.seq:
            self._merged.clear()
            self._merged_at = self.seq
        fragment = self._merged.get(seq)
        if fragment is None:
            change = self.since(seq)
            if change is None:
                return None
            fragment = self._fragment(change, _NOTHING, seq, self._steps[-1][0], Encoder(), prove=True)
            # A fragment under this size is never longer: it spares a look at the state.
            if len(fragment) > _SNAPSHOT_HEAD and len(fragment) > _SNAPSHOT_HEAD + len(orjson.dumps(self.state)):
                fragment = ""
            self._merged[seq] = fragment
        return fragment or None

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


def apply_lone(
    streams: Mapping[str, Stream],
    lone: Iterable[LonePatches],
    step: Step,
    told: list[Stream],
    *,
    prove: bool,
) -> None:
    """Take a step's lone patches into their streams, and leave each its fragment.

    What `Stream.apply` does, for channels with one object and all of them in one loop: where a block moves every
    position, the calls and the objects between them cost more than the text.

    Args:
        streams: The open ones, by channel; a patch of another channel is nobody's.
        lone: The patches.
        step: The block that the states are of afterwards.
        told: Takes the streams.
        prove: Whether the checksums have to be in them.
    """
    tag = step[0]
    # By the seq before: the next one, its turn to prove, and what a fragment says behind its patch.
    places: dict[int, tuple[int, int, str, str]] = {}
    for batch in lone:
        fields, lacking = batch.fields, ~batch.fields
        for channel, text in zip(batch.channels, batch.texts, strict=True):
            stream = streams.get(channel)
            if stream is None:
                continue
            prev = stream.seq
            place = places.get(prev)
            if place is None:
                seq = prev + 1
                turn = -seq % _CHECKSUM_EVERY
                place = places[prev] = seq, turn, f'}},"prev":{prev},"seq":{seq}', f'.{seq}.{tag}"}}'
            seq, turn, middle, tail = place
            known = stream._fields
            if known != fields:
                if known & lacking:
                    stream._keep_newest()
                stream._fields = fields
            stream._newest = text
            stream.seq = seq
            stream._steps.append(step)  # bounded: the oldest place falls out
            proof = f',"checksum":{stream.checksum()}' if prove or stream._phase == turn else ""
            stream.fragment = f'{stream._lone_head}{text}{middle}{proof},"cursor":"{stream.epoch}{tail}'
            told.append(stream)


def _merge_text(run: dict[str, JsonObject], key: str, text: str) -> None:
    patch = orjson.loads(text)
    mine = run.get(key)
    if mine is None:
        run[key] = patch
    else:
        mine.update(patch)


def block_tag(block_hash: str) -> str:
    """Return the part of a block hash that cursors hold."""
    return cursor_text("", 0, block_hash)[3:]


def _dumps(value: JsonObject) -> str:
    return orjson.dumps(value).decode()


def _members(objects: State, encode: Callable[[JsonObject], str]) -> Iterator[str]:
    for key, value in objects.items():
        yield f"{orjson.dumps(key).decode()}:{encode(value)}"
