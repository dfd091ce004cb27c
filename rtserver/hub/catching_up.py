"""From where a client is to now: a merged change for each channel, or a snapshot where no change leads on.

The same for whoever joins, resumes, has lagged or was held back. Never decides when: it is asked.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, TypeAlias

import orjson

from ..domain.chain import Header, Rollback
from ..domain.ids import ChainId
from ..wire.messages import Subscribed, encode
from .block_frame import block_json, block_message, rollback_json
from .heads import Heads
from .rollbacks import merged_rollback, tells_too_much
from .session import LAG_BYTES, RequestId, Session
from .snapshots import Snapshots
from .stream import Stream

__all__ = ["NOWHERE", "CatchingUp"]

# Where a client that holds nothing of a channel is: no seq from which a change could lead on.
NOWHERE: Final = -1

_How: TypeAlias = Literal["resumed", "snapshot"]


class CatchingUp:
    """Writes what brings a client's channels to now.

    Args:
        heads: What snapshots and merged changes are anchored to.
        clock: Monotonic seconds.
    """

    def __init__(self, heads: Heads, clock: Callable[[], float]) -> None:
        self._heads = heads
        self._clock = clock
        self._snapshots = Snapshots(clock)

    def tend(self, now: float) -> None:
        """Do what is due."""
        self._snapshots.tend(now)

    def bring(self, session: Session, written: Mapping[Stream, int]) -> dict[Stream, int]:
        """Bring a session from what was written last to now: one merged change a channel, or a snapshot.

        Replies that are owed go along. Stops where so much is unsent that a lag would begin; at least one channel
        is brought to now.

        Returns:
            What is left, to go on from when the session has drained.
        """
        now = self._clock()
        left = dict(written)
        changes: dict[tuple[ChainId, str], _Merged] = {}
        answers: list[Subscribed] = []
        size = 0
        for stream, seq in written.items():
            if session.outlet.get_write_buffer_size() + size > LAG_BYTES:
                break
            del left[stream]
            requests = session.owed.pop(stream, [])
            newest = requests[-1][0] if requests else None
            how: _How = "resumed"
            if stream.seq != seq:
                rollbacks = stream.rollbacks_since(seq)
                lost = seq == NOWHERE or tells_too_much(rollbacks)
                fragment = None if lost else stream.merged_fragment(seq)
                if fragment is None:
                    how = "snapshot"
                    self.snapshot(session, stream, newest)
                else:
                    merged = changes.setdefault((stream.chain_id, stream.shard), _Merged(self._heads.of(stream)))
                    merged.fragments.append(fragment)
                    merged.rollbacks += rollbacks
                    size += len(fragment)
            answers += _answers(stream, requests, how)
        for (chain_id, shard), merged in changes.items():
            rollback = rollback_json(merged_rollback(merged.rollbacks))
            session.send(block_message(chain_id, merged.header, merged.fragments, rollback, shard), now)
        for message in answers:
            session.send(encode(message), now)
        return left

    def snapshot(self, session: Session, stream: Stream, request_id: RequestId) -> None:
        """Write a channel's whole state, in parts where it is large."""
        now = self._clock()
        header = self._heads.of(stream)
        parts = self._snapshots.parts(stream)
        checksum = stream.checksum()
        request = b"" if request_id is None else b'"id":%b,' % orjson.dumps(request_id)
        head = b'{"type":"snapshot",%b"channel":%b,"epoch":"%b","seq":%d,"block":%b' % (
            request, orjson.dumps(stream.channel), stream.epoch.encode(), stream.seq, block_json(header).encode(),
        )  # fmt: skip
        for index, state in enumerate(parts, 1):
            tail = b',"checksum":%d,"cursor":"%b","part":%d,"parts":%d}' % (
                checksum, stream.cursor.encode(), index, len(parts),
            )  # fmt: skip
            session.send(b'%b,"state":%b%b' % (head, state, tail), now)
        session.held.pop(stream, None)


class _Merged:
    """One frame of a chain, or of a shard: its block, its fragments, and the reorganisations that they cover."""

    __slots__ = ("fragments", "header", "rollbacks")

    def __init__(self, header: Header) -> None:
        self.header = header
        self.fragments: list[str] = []
        self.rollbacks: list[Rollback] = []


def _answers(stream: Stream, requests: list[tuple[RequestId, bool]], how: _How) -> Iterable[Subscribed]:
    """Return what answers a channel's requests, once what they asked for is written.

    A snapshot answers the newest of them by its id; if that was a `subscribe`, `subscribed` follows all the same.
    Those without an id are answered as one.
    """
    ids: list[RequestId] = []
    for index, (request_id, is_join) in enumerate(requests):
        is_answered = how == "snapshot" and index == len(requests) - 1
        if is_join or (request_id is not None and not is_answered):
            ids.append(request_id)
    if None in ids:
        ids = [*(one for one in ids if one is not None), None]
    for request_id in ids:
        yield Subscribed(
            channel=stream.channel, how=how, epoch=stream.epoch, seq=stream.seq, cursor=stream.cursor, id=request_id
        )
