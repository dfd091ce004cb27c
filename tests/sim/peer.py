"""One simulated client: its mind, its connection, and the accident that it has not noticed yet."""

import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from rtserver.hub.session import Session

from .brains import Brain
from .faults import TAMPERING, TRANSPORT, alter
from .wire import Wire, payload_of

__all__ = ["Fault", "Peer"]


@dataclass(slots=True)
class Fault:
    """What happened to a frame, and what had been noticed before."""

    kind: str
    noticed_before: Counter[str]


@dataclass(slots=True, eq=False)
class Peer:
    """A client.

    Args:
        name: For traces.
        brain: What it thinks with.
        fault_rate: How many of its frames suffer; 0 for a client that must never need to resync.
        is_tampered_with: Whether its frames may be changed, too, and not just lost, repeated or swapped.
        say: Takes a line of the trace.
    """

    name: str
    brain: Brain
    fault_rate: float
    is_tampered_with: bool
    say: Callable[[str], None]
    wire: Wire | None = None
    session: Session | None = None
    up: deque[bytes] = field(default_factory=deque)
    fault: Fault | None = None
    injected: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)

    def deliver(self, frames: int, now: float, rng: random.Random, *, with_faults: bool) -> bool:
        """Let up to so many frames arrive; return whether any did."""
        wire = self.wire
        assert wire is not None
        wire.flow(frames)
        if not wire.in_flight:
            return False
        while frames > 0 and wire.in_flight:
            frames -= 1
            payload = payload_of(wire.in_flight.popleft())
            # A welcome that doesn't come is the shell's business: it gives the connection up.
            may_suffer = with_faults and self.fault is None and not payload.startswith(b'{"type":"welcome"')
            if may_suffer and rng.random() < self.fault_rate:
                self._hurt(payload, wire, now, rng)
            else:
                self.brain.receive(payload, now)
            self.look()
        return True

    def look(self) -> None:
        """Note by what an accident was noticed, if something was noticed since."""
        if self.fault is not None and (news := self.brain.noticed - self.fault.noticed_before):
            self.outcomes[self.fault.kind, next(iter(news))] += 1
            self.say(f"{self.name} noticed by {next(iter(news))}")
            self.fault = None

    def settle_fault(self, outcome: str) -> None:
        """End an accident that nobody noticed because nothing came of it."""
        if self.fault is not None:
            self.outcomes[self.fault.kind, outcome] += 1
            self.fault = None

    def _hurt(self, payload: bytes, wire: Wire, now: float, rng: random.Random) -> None:
        kind = rng.choice((*TRANSPORT, *TAMPERING) if self.is_tampered_with else TRANSPORT)
        if kind == "swap" and not wire.in_flight:
            kind = "lose"
        arriving: list[bytes]
        if kind == "lose":
            arriving = []
        elif kind == "repeat":
            arriving = [payload, payload]
        elif kind == "swap":
            arriving = [payload_of(wire.in_flight.popleft()), payload]
        else:
            damaged = alter(payload, kind, rng)
            if damaged is None:
                kind, arriving = "lose", []
            else:
                arriving = [damaged]
        self.injected[kind] += 1
        self.say(f"{self.name} suffers {kind} of {payload[:100].decode()}")
        self.fault = Fault(kind, self.brain.noticed.copy())
        for part in arriving:
            self.brain.receive(part, now)
