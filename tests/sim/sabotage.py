"""Bugs on demand: each breaks one promise of the protocol, to prove that the simulation would tell.

What is patched are the product's own functions; a sabotage is a context in which runs are expected to fail.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Final
from unittest.mock import patch

from msgspec import structs

from rtserver.client import replica as client_replica
from rtserver.client.session import Session as ClientSession
from rtserver.domain import diff as diff_module
from rtserver.domain.diff import Change, compose
from rtserver.domain.ids import ChainId
from rtserver.hub import catching_up as catching_up_module
from rtserver.hub import heartbeats as heartbeats_module
from rtserver.hub import stream as stream_module
from rtserver.hub.hub import Hub
from rtserver.hub.joining import Joining
from rtserver.hub.laggards import Laggards
from rtserver.hub.openings import Openings
from rtserver.hub.session import Session
from rtserver.hub.stream import Stream
from rtserver.wire.messages import BlockRefMessage, ChangeMessage, Heartbeat, Subscribed

__all__ = ["SABOTAGES"]

_join = Joining.join
_publish = Hub.publish
_begin_lag = Laggards.begin
_let_go = Laggards.let_go
_apply = Stream.apply
_apply_copy = client_replica.Replica.apply
_on_subscribed = ClientSession._on_subscribed


@contextmanager
def _late_registration() -> Iterator[None]:
    """Let a step go by between a snapshot and the registration, as with two awaits."""
    late: list[tuple[Stream, Session]] = []

    def join(joining: Joining, session: Session, stream: Stream, *args: Any, **options: Any) -> None:
        _join(joining, session, stream, *args, **options)
        stream.listeners.pop(session, None)
        late.append((stream, session))

    def publish(hub: Hub, update: Any) -> None:
        waiting = late[:]
        late.clear()
        _publish(hub, update)
        for stream, session in waiting:
            if session.joined.get(stream.channel) is stream:
                stream.listeners[session] = None

    with patch.object(Joining, "join", join), patch.object(Hub, "publish", publish):
        yield


def _lag_one_late(laggards: Laggards, session: Session, *args: Any, **options: Any) -> None:
    _begin_lag(laggards, session, *args, **options)
    session.written = {stream: stream.seq for stream in session.written}


def _overtake(laggards: Laggards, session: Session, due: dict[Stream, int], chain_id: ChainId | None = None) -> None:
    if chain_id is None:
        _let_go(laggards, session, due)
    else:
        laggards._catching_up.bring(session, due)


def _forget_removals(first: Change, second: Change) -> Change:
    change = compose(first, second)
    change.remove = []
    return change


def _silent_heartbeat(**fields: Any) -> Heartbeat:
    return Heartbeat(**{**fields, "seqs": {}})


def _unproving_heartbeat(**fields: Any) -> Heartbeat:
    return Heartbeat(**{**fields, "checksums": {}})


def _unproved(stream: Stream, *args: Any, **options: Any) -> str:
    return _apply(stream, *args, **{**options, "prove": False})


def _credulous(copy: client_replica.Replica, message: ChangeMessage, block: BlockRefMessage) -> client_replica.Verdict:
    copy.seq = message.prev
    return _apply_copy(copy, message, block)


def _shut_without_a_word(openings: Openings, name: str) -> None:
    del openings._idle_since[name]
    openings.streams.pop(name, None)
    openings._channels.pop(name, None)


def _shallow(old: Any, new: Any) -> bool:
    return isinstance(old, dict) and isinstance(new, dict) and bool(old.keys() - new.keys())


def _take_any_answer(session: ClientSession, message: Subscribed, now: float) -> list[Any]:
    watch = session._roster.get(message.channel)
    newest = message.id if watch is None else watch.request
    return _on_subscribed(session, structs.replace(message, id=newest), now)


SABOTAGES: Final[Mapping[str, Callable[[], AbstractContextManager[object]]]] = {
    "a change falls between snapshot and registration": _late_registration,
    "a cursor of another block is believed": partial(
        patch.object, Stream, "resumable", lambda stream, cursor: cursor.epoch == stream.epoch
    ),
    "a cursor of another epoch is believed": partial(
        patch.object, Stream, "resumable", lambda stream, cursor: stream._tag_at(cursor.seq) is not None
    ),
    "a reopened channel keeps its epoch": partial(
        patch.object, Openings, "next_epoch", lambda openings: openings._epoch
    ),
    "merged changes forget what was removed": partial(patch.object, stream_module, "compose", _forget_removals),
    "a lag begins one change late": partial(patch.object, Laggards, "begin", _lag_one_late),
    "what was held back is overtaken": partial(patch.object, Laggards, "let_go", _overtake),
    "a full buffer is written to": partial(patch.object, Session, "is_full", lambda session: False),
    "a laggard's requests are answered at once": partial(patch.object, Laggards, "is_lagging", lambda *_: False),
    "heartbeats name no seqs": partial(patch.object, heartbeats_module, "Heartbeat", _silent_heartbeat),
    "heartbeats prove nothing": partial(patch.object, heartbeats_module, "Heartbeat", _unproving_heartbeat),
    "a merged change forgets the rollback": partial(patch.object, Stream, "rollbacks_since", lambda stream, seq: []),
    "a merged change tells the newest rollback only": partial(
        patch.object, catching_up_module, "merged_rollback", lambda rollbacks: rollbacks[-1] if rollbacks else None
    ),
    "a rollback proves nothing": partial(patch.object, Stream, "apply", _unproved),
    "a client applies what doesn't fit": partial(patch.object, client_replica.Replica, "apply", _credulous),
    "a nested object's lost field is told as a patch": partial(patch.object, diff_module, "_loses_inner", _shallow),
    "an idle channel stays with the engine": partial(patch.object, Openings, "_shut", _shut_without_a_word),
    "an answer to an earlier watch is taken for a newer one's": partial(
        patch.object, ClientSession, "_on_subscribed", _take_any_answer
    ),
}
