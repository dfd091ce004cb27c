"""Which head is believed when endpoints disagree. Pure; fetches nothing, knows no connection, is told the time.

Each node has one voice: the last head that it announced or answered, whichever way it came. A word counts for
`patience_s` after it was last said. Seen from the head that we follow, a word is

    head        that block
    behind      one of the blocks before it that can still be undone
    below       lower than all of these: of which branch can't be told
    ahead       higher, and not known to be of another branch
    far         higher by more than is worth linking
    elsewhere   of another branch

The rule, in this order:

 1. *Onward.* A word ahead that links to our head is followed at once, whoever says it. One that turns out not
    to link is elsewhere, and so is what is said on top of it.
 2. *Across.* A word elsewhere or far is followed at once if
    a. nobody else's word is at our head or behind it: the only node is always believed, silence is outlasted; or
    b. who says it had stood on our head and left it, and its new head is at least as high: a reorganisation; or
    c. more nodes said a block of that branch since we last crossed than have a word at our head or behind it; or
    d. it has been far for the patience: no chain's rule prefers ours to one that is so much higher.
    Everybody else lags or follows a fork of their own, and is waited for.
 3. *Back.* A word behind or below is a lag until it has outlasted one: nobody's word is at our head, and a node
    that had been as high as our head (or the only node) has gone on saying the same for the patience.
    One that walks up along our own blocks is never believed to have gone back: it catches up.

With an equal number on either side we stay where we are. A height alone never makes us cross: endpoints on two
branches that take turns in being higher would make us cross with each block.
"""

from collections.abc import Container
from dataclasses import dataclass
from enum import Enum
from typing import Final

from ..domain.chain import Header
from ..domain.ids import BlockHash
from .linker import Linker

__all__ = ["Move", "Place", "Proposal", "Voices"]

# Headers that are kept to link heads without asking: more than a reorg or a burst announces at once.
_SEEN_HEADERS: Final = 512


class Place(Enum):
    """Where a word is, seen from our head; see the module's text."""

    HEAD = "head"
    BEHIND = "behind"
    BELOW = "below"
    AHEAD = "ahead"
    FAR = "far"
    ELSEWHERE = "elsewhere"


