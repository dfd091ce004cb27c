"""Whose turn it is: each position once in so many seconds of the chain's time, spread evenly. Pure."""

from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Generic, TypeVar

__all__ = ["Rounds"]

Key = TypeVar("Key", bound=Hashable)


class Rounds(Generic[Key]):
    """Rounds over all positions; who comes meanwhile is in the next one.

    Args:
        every_s: Seconds a round.
        everyone: Returns the positions there are.
    """

    def __init__(self, every_s: int, everyone: Callable[[], Collection[Key]]) -> None:
        self._every_s = every_s
        self._everyone = everyone
        self._round: Sequence[Key] = ()
        self._began: int | None = None
        self._next = 0

    def due(self, now: int) -> list[Key]:
        """Return those whose turn came since this was last asked, each once; `now` is in seconds."""
        if self._began is None or now < self._began:
            # Also where the chain's time went back: this round would wait until it is there again.
            self._begin(now)
            return []
        passed = now - self._began
        if passed < self._every_s:
            return self._until(len(self._round) * passed // self._every_s)
        if passed >= 2 * self._every_s:
            # Rounds were missed altogether: everyone is late, and none of them is made up for.
            self._begin(now)
            return list(self._round)
        rest = self._until(len(self._round))
        self._begin(self._began + self._every_s)
        passed -= self._every_s
        return list(dict.fromkeys(rest + self._until(len(self._round) * passed // self._every_s)))

    def _begin(self, now: int) -> None:
        self._began, self._round, self._next = now, list(self._everyone()), 0

    def _until(self, index: int) -> list[Key]:
        found = list(self._round[self._next : index])
        self._next = max(index, self._next)
        return found
