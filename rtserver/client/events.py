"""What a client tells: values only. They say what happened, never what to do about it.

A `state` in an event is that moment's state: later changes make new objects and leave it as it is, so it may
be kept. It is shared between listeners: read it, don't write into it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ..domain.diff import Change, State
from ..domain.errors import ClientError
from ..wire.messages import BlockRefMessage, HeadMessage, RollbackMessage

__all__ = [
    "Beat", "BlockUpdate", "Connected", "Disconnected", "Event", "Failed", "Mismatch", "Stats", "Update",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """A channel's copy became what `state` says.

    Args:
        channel: The server's spelling.
        kind: "snapshot": the whole state is new (first, after a resync, or after the listener was too slow);
            "change": one block's change; "resumed": the connection is back and nothing was missed.
        block: The block that the state is anchored to.
        change: What changed, of kind "change" only.
        rollback: The reorganisation that the change belongs to; on a "snapshot" for a slow listener, the last
            one among what it stands for.
        proved: Whether a checksum came along (it matched: a copy that doesn't match is never told).
    """

    channel: str
    kind: Literal["snapshot", "change", "resumed"]
    epoch: str
    seq: int
    block: BlockRefMessage
    state: State
    change: Change | None = None
    rollback: RollbackMessage | None = None
    proved: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockUpdate:
    """One block frame: everything that a block changed in this client's channels, at once.

    `inexact` names the channels that are being joined or healed: what is known of them may be older than
    this block, and their snapshot follows as an `Update`. So may those be that other engines tell of, where several
    share the chain: each tells of its own in frames of its own. All others are exact as of this block.
    `missed` counts the frames that a slow listener lost right before this one.
    """

    chain_id: int
    block: BlockRefMessage
    changes: tuple[Update, ...]
    rollback: RollbackMessage | None = None
    inexact: frozenset[str] = frozenset()
    missed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """The server welcomed a session; `again` if it is not the first."""

    session: str
    heartbeat_s: float
    limits: Mapping[str, int]
    heads: Mapping[str, HeadMessage]
    again: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnected:
    """The connection is gone; the client tries again after `retry_in_s`."""

    reason: str
    code: int | None
    retry_in_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """The server lives; `heads` say whether its chains do (`age_ms`)."""

    heads: Mapping[str, HeadMessage]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """A checksum was not that of the copy, which is being replaced.

    Nobody was told of that copy, except `on` a heartbeat: then it was altered on the way before.
    """

    channel: str
    block: BlockRefMessage
    ours: int
    theirs: int
    on: Literal["snapshot", "change", "heartbeat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A channel can't be had, under any of these spellings; or, without one, a request that named none."""

    names: frozenset[str]
    error: ClientError


Event: TypeAlias = Update | BlockUpdate | Connected | Disconnected | Beat | Mismatch | Failed


@dataclass(slots=True)
class Stats:
    """Counters since the client was made."""

    frames: int = 0  # block frames
    applied: int = 0  # changes applied
    snapshots: int = 0  # whole snapshots taken
    resumed: int = 0  # channels that went on after a reconnect without a snapshot
    proofs: int = 0  # checksums that matched
    mismatches: int = 0  # checksums that did not
    resyncs: int = 0  # snapshots asked for because of a gap, an epoch, a checksum or a heartbeat
    rollbacks: int = 0  # block frames with a rollback
    reconnects: int = 0
    unknown: int = 0  # messages of a type that this version doesn't know
    invalid: int = 0  # messages that could not be read
    reasons: dict[str, int] = field(default_factory=dict)  # resyncs by reason
