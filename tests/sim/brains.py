"""The two clients behind one face: the independent replica and the session that `rtserver.client` ships."""

import json
import random
from collections import Counter
from typing import Protocol

from rtserver.client.events import Failed
from rtserver.client.roster import Phase
from rtserver.client.session import Session

from .replica import Copy, Move, Replica

__all__ = ["Brain", "Independent", "Shipped"]


class Brain(Protocol):
    """What a simulated client thinks with."""

    def connected(self, now: float) -> None:
        """Take note of a new connection."""

    def disconnected(self, now: float) -> None:
        """Take note of its end."""

    def receive(self, payload: bytes, now: float) -> None:
        """Take a message."""

    def take(self, now: float) -> list[bytes]:
        """Return the messages to send."""

    def tick(self, now: float) -> None:
        """Do what is due."""

    def is_dead(self, now: float) -> bool:
        """Return whether the connection has been silent for too long."""

    def want(self, channel: str, now: float, rng: random.Random) -> None:
        """Watch a channel, in some way."""

    def drop(self, channel: str) -> None:
        """Stop watching a channel."""

    def poke(self, now: float, rng: random.Random) -> None:
        """Do something odd that a client may do."""

    @property
    def wanted(self) -> list[str]:
        """Return the channels watched."""

    def copy(self, channel: str) -> Copy | None:
        """Return the copy of a channel."""

    def is_live(self, channel: str) -> bool:
        """Return whether the copy is what the client would show as exact."""

    def take_moves(self) -> list[Move]:
        """Return the changes applied since the last call, if it keeps them."""

    @property
    def noticed(self) -> Counter[str]:
        """Return how often what was wrong was noticed, by how."""

    @property
    def resumed(self) -> int:
        """Return how often a channel went on from a cursor."""


class Independent:
    """The independent replica, with a taste for strange cursors."""

    def __init__(self) -> None:
        self._replica = Replica()
        self._is_open = False
        self._heard_at = 0.0
        # Places that were once true: (channel, copy).
        self._old: list[tuple[str, Copy]] = []

    def connected(self, now: float) -> None:
        """Take note of a new connection."""
        self._heard_at, self._is_open = now, False

    def disconnected(self, now: float) -> None:
        """Take note of its end."""
        self._is_open = False
        self._replica.disconnected()

    def receive(self, payload: bytes, now: float) -> None:
        """Take a message."""
        self._heard_at = now
        self._replica.receive(payload, now)
        self._is_open = self._is_open or b'"type":"welcome"' in payload[:20]

    def take(self, now: float) -> list[bytes]:
        """Return the messages to send."""
        out, self._replica.out = self._replica.out, []
        return [json.dumps(message).encode() for message in out]

    def tick(self, now: float) -> None:
        """Ask again for what was not answered."""
        if self._is_open:
            self._replica.tick(now)

    def is_dead(self, now: float) -> bool:
        """Return whether the connection has been silent for heartbeat and grace."""
        return now - self._heard_at >= 25

    def want(self, channel: str, now: float, rng: random.Random) -> None:
        """Watch a channel in either mode; join it if connected."""
        self._replica.wanted[channel] = "latest" if rng.random() < 0.3 else "all"
        if self._is_open:
            self._replica.ask(channel, now)

    def drop(self, channel: str) -> None:
        """Stop watching a channel."""
        self._replica.leave(channel)
        if self._is_open:
            self._replica.out.append({"type": "unsubscribe", "channel": channel})

    def poke(self, now: float, rng: random.Random) -> None:
        """Ask for a snapshot without need, go back to an old place, or come with a cursor that was never given."""
        replica = self._replica
        ready = [channel for channel in replica.wanted if channel in replica.copies and channel not in replica.waiting]
        if not self._is_open or not ready:
            return
        channel = rng.choice(ready)
        copy = replica.copies[channel]
        if len(self._old) < 8 or rng.random() < 0.3:
            self._old.append((channel, copy))
        draw = rng.random()
        if draw < 0.3:
            replica.ask(channel, now, "resync", reason="test")
        elif draw < 0.7:
            for name, old in self._old:
                if name == channel:
                    replica.copies[channel] = old
                    replica.ask(channel, now)
                    break
        else:
            epoch, seq, tag = copy.cursor.split(".")
            forged = rng.choice(
                (
                    "", "..", "x", f"{epoch}.{seq}", f"{epoch}.{seq}.{'0' * 16}", f"{epoch}.{int(seq) + 999}.{tag}",
                    f"{epoch}.{2**70}.{tag}", f"{epoch}.-1.{tag}", f"0{epoch}.{seq}.{tag}", f"{epoch}.²{seq}.{tag}",
                    f"{epoch}.{seq}.", "9" * 5000,
                )
            )  # fmt: skip
            del replica.copies[channel]  # whoever believed it would be found out
            replica.ask(channel, now, cursor=forged)

    @property
    def wanted(self) -> list[str]:
        """Return the channels watched."""
        return list(self._replica.wanted)

    def copy(self, channel: str) -> Copy | None:
        """Return the copy of a channel."""
        return self._replica.copies.get(channel)

    def is_live(self, channel: str) -> bool:
        """Return whether nothing is awaited for a channel."""
        return self._is_open and channel in self._replica.copies and channel not in self._replica.waiting

    def take_moves(self) -> list[Move]:
        """Return the changes applied since the last call."""
        moves, self._replica.moves = self._replica.moves, []
        return moves

    @property
    def noticed(self) -> Counter[str]:
        """Return what was noticed."""
        return self._replica.noticed

    @property
    def resumed(self) -> int:
        """Return how often a channel went on from a cursor."""
        return len(self._replica.resumed)


