"""A channel's stream on a gateway: its places come from the engine, and so do its fragments, which stay as they are.

Fragments are parsed for the state only, some at a time. Merged changes need no history of values: as values are
absolute, what covers (seq, now] is the fields that changed since seq as they are now. So a mirror remembers of each
field when it changed last, and nothing else.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson

from ..broker.steps import NO_SHAPE, Entry, Held, Snapshot
from ..domain.chain import Rollback
from ..domain.diff import Change, State
from ..domain.errors import PermanentError
from ..domain.ids import ChainId
from .stream import RING_ENTRIES, Encoder, Step, Stream

__all__ = ["Mirror", "leads_on"]

# Parsed together. A fragment with a checksum comes as often, and is where the copy is proved.
_MAX_UNREAD: Final = 16
# The seq at which a whole object was set, among those of its fields. No field is called so.
_WHOLE: Final = ""
# Removed keys that are remembered before it is asked which of them the ring has left behind.
_MAX_GONE: Final = 64


def leads_on(epoch: str, seq: int, entries: Sequence[Entry]) -> bool:
    """Return whether entries follow a place without a gap."""
    return all(entry.epoch == epoch and entry.seq == seq + at for at, entry in enumerate(entries, 1))


class Mirror(Stream):
    """A channel that is open on a gateway.

    Args:
        channel: Its name.
        chain_id: The chain that it is anchored to.
        held: A snapshot, and the history around it.
        now_ms: The engine's wall clock when the newest entry was published; the history's age is relative to it.
        clock: Monotonic seconds.
        shard: Which of the chain's engines it comes from.

    Raises:
        PermanentError: The history doesn't hang together, or isn't readable.
    """

    __slots__ = ("_changed", "_gone", "_unread", "is_broken")

    def __init__(
        self, channel: str, chain_id: ChainId, held: Held, now_ms: int, clock: Callable[[], float], shard: str = ""
    ) -> None:
        snapshot = _snapshot_of(held)
        super().__init__(channel, chain_id, snapshot.epoch, {}, "", clock, snapshot.seq, shard)
        self.replace(held, now_ms, clock())

    def replace(self, held: Held, now_ms: int, now: float) -> None:
        """Begin anew with another history. Listeners stay, and have to be told; raises as the constructor."""
        snapshot = _snapshot_of(held)
        before = [entry for entry in held.entries if entry.seq <= snapshot.seq]
        after = held.entries[len(before) :]
        first = snapshot.seq - len(before)
        if not leads_on(snapshot.epoch, first, held.entries):
            raise PermanentError(f"the history of {self.channel} has a gap")
        try:
            state: State = orjson.loads(snapshot.state)
        except orjson.JSONDecodeError as error:
            raise PermanentError(f"the snapshot of {self.channel} is not readable") from error
        self.epoch = snapshot.epoch
        self.seq = self._folded = snapshot.seq
        self._state = state
        self._sum = 0
        self._crcs.clear()
        self._stale = set(state)
        self._merged.clear()
        self._rollbacks = ()
        # Whether the copy was found to differ from what the engine says of it.
        self.is_broken = False
        # By key: field → the seq at which it changed last; and the keys that are no more.
        self._changed: dict[str, dict[str, int]] = {}
        self._gone: dict[str, int] = {}
        # Shape and fragment of the changes that the state doesn't hold yet.
        self._unread: list[tuple[str, str]] = []

        def at(at_ms: int) -> float:
            return now - max(now_ms - at_ms, 0) / 1000

        places: list[Step] = [(entry.tag, at(entry.at_ms)) for entry in before]
        if not places:
            places = [(snapshot.tag, at(snapshot.at_ms))]
        self._steps = deque(places, RING_ENTRIES + 1)
        for entry in before:
            self._note(entry.seq, orjson.loads(entry.fragment))
            if entry.rollback is not None:
                self._note_rollback(entry.seq, entry.rollback)
        for entry in after:
            self.take(entry, at(entry.at_ms))

    def take(self, entry: Entry, now: float) -> None:
        """Take the next entry of the history; whether it is that has been looked at."""
        assert (entry.epoch, entry.seq) == (self.epoch, self.seq + 1)
        self.follow(entry.shape, entry.fragment, (entry.tag, now), entry.rollback)

    def follow(self, shape: str, fragment: str, step: Step, rollback: Rollback | None) -> None:
        """Take what the next entry says. A gateway's hottest loop but for the writing: see broker.steps.Entry."""
        self._steps.append(step)
        self.seq += 1
        unread = self._unread
        unread.append((shape, fragment))
        if rollback is not None:
            self._note_rollback(self.seq, rollback)
        if len(unread) >= _MAX_UNREAD or '"checksum":' in fragment:
            self._fold()

    def _note_rollback(self, seq: int, rollback: Rollback) -> None:
        oldest = self._oldest()
        self._rollbacks = (*[one for one in self._rollbacks if one[0] > oldest], (seq, rollback))

    def _fold(self) -> None:
        """Take what is unread into the state, and prove it where the engine said what it is."""
        state, stale = self._state, self._stale
        unread, self._unread = self._unread, []
        # Of a shape the last one leaves nothing of those before: in a busy market one in ten has to be parsed.
        last = {shape: seq for seq, (shape, _) in enumerate(unread, self._folded + 1)}
        told: Any = None
        for seq, (shape, text) in enumerate(unread, self._folded + 1):
            if last[shape] != seq and shape != NO_SHAPE:
                continue
            told = orjson.loads(text)
            for key in told.get("remove", ()):
                state.pop(key, None)
                stale.add(key)
            for key, value in told.get("set", {}).items():
                state[key] = value
                stale.add(key)
            for key, patch in told.get("patch", {}).items():
                # The same as RFC 7396 here: patches hold no nulls, and nested objects come whole.
                state[key].update(patch)
                stale.add(key)
            self._note(seq, told)
        self._folded = self.seq
        if len(self._gone) > _MAX_GONE:
            oldest = self._oldest()
            self._gone = {key: seq for key, seq in self._gone.items() if seq > oldest}
        if told is not None and "checksum" in told and told["checksum"] != self.checksum():
            self.is_broken = True

    def _note(self, seq: int, told: Any) -> None:
        """Remember what a change touched."""
        changed, gone = self._changed, self._gone
        for key in told.get("remove", ()):
            changed.pop(key, None)
            gone[key] = seq
        for key in told.get("set", ()):
            changed[key] = {_WHOLE: seq}
            gone.pop(key, None)
        for key, patch in told.get("patch", {}).items():
            fields = changed.get(key)
            if fields is None:
                changed[key] = dict.fromkeys(patch, seq)
            else:
                fields |= dict.fromkeys(patch, seq)

    def unsummed(self) -> int:
        """Return how many objects the next checksum has to look at, at most; 0 where it is known."""
        return len(self._stale) + len(self._unread)

    def since(self, seq: int) -> Change | None:
        """Return the one change that covers (seq, now], None where the ring no longer has all of it."""
        if self._tag_at(seq) is None:
            return None
        state = self.state
        change = Change(remove=[key for key, at in self._gone.items() if at > seq])
        for key, fields in self._changed.items():
            if fields.get(_WHOLE, 0) > seq:
                change.set[key] = state[key]
            elif patch := {name: state[key][name] for name, at in fields.items() if at > seq and name != _WHOLE}:
                change.patch[key] = patch
        return change

    def apply(self, change: Change | None, step: Step, encode: Encoder, *, prove: bool, patched: Any = None) -> str:
        """Do nothing of the sort: changes of a mirror come as entries."""
        raise NotImplementedError("a mirror takes entries")


def _snapshot_of(held: Held) -> Snapshot:
    if held.snapshot is None:
        raise PermanentError("a channel begins with a snapshot")
    return held.snapshot
