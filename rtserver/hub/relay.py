"""A gateway's side of one chain: which steps are applied, when everything has to be read again, what opens when.

The rule: in the run that it is in, a gateway applies the next step, and nothing else. Whatever else happens makes it
heal: it reads all that it holds as of one step, and goes on from there. Pure: hears, is told what was read, and says
what to read next; never waits.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from ..broker.ports import Place, Reading
from ..broker.steps import Entry, Heard, Held, decode_entry, split_entry
from ..domain.chain import Header
from ..domain.errors import PermanentError
from ..domain.ids import ChainId
from ..obs.metrics import Metrics
from ..protocols.channels import Channel
from .hub import Hub
from .mirror import Mirror, leads_on
from .stream import Stream, block_tag

__all__ = ["Relay"]

log = structlog.get_logger(__name__)

# Steps kept while something is read: at four blocks a second, more than a read may take. Over it, the read is in vain.
_MAX_KEPT: Final = 256
# Channels in one read: a script that answers with more holds Redis up for others.
_READ_CHANNELS: Final = 500
# A read whose steps don't arrive is made again.
_READ_S: Final = 3.0
# After a read that was in vain, unless something is heard before.
_AGAIN_S: Final = 0.25


@dataclass(slots=True)
class _Read:
    """A read in parts. Each part is of its own step; the kept steps lead all of them to the newest one's."""

    names: list[str]
    began: float
    # Where the reader was: Redis has all that was told, or has lost some of it.
    since: tuple[str, int]
    asked: list[str] = field(default_factory=list)
    parts: list[Reading] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Return whether all parts are here."""
        return bool(self.parts) and not self.names and not self.asked


@dataclass(frozen=True, slots=True)
class _Anchor:
    """Where everything moves when a gateway has healed."""

    run: str
    number: int
    header: Header
    age_s: float


class Relay:
    """One chain's mirrors, and the hub that they are in.

    Args:
        chain_id: The chain.
        name: Its name in logs and metrics.
        hub: Where the channels are open.
        metrics: Where heals are counted.
        clock: Monotonic seconds, the hub's.
        shard: Which of the chain's engines is followed, where several share it.
    """

    def __init__(
        self,
        chain_id: ChainId,
        name: str,
        hub: Hub,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        shard: str = "",
    ) -> None:
        self._chain_id = chain_id
        self._shard = shard
        self._name = name
        self._hub = hub
        self._metrics = metrics
        self._clock = clock
        # Called when there may be something to read or to announce.
        self.wake: Callable[[], None] = lambda: None
        self._run, self._number = "", 0
        self._is_live = False
        self._is_listening = False
        # Until when the engine holds our channels open for sure; what is held after that has to be read again.
        self._leased_until = 0.0
        # The run that was heard or read of last. What kept channels open before it need not be known to its Redis.
        self._sighted = ""
        self._wanted: dict[str, Channel] = {}
        self._mirrors: dict[str, Mirror] = {}
        # Wished for, not open, and possibly there: to be read. What is not there will be heard of.
        self._cold: dict[str, None] = {}
        self._kept: deque[Heard] = deque()
        self._read: _Read | None = None
        self._not_before = 0.0
        self._added: dict[str, None] = {}
        self._removed: dict[str, None] = {}

    # --- wishes ---------------------------------------------------------------------------------------

    def want(self, channel: Channel) -> None:
        """Open a channel as soon as it is there."""
        name = channel.name
        self._wanted[name] = channel
        self._removed.pop(name, None)
        self._added[name] = None
        self._cold[name] = None
        self.wake()

    def unwant(self, channel: Channel) -> None:
        """Close a channel."""
        name = channel.name
        self._wanted.pop(name, None)
        self._mirrors.pop(name, None)
        self._cold.pop(name, None)
        self._added.pop(name, None)
        self._removed[name] = None
        self.wake()

    def next_wishes(self) -> tuple[list[str], list[str]]:
        """Return what is wished for, and what no longer is, and was not announced yet."""
        return list(self._added), list(self._removed)

    def announced(self, added: Iterable[str], removed: Iterable[str], until: float, *, are_all_there: bool) -> None:
        """Note that wishes were announced, and until when they hold, monotonic.

        Where the earlier ones were gone all have to be announced anew: what they kept open may have been closed.
        """
        if not are_all_there and self._wanted.keys() - set(added):
            self._break("the wishes of this gateway had expired")
            self._added = dict.fromkeys(self._wanted)
            self._leased_until = 0.0
            self.wake()
            return
        for name in added:
            self._added.pop(name, None)
        for name in removed:
            self._removed.pop(name, None)
        self._leased_until = until

    @property
    def is_leased(self) -> bool:
        """Return whether the wishes are known where the steps come from; if not, they are to be announced at once."""
        return self._clock() <= self._leased_until

    def give_up(self) -> list[Channel]:
        """Let go of everything: the chain is followed anew in another way. Return what was wished for."""
        self._break("the chain is shared in another way")
        for mirror in list(self._mirrors.values()):
            self._hub.lose(mirror)
        wanted = list(self._wanted.values())
        self._mirrors.clear()
        self._wanted.clear()
        return wanted

    # --- the line -------------------------------------------------------------------------------------

    @property
    def is_live(self) -> bool:
        """Return whether steps are followed as they come."""
        return self._is_live

    def report(self) -> dict[str, Any]:
        """Return what the health report says of the chain."""
        return {"live": self._is_live, "run": self._run, "step": self._number}

    def listen(self) -> None:
        """Note that from now on every step is heard, and that some may have been missed."""
        self._is_listening = True
        self._kept.clear()
        # Another Redis may be at its end, or the same one without what it was told.
        self._leased_until = 0.0
        self._break("listening began")

    def deafen(self) -> None:
        """Note that nothing is heard any more."""
        self._is_listening = False
        self._break("the line broke")

    def hear(self, heard: Heard) -> None:
        """Take a step as it was published."""
        self._sight(heard.run)
        if heard.is_beat:
            if self._is_live and (heard.run, heard.number) != (self._run, self._number):
                self._break("a step was missed")
            return
        self._not_before = 0.0
        if self._read is not None:
            self._kept.append(heard)
            if len(self._kept) > _MAX_KEPT:
                self._kept.clear()
                self._break("reading took too long")
        if self._is_live:
            self._follow(heard)
        self._settle()
        self.wake()

    def _sight(self, run: str) -> None:
        """Note which run there is.

        A Redis that was emptied begins a new run without any wishes. Its engine closes what nobody wishes for, and says
        nothing of it: whoever entered the run before it was wished for there would show what moves no more.
        """
        if run != self._sighted:
            self._sighted = run
            self._leased_until = 0.0
            self.wake()

    def _break(self, reason: str) -> None:
        """Leave the run: from here nothing is told until all has been read again."""
        self._drop_read()
        if self._is_live:
            log.info("gateway heals", chain=self._name, reason=reason, step=self._number)
            self._metrics.heals.labels(self._name).inc()
        self._is_live = False
        self.wake()

    def _follow(self, heard: Heard) -> None:
        """Apply the next step; anything else ends the run."""
        if heard.run != self._run:
            self._break("another run began")
        elif heard.number != self._number + 1:
            if heard.number > self._number:
                self._break("a step was missed")
        elif not heard.opened.isdisjoint(self._mirrors):
            self._break("a channel began anew")
        elif self._mirrors and self._clock() > self._leased_until:
            self._break("the wishes of this gateway may have expired")
        else:
            self._apply(heard)

    def _apply(self, heard: Heard) -> None:
        assert heard.header is not None
        mirrors = self._mirrors
        due: list[tuple[Mirror, str, str]] = []
        # In the engine's order: frames look the same on every gateway.
        for name, text in heard.entries.items():
            mirror = mirrors.get(name)
            if mirror is not None:
                epoch, seq, shape, fragment = split_entry(text)
                if seq != mirror.seq + 1 or epoch != mirror.epoch:
                    self._break("a channel's change was missed")
                    return
                due.append((mirror, shape, fragment))
        self._number = heard.number
        step, rollback = (block_tag(heard.header.hash), self._clock() - heard.age_s), heard.rollback
        for mirror, shape, fragment in due:
            mirror.follow(shape, fragment, step, rollback)
        for mirror, _, fragment in due:
            mirror.fragment = fragment
        told: list[Stream] = [mirror for mirror, _, _ in due]
        self._hub.deliver(self._chain_id, heard.header, heard.age_s, told, rollback, self._shard)
        self._note(heard)
        if any(mirror.is_broken for mirror, _, _ in due):
            self._break("a copy differs from the engine's")

    def _note(self, heard: Heard) -> None:
        """Take note of what a step says of channels that are not open."""
        for name in heard.opened & self._wanted.keys():
            self._cold[name] = None
        for name, error in heard.refused.items():
            if name in self._wanted and name not in self._mirrors:
                self.unwant(self._wanted[name])
                self._hub.refuse(name, error)

    # --- reading --------------------------------------------------------------------------------------

    def next_read(self) -> dict[str, Place] | None:
        """Return what to read now, None for nothing. Each answer goes to `read` or `read_failed`."""
        if self._read is None:
            now = self._clock()
            if not self._is_listening or now < self._not_before:
                return None
            # A wish that the engine may not know of holds nothing open.
            names = [name for name in self._cold if name not in self._added and name not in self._mirrors]
            if not self._is_live:
                if not self.is_leased:
                    return None
                names = [*self._mirrors, *names]
            elif not names:
                return None
            for name in names:
                self._cold.pop(name, None)
            self._kept.clear()
            self._read = _Read(names, self._clock(), (self._run, self._number))
        read = self._read
        if read.asked or (read.parts and not read.names):
            return None
        read.asked, read.names = read.names[:_READ_CHANNELS], read.names[_READ_CHANNELS:]
        return {name: self._place(name) for name in read.asked}

    def _place(self, name: str) -> Place:
        mirror = self._mirrors.get(name)
        return None if mirror is None or mirror.is_broken else (mirror.epoch, mirror.seq)

    def read(self, reading: Reading) -> None:
        """Take the answer to what was last to be read."""
        if self._read is not None:
            self._read.asked = []
            self._read.parts.append(reading)
            if reading.run:
                self._sight(reading.run)
            self._settle()

    def read_failed(self) -> None:
        """Note that there is no answer."""
        self._abandon()

    def tend(self) -> None:
        """Give up a read whose steps don't arrive; called about twice a second."""
        if self._read is not None and self._clock() - self._read.began > _READ_S:
            self._abandon()
            self._break("steps were read of and not heard")
        self.wake()

    def _abandon(self) -> None:
        """Give up a read, and make it again a little later."""
        self._drop_read()
        self._not_before = self._clock() + _AGAIN_S

    def _drop_read(self) -> None:
        """Forget a read. What is wished for and not open may be there: of that, too, something may have been missed."""
        self._read = None
        self._cold.update(dict.fromkeys(name for name in self._wanted if name not in self._mirrors))

    def _settle(self) -> None:
        """Use what was read, if all of it is here and the steps that lead to one place are."""
        read = self._read
        if read is None or not read.is_whole:
            return
        run, newest = read.parts[-1].run, max(part.number for part in read.parts)
        if any(part.run != run for part in read.parts):
            self._abandon()
        elif run == read.since[0] and any(part.number < read.since[1] for part in read.parts):
            # A replica that took over without the last steps. Clients have these; the engine will begin a new run.
            self._abandon()
            self._break("steps that were told are lost")
        elif self._is_live:
            if run != self._run:
                self._abandon()  # of a run that we will hear of
            elif newest <= self._number:
                self._read = None
                self._open(read, self._number)
        elif not run or not all(part.is_complete for part in read.parts) or not self.is_leased:
            self._abandon()
        else:
            self._heal(read, run, newest)

    def _heal(self, read: _Read, run: str, newest: int) -> None:
        oldest = min(part.number for part in read.parts)
        steps = {heard.number: heard for heard in self._kept if heard.run == run}
        if any(number not in steps for number in range(oldest + 1, newest + 1)):
            return  # on their way
        if any(not steps[number].opened.isdisjoint(self._mirrors) for number in range(oldest + 1, newest + 1)):
            self._abandon()
            return
        last = next(part for part in read.parts if part.number == newest)
        assert last.header is not None
        self._read = None
        if not self._open(read, newest, _Anchor(run, newest, last.header, last.age_s)):
            return
        self._is_live = True
        kept, self._kept = self._kept, deque()
        for heard in kept:
            if self._is_live and (heard.run != run or heard.number > newest):
                self._follow(heard)

    def _open(self, read: _Read, number: int, anchor: _Anchor | None = None) -> bool:
        """Lead what was read to a step; open what is new. With an anchor, everything moves there."""
        plans: dict[str, Held] = {}
        for part in read.parts:
            for name, held in part.channels.items():
                if name in self._wanted:
                    plans[name] = Held(
                        snapshot=held.snapshot, entries=[*held.entries, *self._later(name, held, part.number, number)]
                    )
        try:
            return self._commit(plans, anchor)
        except PermanentError as error:
            log.error("a channel is not readable", chain=self._name, error=str(error))
            self._abandon()
            self._break("a channel was not readable")
            return False

    def _later(self, name: str, held: Held, since: int, until: int) -> Iterable[Entry]:
        """Yield a channel's entries of the kept steps in (since, until]."""
        for heard in self._kept:
            if since < heard.number <= until and (text := heard.entries.get(name)) is not None:
                yield decode_entry(text)

    def _commit(self, plans: Mapping[str, Held], anchor: _Anchor | None) -> bool:
        moved: dict[Mirror, Sequence[Entry]] = {}
        replaced: dict[Mirror, Held] = {}
        fresh: list[Mirror] = []
        now = self._clock()
        for name, held in plans.items():
            mirror = self._mirrors.get(name)
            if mirror is None:
                fresh.append(Mirror(name, self._chain_id, held, _newest_ms(held), self._clock, self._shard))
            elif held.snapshot is not None:
                replaced[mirror] = held
            elif leads_on(mirror.epoch, mirror.seq, held.entries):
                moved[mirror] = held.entries
            else:
                self._break("a channel's history has a gap")
                return False
        if anchor is not None:
            self._move(moved, replaced, anchor, now)
        for mirror in fresh:
            self._mirrors[mirror.channel] = mirror
            self._cold.pop(mirror.channel, None)
            self._hub.take_in(mirror)
        return True

    def _move(
        self,
        moved: Mapping[Mirror, Sequence[Entry]],
        replaced: Mapping[Mirror, Held],
        anchor: _Anchor,
        now: float,
    ) -> None:
        """Move all that is open to the anchor, and tell it."""
        self._run, self._number = anchor.run, anchor.number
        told: dict[Stream, int] = {}
        for mirror, entries in moved.items():
            if entries:
                told[mirror] = mirror.seq
            for entry in entries:
                mirror.take(entry, now)
        for mirror, held in replaced.items():
            mirror.replace(held, _newest_ms(held), now)
        lost = [mirror for mirror in self._mirrors.values() if mirror not in moved and mirror not in replaced]
        for mirror in lost:
            # Wished for, and not there: the engine will have it, or refuse it.
            del self._mirrors[mirror.channel]
            self._hub.lose(mirror)
        self._hub.catch_up(self._chain_id, anchor.header, anchor.age_s, told, list(replaced), self._shard)


def _newest_ms(held: Held) -> int:
    """Return when the newest of a history was published: what came before is that much older."""
    assert held.snapshot is not None
    return max([held.snapshot.at_ms, *(entry.at_ms for entry in held.entries[-1:])])
