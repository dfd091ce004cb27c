"""What computing hands to delivering: everything that one step of a chain changed, as values."""

from dataclasses import dataclass, field

from .chain import Header, Rollback
from .diff import Change, EncodedPatch, State
from .errors import ClientError
from .ids import ChainId

__all__ = ["BlockUpdate", "LonePatches"]


@dataclass(slots=True)
class LonePatches:
    """Patches, as text, of channels that hold one object each: the i-th text is for the i-th channel.

    All have the same fields, see `EncodedPatch`. Two lists, because a block may move tens of thousands: a tuple
    for each would cost as much again, most of it in the garbage collector.
    """

    fields: int
    channels: list[str]
    texts: list[str]


@dataclass(slots=True, kw_only=True)
class BlockUpdate:
    """One consistent step: after it, every channel's state is that of `header`.

    `positions` counts those that changed.
    `changes` and `patched` are for channels with a state: channel → change, channel → key → patch as text. A
    channel may stand in both; a key only in one. `lone` is for channels that are in neither, and once at most.
    `opened` gives the first state of channels that were wanted;
    `refused` says why others will never have one. Objects may be shared between channels and are
    the engine's own: whoever keeps one copies it.
    """

    chain_id: ChainId
    header: Header
    rollback: Rollback | None = None
    is_new_head: bool = True
    positions: int = 0
    changes: dict[str, Change] = field(default_factory=dict)
    patched: dict[str, dict[str, EncodedPatch]] = field(default_factory=dict)
    lone: list[LonePatches] = field(default_factory=list)
    opened: dict[str, State] = field(default_factory=dict)
    refused: dict[str, ClientError] = field(default_factory=dict)
