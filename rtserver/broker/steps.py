"""The values that cross between an engine and its gateways, and their text. Pure.

A fragment is opaque here: the JSON that clients get, encoded once. What a gateway has to know of it without
parsing it stands in a line before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import orjson

from ..domain.chain import BlockRef, Header, Rollback
from ..domain.errors import ClientError, PermanentError
from ..domain.ids import BlockHash

__all__ = [
    "NO_SHAPE",
    "Entry",
    "Heard",
    "Held",
    "Snapshot",
    "Step",
    "decode_entry",
    "decode_header",
    "decode_heard",
    "decode_refused",
    "decode_rollback",
    "encode_entry",
    "encode_header",
    "encode_refused",
    "encode_rollback",
    "split_entry",
]

# Of an entry that says more than values of fields.
NO_SHAPE: Final = "-"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One channel's change: from `seq` - 1 to `seq`. A struct, as thousands are made for a block.

    `tag` is the block's part of the cursor, `at_ms` the engine's wall clock, `rollback` the reorganisation that
    the change tells of. `shape` names which fields of which objects it patches, where it does nothing else: of two
    entries of an epoch with the same shape the later one leaves nothing of the earlier. "-" where there is no telling.
    """

    epoch: str
    seq: int
    tag: str
    at_ms: int
    fragment: str
    shape: str = NO_SHAPE
    rollback: Rollback | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A channel's whole state, as JSON, at a place."""

    epoch: str
    seq: int
    tag: str
    at_ms: int
    state: bytes


@dataclass(slots=True, kw_only=True)
class Step:
    """What an engine publishes in one piece.

    Args:
        header: The block that all states are of afterwards.
        rollback: The reorganisation that the step tells of.
        age_ms: How long ago the block became the head: 0, unless nothing but channels is new.
        entries: By channel.
        snapshots: By channel: of those that begin anew (`opened`), or that had none for a while.
        opened: Channels that begin with their snapshot; whoever has them must read them again.
        oldest: By channel with an entry, the oldest seq that the history still has to hold.
        refused: Channels that will never be, and why.
        begins_run: Whether everything that is there is of an earlier run, and goes.
        is_complete: Whether the run has all of its channels; False only within its beginning.
    """

    header: Header
    rollback: Rollback | None = None
    age_ms: int = 0
    entries: dict[str, Entry] = field(default_factory=dict)
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    opened: list[str] = field(default_factory=list)
    oldest: dict[str, int] = field(default_factory=dict)
    refused: dict[str, ClientError] = field(default_factory=dict)
    begins_run: bool = False
    is_complete: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A step as a gateway hears it. Entries are text still: most may be of channels that nobody here watches.

    Each is of the step's block, and tells of its rollback.

    A beat is a `Heard` without anything in it that names the last step.
    """

    run: str
    number: int
    is_beat: bool = False
    header: Header | None = None
    rollback: Rollback | None = None
    age_s: float = 0.0
    is_complete: bool = True
    opened: frozenset[str] = frozenset()
    refused: Mapping[str, ClientError] = field(default_factory=dict)
    entries: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What there is of a channel beyond what the reader has: entries that lead on from there, or a whole.

    With a snapshot the entries may begin before it: they are the history that others resume from.
    """

    snapshot: Snapshot | None
    entries: Sequence[Entry]


class _Header(msgspec.Struct, array_like=True, frozen=True):
    number: int
    hash: str
    parent_hash: str
    timestamp: int


class _Rollback(msgspec.Struct, array_like=True, frozen=True):
    number: int
    hash: str
    dropped: tuple[str, ...]


class _Refusal(msgspec.Struct, array_like=True, frozen=True):
    code: str
    message: str
    retry_after_ms: int | None


def encode_header(header: Header) -> str:
    """Return a block as text; without its bloom filter, which nobody needs to deliver."""
    return orjson.dumps([header.number, header.hash, header.parent_hash, header.timestamp]).decode()


