"""One run: a seed decides what chains, engines, clients and connections do, and every step is judged.

The hub, its sessions and streams are the real ones; only clock, chain and network are made up. A run goes
through three phases: accidents (everything may happen); quiet (no more accidents, nothing published: the
heartbeat alone has to reveal what was lost or altered); proof (each chain reorganises once, so every copy is proved).
After each, what clients hold is compared with the chain computed anew.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from unittest.mock import patch

from rtserver.hub import stream as stream_module
from rtserver.hub.session import Session
from rtserver.wire.codes import CloseCode

from .brains import Independent, Shipped
from .chain import ChainModel, rollback_between
from .engine import Truth
from .peer import Peer
from .server import BY_NAME, CHANNELS, LIMITS, Server
from .wire import Wire

__all__ = ["Outcome", "Simulation", "SimulationFailure", "simulate"]

_MAX_DEPTH: Final = 6
# Small enough that an owner's snapshot comes in parts.
_PART_BYTES: Final = 700


class SimulationFailure(AssertionError):
    """A run that broke a promise; says how to see it again."""

    def __init__(self, seed: int, why: str) -> None:
        super().__init__(f"seed {seed}: {why}\nreplay: python -m tests.sim {seed}")
        self.seed = seed


@dataclass(slots=True)
class Outcome:
    """What a run saw: `events` counts what happened, `faults` (kind, how it was noticed)."""

    seed: int
    events: Counter[str] = field(default_factory=Counter)
    injected: Counter[str] = field(default_factory=Counter)
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)


class Simulation:
    """A run.

    Args:
        seed: Decides everything.
        trace: Takes a line for everything that happens.
    """

    def __init__(self, seed: int, trace: Callable[[str], None] | None = None) -> None:
        self.outcome = Outcome(seed)
        self._rng = rng = random.Random(seed)
        self._trace = trace
        self._now = 1_000.0
        self._is_wild = True
        self._truths: dict[tuple[str, int], Truth] = {}
        self._starts = 0
        chain_ids = (1, 10)[: 1 + (rng.random() < 0.3)]
        self._chains = {chain_id: ChainModel(chain_id, rng) for chain_id in chain_ids}
        self._scale = rng.choice((1, 32, 128))
        # One run in twelve is long enough to go past the ring.
        self._steps = rng.randrange(300, 450) if seed % 12 == 11 else rng.randrange(20, 70)
        rate = rng.choice((0.0, 0.0, 0.02, 0.1))
        # Each rollback proves every copy: with fewer of them, what is wrong has to be noticed by other means.
        self._reorg_rate = rng.choice((0.01, 0.1))
        self._peers = [
            Peer(
                f"{'shipped' if index % 2 else 'independent'}-{index}",
                Shipped() if index % 2 else Independent(),
                rate,
                rng.random() < 0.5,
                self._say,
            )
            for index in range(rng.randrange(2, 6))
        ]
        self._start_server()

    def _say(self, text: str) -> None:
        if self._trace is not None:
            self._trace(f"{self._now:9.2f}  {text}")

    def _start_server(self) -> None:
        self._starts += 1
        self._server = Server(
            self._starts,
            chains=self._chains,
            truths=self._truths,
            peers=self._peers,
            rng=self._rng,
            clock=lambda: self._now,
            events=self.outcome.events,
            say=self._say,
        )

    # --- connections ----------------------------------------------------------------------------------

    def _connect(self, peer: Peer) -> None:
        wire = peer.wire = Wire(self._scale)

        def end(code: CloseCode) -> None:
            self.outcome.events[f"closed: {code.name.lower()}"] += 1
            self._say(f"{peer.name} is sent away: {code.name}")
            if code is CloseCode.SLOW:
                wire.abort()
            else:
                wire.close(code)

        peer.session = Session(peer.name, wire, self._now, end, wire.send_now)
        peer.brain.connected(self._now)
        self._server.hub.open(peer.session)
        self._say(f"{peer.name} connects, wants {peer.brain.wanted}")

    def _disconnect(self, peer: Peer) -> None:
        assert peer.session is not None
        assert peer.wire is not None
        self._say(f"{peer.name} is disconnected")
        self._server.hub.close(peer.session)
        peer.wire.abort()
        peer.wire = peer.session = None
        peer.up.clear()
        peer.brain.disconnected(self._now)
        peer.settle_fault("reconnect")

    def _pump(self, frames: int) -> None:
        """Let time do its work: what is due, what flows, what arrives, what is answered."""
        for peer in self._peers:
            if peer.wire is not None:
                peer.wire.mark()
        self._server.hub.tick()
        for peer in self._peers:
            wire = peer.wire
            if wire is None:
                continue
            self._server.serve(peer)
            moved = peer.deliver(frames, self._now, self._rng, with_faults=self._is_wild)
            if (wire.is_closed and wire.is_empty) or peer.brain.is_dead(self._now):
                self._disconnect(peer)
                continue
            peer.brain.tick(self._now)
            peer.look()
            if not wire.is_closed:
                peer.up.extend(peer.brain.take(self._now))
            if moved:
                self._judge(peer)

    # --- the judgement --------------------------------------------------------------------------------

    def _judge(self, peer: Peer) -> None:
        """Compare every copy with the truth at its place; a client without accidents never resyncs."""
        moves = peer.brain.take_moves()
        if peer.fault_rate and peer.is_tampered_with:
            return
        if not peer.fault_rate:
            harmless = Counter(failed=10**9, unanswered=10**9)
            noticed = peer.brain.noticed
            # Whoever asks again because an answer takes too long gets both answers, and may heal from that.
            assert noticed["unanswered"] or not noticed - harmless, f"{peer.name} resyncs: {noticed}"
        for move in moves:
            chain = self._chains[BY_NAME[move.channel].chain_id]
            undone = rollback_between(chain.blocks[move.before], chain.blocks[move.after])
            if undone.dropped:
                told = move.rollback
                assert told is not None, f"{peer.name}'s {move.channel} goes to another branch without a word"
                assert undone.to is not None
                assert told["to"] is None or told["to"]["number"] <= undone.to.number, "the rollback goes far enough"
                assert {*undone.dropped} <= {*told["dropped"]}, "every block that the copy was built on is dropped"
                self.outcome.events["rollbacks told"] += 1
        for name in peer.brain.wanted:
            copy = peer.brain.copy(name)
            if copy is None:
                continue
            truth = self._truths[copy.epoch, copy.seq]
            assert copy.state == truth.state, f"{peer.name}'s {name} is wrong at seq {copy.seq}"
            if copy.block_hash != truth.block.hash:
                channel = BY_NAME[name]
                chain = self._chains[channel.chain_id]
                anew = chain.state_of(channel, chain.blocks[copy.block_hash], truth.known)
                assert copy.state == anew, f"{peer.name}'s {name} is not that of the block that it names"

    def _judge_at_rest(self, phase: str) -> None:
        """Compare every copy with the chain computed anew at the block that it names, and at the head."""
        for peer in self._peers:
            for name in peer.brain.wanted:
                copy = peer.brain.copy(name)
                assert copy is not None, f"{phase}: {peer.name} has no {name}"
                assert peer.brain.is_live(name), f"{phase}: {peer.name}'s {name} is not live"
                channel = BY_NAME[name]
                chain = self._chains[channel.chain_id]
                anew = chain.state_of(channel, chain.blocks[copy.block_hash], chain.known)
                assert copy.state == anew, f"{phase}: {peer.name}'s {name} is not that of its block"
                anew = chain.state_of(channel, chain.head, chain.known)
                assert copy.state == anew, f"{phase}: {peer.name}'s {name} is not that of the head"
                self.outcome.events["copies proved"] += 1
            peer.settle_fault("harmless")

    # --- the phases -----------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Run all phases.

        Raises:
            SimulationFailure: A promise was broken.
        """
        try:
            with patch.object(stream_module, "PART_BYTES", _PART_BYTES):
                for _ in range(self._steps):
                    self._happen()
                self._is_wild = False
                self._calm_down()
                self._judge_at_rest("quiet")
                self._prove()
                self._judge_at_rest("proof")
                self._leave_nothing()
        except (AssertionError, LookupError, ValueError, TypeError) as error:
            raise SimulationFailure(self.outcome.seed, f"{type(error).__name__}: {error}") from error
        for peer in self._peers:
            self.outcome.injected += peer.injected
            self.outcome.faults += peer.outcomes
            self.outcome.events["resumed"] += peer.brain.resumed
        return self.outcome

    def _happen(self) -> None:
        """Do one thing that the seed decides, and let time pass."""
        rng = self._rng
        draw = rng.random()
        chain_id = rng.choice(list(self._chains))
        chain, engine = self._chains[chain_id], self._server.engines[chain_id]
        if draw < 0.42:
            chain.extend(rng.choice((1, 1, 1, 1, 2, 3)))
            self._server.step(chain_id)
        elif draw < 0.42 + self._reorg_rate:
            for _ in range(rng.choice((1, 1, 2, 3))):
                rollback = chain.reorg(_MAX_DEPTH)
                if rollback is not None:
                    engine.roll_back(rollback)
                    if rng.random() < 0.5:  # else the next one comes before this one was told
                        self._server.step(chain_id)
            self._server.step(chain_id)
        elif draw < 0.56:
            chain.learn()
            self._server.step(chain_id)
        elif draw < 0.60:
            self._server.step(chain_id)
        elif draw < 0.62:
            self._server.read(rng.choice(CHANNELS[rng.choice(list(self._chains))]))
        elif draw < 0.625:
            self._restart()
        else:
            self._act(rng.choice(self._peers))
        self._pass(rng.choice((0.0, 0.01, 0.1, 0.1, 0.5, 1.0, 2.0)))
        if rng.random() < 0.01:
            for _ in range(rng.choice((4, 13, 30))):  # up to 150 s: past heartbeats, loads, the ring and the linger
                self._pass(5.0)

    def _act(self, peer: Peer) -> None:
        rng = self._rng
        wire = peer.wire
        if wire is None:
            self._connect(peer)
            return
        draw = rng.random()
        wanted = peer.brain.wanted
        if draw < 0.4:
            names = [channel.name for channel in CHANNELS[rng.choice(list(self._chains))]]
            for name in rng.sample(names, rng.choice((1, 1, 2, 4))):
                if name not in wanted:
                    peer.brain.want(name, self._now, rng)
        elif draw < 0.5 and wanted:
            peer.brain.drop(rng.choice(wanted))
        elif draw < 0.65:
            wire.is_stalled = not wire.is_stalled
            self.outcome.events["stalls"] += wire.is_stalled
            self._say(f"{peer.name} {'stalls' if wire.is_stalled else 'reads again'}")
        elif draw < 0.75:
            self._disconnect(peer)
        elif draw < 0.9 and wire.is_empty and not peer.up and not wire.is_closed:
            peer.brain.poke(self._now, rng)
            peer.up.extend(peer.brain.take(self._now))
            self._server.serve(peer)

    def _restart(self) -> None:
        """Replace the server: epochs change, and what clients kept can't be continued."""
        self._say("the server restarts")
        self.outcome.events["restarts"] += 1
        self._server.hub.say_bye(CloseCode.SHUTDOWN, lambda: 0)
        for peer in self._peers:
            if peer.wire is not None:
                self._disconnect(peer)
        self._start_server()

    def _pass(self, seconds: float) -> None:
        self._now += seconds
        lagging = self._server.lagging
        self._pump(1_000 if seconds >= 1 else self._rng.randrange(4))
        self.outcome.events["caught up"] += max(0, lagging - self._server.lagging)

    def _calm_down(self) -> None:
        """Let all come back and be answered, then let nothing happen until every heartbeat was heard."""
        self._say("— calm —")
        for engine in self._server.engines.values():
            engine.is_prompt = True
        began = self._now
        for peer in self._peers:
            if peer.wire is not None:
                peer.wire.is_stalled = False
        self._settle()
        # Twice the heartbeat's interval: each client has heard one since the last frame, and has healed.
        for _ in range(10):
            self._pass(3.0)
        self._settle()
        self.outcome.events["seconds to rest"] += int(self._now - began)

    def _settle(self) -> None:
        """Let time pass until all is answered; loads, retries and asking again take a minute at most."""
        for _ in range(120):
            for peer in self._peers:
                if peer.wire is None:
                    self._connect(peer)
            for chain_id, engine in self._server.engines.items():
                if engine.is_opening or not self._server.has_head(chain_id):
                    self._server.step(chain_id)
            self._pass(1.0)
            if self._is_at_rest():
                return
        raise AssertionError("not all is answered after two minutes without accidents")

    def _is_at_rest(self) -> bool:
        return all(
            peer.wire is not None
            and peer.wire.is_empty
            and not peer.up
            and all(peer.brain.is_live(name) for name in peer.brain.wanted)
            for peer in self._peers
        )

    def _prove(self) -> None:
        self._say("— proof —")
        for chain_id, chain in self._chains.items():
            rollback = chain.reorg(1)
            if rollback is None:  # only ever one block
                chain.extend(1)
                rollback = chain.reorg(1)
            assert rollback is not None
            self._server.engines[chain_id].roll_back(rollback)
            self._server.step(chain_id)
        self._calm_down()

    def _leave_nothing(self) -> None:
        self._server.check_copies()
        for peer in self._peers:
            if peer.wire is not None:
                self._disconnect(peer)
        self._now += LIMITS.linger_s + 2
        self._server.hub.tick()
        self._server.check_nothing_is_left()


def simulate(seed: int) -> Outcome:
    """Run a seed."""
    return Simulation(seed).run()
