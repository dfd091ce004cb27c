"""The server's side of a run: the real hub, a scripted engine for each chain, and the truth of every step.

It judges what a hub may do: how many frames a step brings a client, how much is remembered, what its own
copies hold, and that nothing is left behind once everyone is gone. What clients make of it is not known here.
"""

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from typing import Final, assert_never
from unittest.mock import patch

from rtserver.domain.errors import ClientError
from rtserver.domain.ids import ChainId
from rtserver.domain.update import BlockUpdate
from rtserver.hub.hub import Hub
from rtserver.hub.limits import Limits
from rtserver.hub.session import Session
from rtserver.hub.stream import RING_ENTRIES, Stream
from rtserver.obs.metrics import Metrics
from rtserver.protocols.channels import Channel, parse_channel
from rtserver.wire.messages import Auth, Pong, Refresh, Resync, Subscribe, Unsubscribe, decode_client

from .chain import PROTOCOL, ChainModel, channels_of
from .engine import ScriptedEngine, Truth
from .peer import Peer

__all__ = ["BY_NAME", "CHANNELS", "LIMITS", "Server"]

_KNOWN: Final = {1: frozenset({PROTOCOL}), 10: frozenset({PROTOCOL})}
CHANNELS: Final = {chain_id: channels_of(chain_id) for chain_id in _KNOWN}
BY_NAME: Final[Mapping[str, Channel]] = {
    channel.name: channel for channels in CHANNELS.values() for channel in channels
}
LIMITS: Final = Limits()
# One registry for all runs: making one costs as much as a run's first ten blocks.
_METRICS: Final = Metrics()


