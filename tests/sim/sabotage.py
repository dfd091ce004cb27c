"""Bugs on demand: each breaks one promise of the protocol, to prove that the simulation would tell.

What is patched are the product's own functions; a sabotage is a context in which runs are expected to fail.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Final
from unittest.mock import patch

from rtserver.client import replica as client_replica
from rtserver.domain import diff as diff_module
from rtserver.domain.diff import Change, compose
from rtserver.domain.ids import ChainId
from rtserver.hub import hub as hub_module
from rtserver.hub import stream as stream_module
from rtserver.hub.hub import Hub
from rtserver.hub.session import Session
from rtserver.hub.stream import Stream
from rtserver.wire.messages import BlockRefMessage, ChangeMessage, Heartbeat

__all__ = ["SABOTAGES"]

_join = Hub._join
_publish = Hub.publish
_begin_lag = Hub._begin_lag
_let_go = Hub._let_go
_apply = Stream.apply
_apply_copy = client_replica.Replica.apply


@contextmanager
def _late_registration() -> Iterator[None]:
    """Let a step go by between a snapshot and the registration, as with two awaits."""
    late: list[tuple[Stream, Session]] = []

    def join(hub: Hub, session: Session, stream: Stream, *args: Any, **options: Any) -> None:
        _join(hub, session, stream, *args, **options)
        stream.listeners.pop(session, None)
        late.append((stream, session))

    def publish(hub: Hub, update: Any) -> None:
        waiting = late[:]
        late.clear()
        _publish(hub, update)
        for stream, session in waiting:
            if session.joined.get(stream.channel) is stream:
                stream.listeners[session] = None

    with patch.object(Hub, "_join", join), patch.object(Hub, "publish", publish):
        yield


def _lag_one_late(hub: Hub, session: Session, *args: Any) -> None:
    _begin_lag(hub, session, *args)
    session.written = {stream: stream.seq for stream in session.written}


def _overtake(
    hub: Hub, session: Session, due: dict[Stream, int], now: float, told: tuple[ChainId, str] | None = None
) -> None:
    if told is None:
        _let_go(hub, session, due, now)
    else:
        hub._catch_up(session, due, now, told)


def _forget_removals(first: Change, second: Change) -> Change:
    change = compose(first, second)
    change.remove = []
    return change


def _silent_heartbeat(**fields: Any) -> Heartbeat:
    return Heartbeat(**{**fields, "seqs": {}})


def _unproved(stream: Stream, *args: Any, **options: Any) -> str:
    return _apply(stream, *args, **{**options, "prove": False})


def _credulous(copy: client_replica.Replica, message: ChangeMessage, block: BlockRefMessage) -> client_replica.Verdict:
    copy.seq = message.prev
    return _apply_copy(copy, message, block)


def _shut_without_a_word(hub: Hub, name: str) -> None:
    del hub._idle_since[name]
    hub._streams.pop(name, None)
    hub._channels.pop(name, None)


def _shallow(old: Any, new: Any) -> bool:
    return isinstance(old, dict) and isinstance(new, dict) and bool(old.keys() - new.keys())


SABOTAGES: Final[Mapping[str, Callable[[], AbstractContextManager[object]]]] = {
    "a change falls between snapshot and registration": _late_registration,
    "a cursor of another block is believed": partial(
        patch.object, Stream, "resumable", lambda stream, cursor: cursor.epoch == stream.epoch
    ),
    "a cursor of another epoch is believed": partial(
        patch.object, Stream, "resumable", lambda stream, cursor: stream._tag_at(cursor.seq) is not None
    ),
    "a reopened channel keeps its epoch": partial(patch.object, Hub, "_next_epoch", lambda hub: hub._epoch),
    "merged changes forget what was removed": partial(patch.object, stream_module, "compose", _forget_removals),
    "a lag begins one change late": partial(patch.object, Hub, "_begin_lag", _lag_one_late),
    "what was held back is overtaken": partial(patch.object, Hub, "_let_go", _overtake),
    "a full buffer is written to": partial(patch.object, Session, "is_full", lambda session: False),
    "a laggard's requests are answered at once": partial(patch.object, Hub, "_is_lagging", lambda hub, session: False),
    "heartbeats name no seqs": partial(patch.object, hub_module, "Heartbeat", _silent_heartbeat),
    "a rollback proves nothing": partial(patch.object, Stream, "apply", _unproved),
    "a client applies what doesn't fit": partial(patch.object, client_replica.Replica, "apply", _credulous),
    "a nested object's lost field is told as a patch": partial(patch.object, diff_module, "_loses_inner", _shallow),
    "an idle channel stays with the engine": partial(patch.object, Hub, "_shut", _shut_without_a_word),
}