def decode_header(text: str | bytes) -> Header:
    """Return the block; its bloom filter is 0."""
    raw = msgspec.json.decode(text, type=_Header)
    return Header(
        number=raw.number,
        hash=BlockHash(raw.hash),
        parent_hash=BlockHash(raw.parent_hash),
        timestamp=raw.timestamp,
        logs_bloom=0,
    )


def encode_rollback(rollback: Rollback | None) -> str:
    """Return a rollback as text; empty for none. One without a block in common is told by new epochs instead."""
    if rollback is None or rollback.to is None:
        return ""
    return orjson.dumps([rollback.to.number, rollback.to.hash, list(rollback.dropped)]).decode()


def decode_rollback(text: str) -> Rollback | None:
    """Return the rollback."""
    if not text:
        return None
    raw = msgspec.json.decode(text, type=_Rollback)
    to = BlockRef(number=raw.number, hash=BlockHash(raw.hash))
    return Rollback(to=to, dropped=tuple(BlockHash(one) for one in raw.dropped))


def encode_refused(refused: Mapping[str, ClientError]) -> str:
    """Return refusals as text."""
    parts = {name: [error.code, error.message, error.retry_after_ms] for name, error in refused.items()}
    return orjson.dumps(parts).decode()


def decode_refused(text: str) -> dict[str, ClientError]:
    """Return the refusals by channel."""
    raw = msgspec.json.decode(text, type=dict[str, _Refusal])
    return {name: ClientError(one.code, one.message, retry_after_ms=one.retry_after_ms) for name, one in raw.items()}


def encode_entry(entry: Entry) -> str:
    """Return an entry as text: a line, and the fragment as it is."""
    line = f"{entry.epoch} {entry.seq} {entry.shape} {entry.tag} {entry.at_ms} {encode_rollback(entry.rollback)}"
    return f"{line}\n{entry.fragment}"


def split_entry(text: str) -> tuple[str, int, str, str]:
    """Return epoch, seq, shape and fragment of an entry: all there is to say of one that belongs to a step just heard.

    Raises:
        PermanentError: This is none.
    """
    try:
        line, _, fragment = text.partition("\n")
        epoch, seq, shape, _ = line.split(" ", 3)
        return epoch, int(seq), shape, fragment
    except ValueError as error:
        raise PermanentError("an entry of a channel's history is not readable") from error


def decode_entry(text: str) -> Entry:
    """Return the entry.

    Raises:
        PermanentError: This is none.
    """
    line, _, fragment = text.partition("\n")
    try:
        epoch, seq, shape, tag, at_ms, rollback = line.split(" ", 5)
        return Entry(
            epoch=epoch,
            seq=int(seq),
            tag=tag,
            at_ms=int(at_ms),
            fragment=fragment,
            shape=shape,
            rollback=decode_rollback(rollback) if rollback else None,
        )
    except (ValueError, msgspec.DecodeError) as error:
        raise PermanentError("an entry of a channel's history is not readable") from error


# Where a notification's fixed part ends; see `decode_heard`.
_FIXED: Final = 9
_DECODER: Final = msgspec.msgpack.Decoder(list[str])


def decode_heard(payload: bytes) -> Heard:
    """Return a notification.

    It is a list of texts: run, number, kind, header, its age in ms, rollback, refused, how many were opened, how many
    entries; then the opened, then channel and text of each entry.

    Raises:
        PermanentError: This is none.
    """
    try:
        parts = _DECODER.decode(payload)
        run, number, kind, header, age_ms, rollback, refused, opened_count, _ = parts[:_FIXED]
        if kind == "beat":
            return Heard(run=run, number=int(number), is_beat=True)
        split = _FIXED + int(opened_count)
        rest = parts[split:]
        return Heard(
            run=run,
            number=int(number),
            header=decode_header(header),
            rollback=decode_rollback(rollback),
            age_s=int(age_ms) / 1000,
            is_complete="c" in kind,
            opened=frozenset(parts[_FIXED:split]),
            refused=decode_refused(refused) if refused else {},
            entries=dict(zip(rest[::2], rest[1::2], strict=True)),
        )
    except (msgspec.DecodeError, ValueError) as error:
        raise PermanentError(f"a step's notification is not readable: {error}") from error