class Shipped:
    """`rtserver.client`'s own session, driven as its shell drives it."""

    def __init__(self) -> None:
        self._session = Session()
        self._wanted: dict[str, str] = {}
        self._noticed: Counter[str] = Counter()
        self._is_broken = False
        # Channels subscribed to on this connection: asking once more means that an answer is overdue.
        self._asked: set[str] = set()

    def connected(self, now: float) -> None:
        """Take note of a new connection."""
        self._is_broken = False
        self._asked.clear()
        self._session.connected(now)

    def disconnected(self, now: float) -> None:
        """Take note of its end."""
        self._session.disconnected(now)

    def receive(self, payload: bytes, now: float) -> None:
        """Take a message; a channel that can't be had is wanted no more."""
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            # A WebSocket library hands out text that it has decoded, or ends the connection.
            self._noticed["unreadable"] += 1
            self._is_broken = True
            return
        if text.startswith('{"type":"error"'):
            self._asked.clear()  # answered; asking again is what an error is for
        for event in self._session.receive(text, now):
            if isinstance(event, Failed):
                for channel, name in list(self._wanted.items()):
                    if name in event.names:
                        del self._wanted[channel]
                        self._noticed["failed"] += 1

    def take(self, now: float) -> list[bytes]:
        """Return the messages to send."""
        messages = self._session.outbox.take(now)
        for message in map(json.loads, messages):
            if message["type"] == "unsubscribe":
                self._asked.discard(message["channel"].lower())
            elif message["type"] == "subscribe" or message.get("reason") == "unanswered":
                channel = message["channel"].lower()
                self._noticed["unanswered"] += channel in self._asked
                self._asked.add(channel)
        return messages

    def tick(self, now: float) -> None:
        """Ask again for what was not answered."""
        self._session.tick(now)

    def is_dead(self, now: float) -> bool:
        """Return whether the connection has been silent for too long."""
        return self._is_broken or self._session.is_silent(now)

    def want(self, channel: str, now: float, rng: random.Random) -> None:
        """Watch a channel, by a spelling that may not be the server's."""
        if channel not in self._wanted:
            name = self._wanted[channel] = channel.lower() if rng.random() < 0.3 else channel
            self._session.want(name, now)

    def drop(self, channel: str) -> None:
        """Stop watching a channel."""
        self._session.drop(self._wanted.pop(channel))

    def poke(self, now: float, rng: random.Random) -> None:
        """Do nothing odd: this one only does what applications can do."""

    @property
    def wanted(self) -> list[str]:
        """Return the channels watched."""
        return list(self._wanted)

    def copy(self, channel: str) -> Copy | None:
        """Return the copy of a channel."""
        replica = self._session.replica(channel)
        if replica is None or not replica.is_whole:
            return None
        return Copy(replica.epoch, replica.seq, replica.cursor or "", replica.block.hash, replica.state)

    def is_live(self, channel: str) -> bool:
        """Return whether a channel is live."""
        return self._session.phase(channel) is Phase.LIVE

    def take_moves(self) -> list[Move]:
        """Return nothing: it tells of frames, not of where a copy was before."""
        return []

    @property
    def noticed(self) -> Counter[str]:
        """Return what was noticed: resyncs by reason, and what could not be read."""
        noticed = self._noticed + Counter(self._session.stats.reasons)
        noticed["unreadable"] += self._session.stats.invalid + self._session.stats.unknown
        return +noticed

    @property
    def resumed(self) -> int:
        """Return how often a channel went on from a cursor."""
        return self._session.stats.resumed
