"""A gateway's line to one chain's engine: listens, announces what is wished for, reads what has to be read.

Decides nothing about steps; the relay does. Decides when a silence has lasted too long.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import Final, Literal, Protocol

import structlog

from ..domain.errors import PermanentError, RetryableError
from .ports import ChainLink, Place, Reading
from .steps import Heard

__all__ = ["FollowLimits", "Follower", "RelayPort"]

log = structlog.get_logger(__name__)


class FollowLimits:
    """How long a gateway waits, in seconds.

    Args:
        batch_s: Between two announcements: what is wished for meanwhile goes together.
        remove_s: What is not wished for any more waits so long for an announcement that is due anyway.
        wish_s: After this without renewal wishes are gone, and with them what was held open for them.
        silence_s: After this without even a beat the line is taken anew.
        retry_s: Between two tries.
    """

    def __init__(
        self,
        wish_s: float = 20.0,
        silence_s: float = 3.0,
        retry_s: float = 0.25,
        batch_s: float = 0.05,
        remove_s: float = 1.0,
    ) -> None:
        self.wish_s: Final = wish_s
        self.silence_s: Final = silence_s
        self.retry_s: Final = retry_s
        self.batch_s: Final = batch_s
        self.remove_s: Final = remove_s


class RelayPort(Protocol):
    """What is followed for; see hub.relay."""

    wake: Callable[[], None]

    @property
    def is_leased(self) -> bool:
        """Return whether wishes need not be announced now."""

    def next_wishes(self) -> tuple[list[str], list[str]]:
        """Return wishes to announce: new ones, and those that are no more."""

    def announced(self, added: Iterable[str], removed: Iterable[str], until: float, *, are_all_there: bool) -> None:
        """Note that they were."""

    def listen(self) -> None:
        """Note that every step is heard from now on."""

    def deafen(self) -> None:
        """Note that nothing is heard any more."""

    def hear(self, heard: Heard) -> None:
        """Take a step."""

    def next_read(self) -> dict[str, Place] | None:
        """Return what to read."""

    def read(self, reading: Reading) -> None:
        """Take what was read."""

    def read_failed(self) -> None:
        """Note that it could not be read."""

    def tend(self) -> None:
        """Look at the time."""


class Follower:
    """Follows one chain.

    Args:
        name: The chain's name in logs.
        link: To its engine.
        relay: Takes what comes.
        gateway: This gateway's id.
        limits: How long it waits.
    """

    def __init__(
        self, *, name: str, link: ChainLink, relay: RelayPort, gateway: str, limits: FollowLimits | None = None
    ) -> None:
        self._name = name
        self._link = link
        self._relay = relay
        self._gateway = gateway
        self._limits = limits or FollowLimits()
        self._work = asyncio.Event()
        relay.wake = self._work.set
        self._announced_at = -1e9
        # What does not work now, hearing or asking: told once, when it begins.
        self._failing: set[str] = set()

    async def run(self) -> None:
        """Follow until cancelled; then the wishes are taken back."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen())
                group.create_task(self._ask())
                group.create_task(self._tend())
        finally:
            # In a task of its own: a group of Python 3.11 whose child failed leaves this one counted as cancelled.
            # Taken for an order to end, that would replace the error, and this would be over without a word.
            await asyncio.create_task(self._leave())

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(1.0):
                await self._link.leave(self._gateway)
        except (RetryableError, TimeoutError):
            log.info("wishes not taken back; they expire", chain=self._name)

    # --- hearing --------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        silence_s = self._limits.silence_s
        while True:
            try:
                async with aclosing(self._link.steps()) as steps:  # type: ignore[type-var]
                    while True:
                        # A line that is dead without a word looks like an engine with nothing to say; beats differ.
                        async with asyncio.timeout(silence_s):
                            heard = await anext(steps)
                        self._failing.discard("hear")
                        if heard is None:
                            self._relay.listen()
                        else:
                            self._relay.hear(heard)
            except TimeoutError:
                self._say_away("hear", f"nothing heard for {silence_s:g} s")
            except (RetryableError, PermanentError, StopAsyncIteration) as error:
                self._say_away("hear", str(error))
            self._relay.deafen()
            await asyncio.sleep(self._limits.retry_s)

    def _say_away(self, what: Literal["hear", "ask"], reason: str) -> None:
        if not self._failing:
            log.warning("no engine is heard", chain=self._name, reason=reason)
        self._failing.add(what)

    # --- asking ---------------------------------------------------------------------------------------

    async def _ask(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                await self._announce()
                while (places := self._relay.next_read()) is not None:
                    self._relay.read(await self._link.read(places))
                    await self._announce()
                self._failing.discard("ask")
            except (RetryableError, PermanentError) as error:
                self._relay.read_failed()
                self._say_away("ask", str(error))
                await asyncio.sleep(self._limits.retry_s)
                self._work.set()

    async def _announce(self) -> None:
        """Announce new wishes, and renew the others when it is time: all that came meanwhile in one call.

        A lone wish goes at once. Of a crowd that comes and goes each call takes along what came since the last.
        """
        limits, wish_s = self._limits, self._limits.wish_s
        while True:
            added, removed = self._relay.next_wishes()
            since = time.monotonic() - self._announced_at
            due_s = limits.remove_s if removed else wish_s / 4
            if not added and self._relay.is_leased and since < due_s:
                return
            if since < limits.batch_s:
                await asyncio.sleep(limits.batch_s - since)
                added, removed = self._relay.next_wishes()
            now = time.monotonic()
            are_all_there = await self._link.announce(self._gateway, added, removed, int(wish_s * 1000))
            self._announced_at = now
            # Counted from before the call, and a little less: the broker's clock may run faster.
            self._relay.announced(added, removed, now + wish_s * 0.9, are_all_there=are_all_there)

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(self._limits.retry_s * 2)
            self._relay.tend()