class Move(Enum):
    """How a proposed head may be taken."""

    ONWARD = "onward"
    ACROSS = "across"
    BACK = "back"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A head to take next, and who said it: ONWARD only if it links to our head, ACROSS and BACK wherever it links."""

    header: Header
    move: Move
    node: str


@dataclass(slots=True)
class _Voice:
    node: str
    header: Header
    said_at: float
    since: float  # When it began to say this, with nothing else in between.
    peak: int  # The highest it was since we last crossed.
    has_left: bool = False
    far_since: float | None = None


class Voices:
    """What every node says, and what follows from it.

    Args:
        linker: The chain that we follow. Only read.
        patience_s: How long a word counts, and how long a step back has to last.
        nodes: How many nodes there are to be heard.
    """

    def __init__(self, linker: Linker, *, patience_s: float, nodes: int = 1) -> None:
        self._linker = linker
        self._patience_s = patience_s
        self._is_single = nodes <= 1
        self._voices: dict[str, _Voice] = {}
        self._elsewhere: dict[BlockHash, None] = {}
        self._crossed_at = float("-inf")
        self.seen: dict[BlockHash, Header] = {}

    def hear(self, node: str, header: Header, now: float) -> Place:
        """Note a node's word; return where it is."""
        self.note(header)
        place = self.place(header)
        old = self._voices.get(node)
        voice = _Voice(node, header, now, now, header.number)
        if old is not None:
            voice.peak = max(voice.peak, old.peak)
            if old.header.hash == header.hash:
                voice.since = old.since
            if place not in (Place.HEAD, Place.BEHIND, Place.BELOW):
                head = self._linker.head
                voice.has_left = old.has_left or (head is not None and old.header.hash == head.hash)
        if place is Place.FAR:
            voice.far_since = now if old is None or old.far_since is None else old.far_since
        self._voices[node] = voice
        return place

    def note(self, header: Header) -> None:
        """Remember a header for linking."""
        self.seen[header.hash] = header
        while len(self.seen) > _SEEN_HEADERS:
            gone = next(iter(self.seen))
            del self.seen[gone]
            self._elsewhere.pop(gone, None)

    def place(self, header: Header) -> Place:
        """Return where a block is, seen from our head."""
        head, base = self._linker.head, self._linker.base
        if head is None or base is None:
            return Place.FAR
        if header.hash == head.hash:
            return Place.HEAD
        if self._linker.holds(header.hash):
            return Place.BEHIND
        if header.number < base.number:
            return Place.BELOW
        if header.number > head.number + self._linker.max_gap:
            return Place.FAR
        if header.number <= head.number or header.hash in self._elsewhere or header.parent_hash in self._elsewhere:
            self._elsewhere[header.hash] = None
            return Place.ELSEWHERE
        return Place.AHEAD

    def refute(self, header: Header) -> None:
        """Note that a block ahead does not link to our head."""
        self.seen[header.hash] = header
        self._elsewhere[header.hash] = None

    def moved(self, *, has_crossed: bool, now: float) -> None:
        """Note that our head moved; `has_crossed` unless it only moved onward."""
        if has_crossed:
            self._elsewhere.clear()
            self._crossed_at = now
        for voice in self._voices.values():
            place = self.place(voice.header)
            if has_crossed or place is Place.HEAD:
                voice.has_left = False
            if has_crossed:
                voice.peak = voice.header.number
            if place is not Place.FAR:
                voice.far_since = None

    def announced(self, now: float) -> Header | None:
        """Return the highest block that counts and that may be of our chain."""
        ours = (Place.HEAD, Place.BEHIND, Place.AHEAD, Place.FAR)
        said = [voice.header for voice in self._counting(now) if self.place(voice.header) in ours]
        return max(said, key=_height, default=None)

    def places(self, now: float) -> dict[str, Place]:
        """Return where each node is whose word counts."""
        return {node: self.place(voice.header) for node, voice in self._voices.items() if self._counts(voice, now)}

    def choose(self, now: float, skip: Container[BlockHash] = ()) -> Proposal | None:
        """Return the head to take next, None where none is.

        Args:
            now: Monotonic seconds.
            skip: Heads that could not be linked for now.
        """
        head = self._linker.head
        assert head is not None
        at: dict[Place, list[_Voice]] = {place: [] for place in Place}
        for voice in self._counting(now):
            at[self.place(voice.header)].append(voice)
        ahead = [voice for voice in at[Place.AHEAD] if voice.header.hash not in skip]
        if ahead:
            # What links without asking goes first: another branch's higher head may take long to fetch.
            linked = [voice for voice in ahead if self._descends(voice.header, head.hash)]
            return _propose(linked or ahead, Move.ONWARD)
        ours = at[Place.HEAD] + at[Place.BEHIND]
        theirs = at[Place.ELSEWHERE] + at[Place.FAR]
        believed = [
            voice
            for voice in theirs
            if voice.header.hash not in skip and self._is_believed(voice, head, ours, theirs, now)
        ]
        if believed:
            return _propose(believed, Move.ACROSS)
        if not at[Place.HEAD]:
            gone_back = [
                voice
                for voice in at[Place.BEHIND] + at[Place.BELOW]
                if voice.header.hash not in skip and self._has_gone_back(voice, head)
            ]
            if gone_back:
                return _propose(gone_back, Move.BACK)
        return None

    def _is_believed(self, voice: _Voice, head: Header, ours: list[_Voice], theirs: list[_Voice], now: float) -> bool:
        if not ours:
            return True
        if voice.has_left and voice.header.number >= head.number:
            return True
        if voice.far_since is not None and now - voice.far_since >= self._patience_s:
            return True
        return len(theirs) > len(ours) and self._followers(voice, theirs) > len(ours)

    def _followers(self, voice: _Voice, theirs: list[_Voice]) -> int:
        return sum(
            1
            for other in theirs
            if other.since > self._crossed_at
            and (self._descends(voice.header, other.header.hash) or self._descends(other.header, voice.header.hash))
        )

    def _has_gone_back(self, voice: _Voice, head: Header) -> bool:
        was_there = self._is_single or voice.peak >= head.number
        return was_there and voice.said_at - voice.since >= self._patience_s

    def _descends(self, header: Header, ancestor: BlockHash) -> bool:
        """Return whether a block is known to be another one or to descend from it."""
        link = header
        while ancestor not in (link.hash, link.parent_hash):
            parent = self.seen.get(link.parent_hash)
            # Nodes are not trusted to answer without cycles.
            if parent is None or parent.number >= link.number:
                return False
            link = parent
        return True

    def _counts(self, voice: _Voice, now: float) -> bool:
        return now - voice.said_at <= self._patience_s

    def _counting(self, now: float) -> list[_Voice]:
        return [voice for voice in self._voices.values() if self._counts(voice, now)]


def _height(header: Header) -> int:
    return header.number


def _propose(voices: list[_Voice], move: Move) -> Proposal:
    voice = max(voices, key=lambda voice: (voice.header.number, voice.said_at))
    return Proposal(voice.header, move, voice.node)
