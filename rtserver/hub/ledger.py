"""An engine's streams: they mint the places and encode the changes, and nobody listens to them here.

Turns what the engine publishes into steps that gateways can follow, and all of it into the beginning of a run. Never
sends one: that may take time, or not be this engine's turn.
"""

import secrets
import time
from collections.abc import Callable, Iterable
from typing import Final
from zlib import crc32

import orjson

from ..broker.steps import NO_SHAPE, Entry, Snapshot
from ..broker.steps import Step as BrokerStep
from ..domain.chain import Header, Rollback
from ..domain.ids import ChainId
from ..domain.update import BlockUpdate
from .stream import Stream
from .taking import take_update

__all__ = ["Ledger"]

# A joining gateway replays at most so many entries; a snapshot goes along with one change in so many.
_SNAPSHOT_EVERY: Final = 64
# A run begins in steps of about this size: a script that writes more holds Redis up for others.
_BEGIN_BYTES: Final = 8 * 1024 * 1024
_BEGIN_CHANNELS: Final = 1000


class Ledger:
    """One chain's channels in an engine.

    Args:
        chain_id: The chain.
        clock: Monotonic seconds.
        wall_ms: Milliseconds since the epoch.
    """

    def __init__(
        self,
        chain_id: ChainId,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._chain_id = chain_id
        self._clock = clock
        self._wall_ms = wall_ms
        # New with every process: no epoch of another one is ever minted again.
        self._epoch: Final = secrets.token_hex(4)
        self._opened = 0
        self.streams: dict[str, Stream] = {}
        # The place of each channel's newest snapshot.
        self._snapped: dict[str, int] = {}
        self.head: Header | None = None
        self._head_at = 0.0

    def head_age_ms(self) -> int | None:
        """Return how long ago the newest block was published, None before any."""
        return None if self.head is None else int((self._clock() - self._head_at) * 1000)

    def take(self, update: BlockUpdate) -> BrokerStep:
        """Take what the engine publishes into the streams; return what gateways have to hear."""
        now = self._clock()
        if update.is_new_head or self.head is None:
            self._head_at = now
        self.head = update.header
        rollback = update.rollback
        told: list[Stream] = []
        try:
            take_update(self.streams, update, told, now)
            if rollback is not None and rollback.to is None:
                # The chain turned deeper than anyone remembers: nothing proves what led here.
                step = self._step(None)
                for stream in told:
                    stream.begin_epoch(self._next_epoch())
                    self._add_opened(step, stream)
            else:
                step = self._step(rollback)
                shapes = _shapes(update)
                for stream in told:
                    self._add_entry(step, stream, rollback, shapes.get(stream.channel, NO_SHAPE))
        finally:
            for stream in told:
                stream.fragment = ""
        for name, state in update.opened.items():
            stream = Stream(name, self._chain_id, self._next_epoch(), state, update.header.hash, self._clock)
            self.streams[name] = stream
            self._add_opened(step, stream)
        step.refused.update(update.refused)
        return step

    def begin_run(self) -> list[BrokerStep]:
        """Return the steps that begin a run: everything there is, under epochs that nobody has seen."""
        assert self.head is not None
        steps = [step := self._step(None)]
        size = 0
        for stream in self.streams.values():
            if size > _BEGIN_BYTES or len(step.opened) >= _BEGIN_CHANNELS:
                steps.append(step := self._step(None))
                size = 0
            stream.begin_epoch(self._next_epoch())
            size += len(self._add_opened(step, stream).state)
        steps[0].begins_run = True
        for step in steps[:-1]:
            step.is_complete = False
        return steps

    def forget(self, names: Iterable[str]) -> None:
        """Let go of channels that were closed."""
        for name in names:
            self.streams.pop(name, None)
            self._snapped.pop(name, None)

    def _next_epoch(self) -> str:
        self._opened += 1
        return f"{self._epoch}{self._opened:x}"

    def _step(self, rollback: Rollback | None) -> BrokerStep:
        assert self.head is not None
        return BrokerStep(header=self.head, rollback=rollback, age_ms=self.head_age_ms() or 0)

    def _add_opened(self, step: BrokerStep, stream: Stream) -> Snapshot:
        step.opened.append(stream.channel)
        return self._add_snapshot(step, stream)

    def _add_snapshot(self, step: BrokerStep, stream: Stream) -> Snapshot:
        self._snapped[stream.channel] = stream.seq
        snapshot = step.snapshots[stream.channel] = Snapshot(
            epoch=stream.epoch,
            seq=stream.seq,
            tag=stream.tag,
            at_ms=self._wall_ms(),
            state=orjson.dumps(stream.state),
        )
        return snapshot

    def _add_entry(self, step: BrokerStep, stream: Stream, rollback: Rollback | None, shape: str) -> None:
        name, seq = stream.channel, stream.seq
        step.entries[name] = Entry(
            epoch=stream.epoch,
            seq=seq,
            tag=stream.tag,
            at_ms=self._wall_ms(),
            fragment=stream.fragment,
            shape=shape,
            rollback=rollback,
        )
        oldest = stream.oldest_seq
        # Channels that opened together are not written anew together.
        if self._snapped[name] < oldest or (seq + crc32(name.encode())) % _SNAPSHOT_EVERY == 0:
            self._add_snapshot(step, stream)
        # The history leads on from the snapshot, and from the ring's oldest place, whose own entry names its block.
        step.oldest[name] = min(oldest, self._snapped[name] + 1)


def _shapes(update: BlockUpdate) -> dict[str, str]:
    """Return the shapes of the changes that are patches in text, by channel.

    The fields of a lone object, as they stand for themselves; of several, a hash over keys and fields. That is of 64
    bits and seeded by the process, as epochs are, so nobody makes two alike, and among a channel's last sixteen
    changes none are by chance.
    """
    shapes = {
        name: f"m{hash(tuple([(key, fields) for key, (fields, _) in texts.items()])):x}"
        for name, texts in update.patched.items()
        if name not in update.changes
    }
    for batch in update.lone:
        shapes.update(dict.fromkeys(batch.channels, f"{batch.fields:x}"))
    return shapes