class Server:
    """One server process, from start to stop.

    Args:
        start: Which start of the run this is: epochs are named by it.
        chains: What it follows.
        truths: Takes the state of each channel at each place, by (epoch, seq).
        peers: All clients, connected or not.
        rng: The run's.
        clock: Monotonic seconds.
        events: Counts what happens.
        say: Takes a line of the trace.
    """

    def __init__(
        self,
        start: int,
        *,
        chains: Mapping[int, ChainModel],
        truths: dict[tuple[str, int], Truth],
        peers: Iterable[Peer],
        rng: random.Random,
        clock: Callable[[], float],
        events: Counter[str],
        say: Callable[[str], None],
    ) -> None:
        # Epochs are the only thing that a hub draws by itself.
        with patch("secrets.token_hex", lambda size: f"{start:0{2 * size}x}"):
            self.hub = Hub(self, LIMITS, _METRICS, clock=clock, wall_ms=lambda: int(clock() * 1000))
        self.engines = {chain_id: ScriptedEngine(chain, self._publish, rng) for chain_id, chain in chains.items()}
        self._truths = truths
        self._peers = peers
        self._events = events
        self._say = say
        self._reads: Counter[str] = Counter()

    def want(self, channel: Channel) -> None:
        """Be the hub's interest."""
        self.engines[channel.chain_id].want(channel)

    def unwant(self, channel: Channel) -> None:
        """Be the hub's interest."""
        self.engines[channel.chain_id].unwant(channel)

    @property
    def streams(self) -> Mapping[str, Stream]:
        """Return the hub's open channels."""
        return self.hub._openings.streams

    @property
    def lagging(self) -> int:
        """Return how many clients lag."""
        return len(self.hub._laggards.lagging)

    def has_head(self, chain_id: int) -> bool:
        """Return whether a chain was heard of."""
        return self.hub.head(ChainId(chain_id)) is not None

    # --- steps ----------------------------------------------------------------------------------------

    def step(self, chain_id: int) -> None:
        """Publish what happened to a chain since its last step."""
        self._events["steps"] += 1
        for name, truth in self.engines[chain_id].step().items():
            stream = self.streams[name]
            self._truths.setdefault((stream.epoch, stream.seq), truth)
            assert len(stream._steps) <= RING_ENTRIES + 1, "the ring has a bound"

    def _publish(self, update: BlockUpdate) -> None:
        said = {*update.patched, *(name for batch in update.lone for name in batch.channels)}
        said |= {*(name for name, change in update.changes.items() if change)}
        if update.rollback is not None:
            said |= {name for name, stream in self.streams.items() if stream.chain_id == update.chain_id}
            self._events["rollbacks"] += 1
            self._events["rollbacks to the same block"] += not update.is_new_head
        back = "" if update.rollback is None else f", rolls {len(update.rollback.dropped)} back"
        self._say(
            f"chain {update.chain_id} block {update.header.number} {update.header.hash[:8]}{back}: "
            f"{len(said)} changed, opened {list(update.opened)}, refused {list(update.refused)}"
        )
        with ExitStack() as stack:
            for peer in self._peers:
                session, wire = peer.session, peer.wire
                if wire is not None and session is not None and not wire.is_closed:
                    is_owed = said & session.joined.keys() and session.lag_since is None and not session.latest
                    stack.enter_context(wire.step(expected=bool(is_owed) and not session.is_full()))
            self.hub.publish(update)

    # --- requests -------------------------------------------------------------------------------------

    def serve(self, peer: Peer) -> None:
        """Read what a client sent."""
        while peer.up and peer.session is not None and not peer.session.closing:
            assert peer.wire is not None
            peer.wire.mark()
            text = peer.up.popleft()
            message = decode_client(text)
            if not isinstance(message, Pong):
                self._say(f"{peer.name} → {text.decode()[:160]}")
            try:
                self._handle(peer.session, message)
            except ClientError as error:
                self.hub.reply_error(peer.session, error, message.id)

    def _handle(self, session: Session, message: Auth | Subscribe | Unsubscribe | Resync | Refresh | Pong) -> None:
        hub = self.hub
        match message:
            case Subscribe():
                latest = message.mode == "latest"
                hub.subscribe(session, _channel(message.channel), message.id, message.cursor, latest=latest)
            case Unsubscribe():
                hub.unsubscribe(session, _channel(message.channel), message.id)
            case Resync():
                hub.resync(session, _channel(message.channel), message.id)
            case Pong():
                session.awaiting_pong_since = None
            case Auth() | Refresh():
                raise AssertionError("no client here has a token")
            case _:
                assert_never(message)

    def read(self, channel: Channel) -> None:
        """Read a channel as a REST request does."""
        stream = self.hub.peek(channel)
        if stream is not None:
            self._check(stream)
            return
        self._reads[channel.name] += 1

        def answered(answer: Stream | ClientError) -> None:
            self._reads[channel.name] -= 1
            assert self._reads[channel.name] >= 0, "a reader is answered once"
            if isinstance(answer, ClientError):
                assert answer.code in ("bad_channel", "load_timeout", "chain_unavailable")

        self.hub.when_open(channel, answered)

    def _check(self, stream: Stream) -> None:
        assert stream.state == self._truths[stream.epoch, stream.seq].state, f"{stream.channel}: the hub's own copy"

    def check_copies(self) -> None:
        """Compare the hub's own copies with the truth."""
        for stream in self.streams.values():
            self._check(stream)

    def check_nothing_is_left(self) -> None:
        """Once everyone is gone, and some time later: no channel, request or reader may be left behind."""
        hub = self.hub
        kept: dict[str, Collection[object]] = {
            **hub._openings.kept(), "sessions": hub._sessions, "lagging": hub._laggards.lagging,
            "holding": hub._laggards.holding, "unanswered readers": +self._reads,
            "engines": set().union(*(engine.wanted for engine in self.engines.values())),
        }  # fmt: skip
        assert not any(kept.values()), f"left behind: { {name: list(left) for name, left in kept.items() if left} }"


def _channel(name: str) -> Channel:
    channel = BY_NAME.get(name)
    return parse_channel(name, _KNOWN) if channel is None else channel
