"""How long each position was in range since its last record, from every block's own word; undone with its block.

Pure. A second belongs to the state that a position had at the newest evaluated block before it. What blocks did that
were read together with a later one is not known, and counts as that one's.
"""

from collections import deque
from collections.abc import Collection, Hashable, Mapping
from typing import Final, Generic, NamedTuple, TypeVar

__all__ = ["Clocks"]

Key = TypeVar("Key", bound=Hashable)

# Published heads that can be undone one by one. Nearly all reorganisations are no deeper; after a deeper one all
# clocks begin again, and the seconds since each position's last record are not covered.
_DEPTH: Final = 8


class _Clock(NamedTuple):
    """`since` is the last record's time, None before the first one; `mark` tells whether anything changed since."""

    since: int | None
    active_s: int
    turned_at: int
    is_active: bool
    mark: int | None

    def active_until(self, now: int) -> int:
        return self.active_s + (max(now - self.turned_at, 0) if self.is_active else 0)


class Clocks(Generic[Key]):
    """The clocks of all positions that are tracked."""

    def __init__(self) -> None:
        self._clocks: dict[Key, _Clock] = {}
        # What was there before each of the newest heads.
        self._undo: deque[tuple[int, dict[Key, _Clock | None]]] = deque()
        self._floor = -1
        # What was last told of positions whose clock was put back; None: tracked no more.
        self._told: dict[Key, bool | None] = {}

    @property
    def keys(self) -> Collection[Key]:
        """Return the positions."""
        return self._clocks.keys()

    def step(self, number: int, now: int, turned: Mapping[Key, bool | None]) -> tuple[list[Key], list[Key]]:
        """Take a published head; return the new positions, and those that went in or out of range.

        Args:
            number: The head's height.
            now: Its timestamp in seconds.
            turned: Whether positions are in range of which that changed, or that are new; None: tracked no more.
        """
        if not self._undo or self._undo[-1][0] != number:
            self._undo.append((number, {}))
            if len(self._undo) > _DEPTH:
                self._floor = self._undo.popleft()[0]
        if self._told:
            turned = {**self._told, **turned}
            self._told = {}
        new, flipped = [], []
        for key, is_active in turned.items():
            clock = self._clocks.get(key)
            if is_active is None:
                if clock is not None:
                    self._set(key, None)
            elif clock is None:
                self._set(key, _Clock(None, 0, now, is_active, None))
                new.append(key)
            elif clock.is_active is not is_active:
                self._set(key, clock._replace(active_s=clock.active_until(now), turned_at=now, is_active=is_active))
                flipped.append(key)
        return new, flipped

    def _set(self, key: Key, clock: _Clock | None) -> None:
        self._undo[-1][1].setdefault(key, self._clocks.get(key))
        if clock is None:
            del self._clocks[key]
        else:
            self._clocks[key] = clock

    def age(self, key: Key, now: int) -> int:
        """Return the seconds since a position's last record; 0 before the first one."""
        clock = self._clocks.get(key)
        return 0 if clock is None or clock.since is None else max(now - clock.since, 0)

    def is_unchanged(self, key: Key, mark: int) -> bool:
        """Return whether a position's last record had the same mark."""
        clock = self._clocks.get(key)
        return clock is not None and clock.mark == mark

    def seconds(self, key: Key, now: int) -> tuple[int, int]:
        """Return (in range, covered): the seconds since a position's last record."""
        clock = self._clocks.get(key)
        if clock is None or clock.since is None:
            return 0, 0
        covered = max(now - clock.since, 0)
        return min(clock.active_until(now), covered), covered

    def take(self, key: Key, now: int, is_active: bool, mark: int) -> tuple[int, int]:
        """Return `seconds`, and begin again: a record is taken. Only after `step` at the same head."""
        seconds = self.seconds(key, now)
        self._set(key, _Clock(now, 0, now, is_active, mark))
        return seconds

    def rewind(self, number: int) -> None:
        """Go back to a height: heads over it left the chain."""
        if number < self._floor:
            self.restart()
            return
        while self._undo and self._undo[-1][0] > number:
            for key, before in self._undo.pop()[1].items():
                clock = self._clocks.get(key)
                self._told.setdefault(key, None if clock is None else clock.is_active)
                if before is not None:
                    self._clocks[key] = before
                elif clock is not None:
                    del self._clocks[key]

    def restart(self) -> None:
        """Begin all clocks again: it isn't known where they were."""
        for key, clock in self._clocks.items():
            self._told.setdefault(key, clock.is_active)
        self._clocks.clear()
        self._undo.clear()
        self._floor = -1
