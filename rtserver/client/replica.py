"""The copy of one channel: what it takes to be exact. Pure; never asks for anything, it only judges.

A copy moves in two ways: a whole snapshot replaces it, a change that fits (same epoch, `prev` is our `seq`)
moves it on. Where a checksum comes along it is proved before the copy moves, so a wrong copy is never seen.
Every move makes a new outer dict and new objects for the changed keys: states handed out stay as they are.
"""

from dataclasses import dataclass, field
from enum import Enum

from ..domain.diff import Change, State, apply
from ..wire.checksum import checksum_of
from ..wire.messages import BlockRefMessage, ChangeMessage, Snapshot

__all__ = ["Replica", "Verdict"]


class Verdict(Enum):
    """What became of a message. All but the first three call for a resync, for the reason that they name."""

    APPLIED = "applied"
    PARTIAL = "partial"  # a snapshot's part was taken, more have to come
    COVERED = "covered"  # the copy already holds what a held change says
    EPOCH = "epoch"
    GAP = "gap"
    UNKNOWN_KEY = "unknown_key"
    CHECKSUM = "checksum"


@dataclass(slots=True)
class _Parts:
    epoch: str
    seq: int
    seen: set[int] = field(default_factory=set)
    state: State = field(default_factory=dict)


class Replica:
    """A channel's copy; `epoch` is empty until the first snapshot.

    `is_proved` says whether the newest checksum matched; None before any came. `last_sums` is (ours, theirs)
    of the newest checksum.
    """

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.epoch = ""
        self.seq = -1
        self.cursor: str | None = None
        self.block = BlockRefMessage(number=0, hash="")
        self.state: State = {}
        self.is_proved: bool | None = None
        self.last_sums: tuple[int, int] | None = None
        self._parts: _Parts | None = None

    @property
    def is_whole(self) -> bool:
        """Return whether there is a copy."""
        return bool(self.epoch)

    def forget_parts(self) -> None:
        """Drop the parts of a snapshot whose rest will not come: the connection ended."""
        self._parts = None

    def take(self, snapshot: Snapshot) -> Verdict:
        """Take a snapshot or a part of one, in any order: APPLIED, PARTIAL or CHECKSUM."""
        parts = self._parts
        if parts is None or (parts.epoch, parts.seq) != (snapshot.epoch, snapshot.seq):
            parts = self._parts = _Parts(snapshot.epoch, snapshot.seq)
        parts.seen.add(snapshot.part)
        parts.state.update(snapshot.state)
        if len(parts.seen) < snapshot.parts:
            return Verdict.PARTIAL
        self._parts = None
        if not self._prove(parts.state, snapshot.checksum):
            return Verdict.CHECKSUM
        self.epoch, self.seq, self.cursor = snapshot.epoch, snapshot.seq, snapshot.cursor
        self.block, self.state = snapshot.block, parts.state
        return Verdict.APPLIED

    def apply(self, message: ChangeMessage, block: BlockRefMessage) -> Verdict:
        """Apply a change wholly or not at all."""
        if message.epoch != self.epoch:
            return Verdict.EPOCH
        if message.prev != self.seq:
            return Verdict.GAP
        state = dict(self.state)
        try:
            for key in message.patch:
                state[key] = dict(state[key])
            apply(state, change_of(message))
        except KeyError:
            return Verdict.UNKNOWN_KEY
        if message.checksum is not None and not self._prove(state, message.checksum):
            return Verdict.CHECKSUM
        self.seq, self.cursor, self.block, self.state = message.seq, message.cursor, block, state
        return Verdict.APPLIED

    def apply_held(self, message: ChangeMessage, block: BlockRefMessage) -> Verdict:
        """Apply a change that arrived while a snapshot was awaited, which may cover it already."""
        if message.epoch != self.epoch or message.seq <= self.seq:
            return Verdict.COVERED  # another epoch's change was sent before the snapshot that replaced it
        return self.apply(message, block)

    def confirm(self, theirs: int) -> bool:
        """Return whether the copy has this checksum, which the server gave for its seq."""
        return self._prove(self.state, theirs)

    def _prove(self, state: State, theirs: int) -> bool:
        # The whole sum anew, though a running sum would do: only this proves the dict that is handed out.
        ours = checksum_of(state)
        self.last_sums = (ours, theirs)
        self.is_proved = ours == theirs
        return self.is_proved


def change_of(message: ChangeMessage) -> Change:
    """Return a message's change."""
    return Change(set=message.set, patch=message.patch, remove=message.remove)
