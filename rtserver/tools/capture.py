"""Takes down what a client shows at each block, so that it can be checked later at its own pace. Pure.

It decides what of a frame has to be checked: every position that the frame names, some of the others in turn,
and all of them on a snapshot and at the end. A frame that names the chain's head ends a block: after it every
channel that is exact shows that very block, whether the frame named it or not.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from ..client.events import BlockUpdate, Update
from ..domain.diff import JsonObject, State
from ..domain.ids import Address, TokenId

__all__ = ["Capture", "Job", "owner_of"]

# Positions that a block should not have touched, checked all the same: a missed touch shows within n/16 blocks.
_IN_TURN: Final = 16


@dataclass(slots=True, kw_only=True)
class Job:
    """What a client showed at a block.

    Args:
        positions: (channel, token id, object).
        gone: (channel, token id) of what the block removed.
        pools: (channel, object).
        heads: What the `head:` channel shows, if it moved.
        tags: (`safe` or `finalized`, what the `head:` channel shows under it).
        owned: For each exactly watched owner the NFTs that it shows; None where the frame doesn't end a block.
        is_block: Whether it ends a block, and counts as one.
    """

    number: int
    block_hash: str
    positions: list[tuple[str, TokenId, JsonObject]] = field(default_factory=list)
    gone: list[tuple[str, TokenId]] = field(default_factory=list)
    pools: list[tuple[str, JsonObject]] = field(default_factory=list)
    heads: list[JsonObject] = field(default_factory=list)
    tags: list[tuple[str, JsonObject]] = field(default_factory=list)
    owned: dict[Address, frozenset[TokenId]] | None = None
    is_block: bool = False

    def __bool__(self) -> bool:
        """Return whether there is anything to check."""
        return bool(self.positions or self.gone or self.pools or self.heads or self.tags or self.owned)


def owner_of(channel: str) -> Address | None:
    """Return the owner whose channel it is, None for other channels."""
    kind, _, rest = channel.partition(":")
    return Address(rest.rpartition(":")[2].lower()) if kind == "owner" else None


class Capture:
    """The newest state of every channel, as of the events taken so far.

    Args:
        chain_id: The chain that is verified; frames of others are passed over.
        protocol: The protocol that is verified; positions of others are passed over.
    """

    def __init__(self, chain_id: int, protocol: str) -> None:
        self._chain_id = chain_id
        self._protocol = protocol
        self._head_channel = f"head:{chain_id}"
        self._newest: dict[str, Update] = {}
        self._turn = 0

    def take(self, update: Update) -> Job | None:
        """Take a snapshot, or a channel that was resumed: all of it is to be checked."""
        if not self._is_ours(update.channel):
            return None
        self._newest[update.channel] = update
        job = Job(number=update.block.number, block_hash=update.block.hash)
        self._add(job, update.channel, update.state, update.state)
        return job

    def take_block(self, frame: BlockUpdate, *, everything: bool = False) -> Job | None:
        """Take a frame; `everything` has all exact channels checked, if the frame ends a block."""
        if frame.chain_id != self._chain_id:
            return None
        job = Job(number=frame.block.number, block_hash=frame.block.hash)
        named: set[tuple[str, str]] = set()
        for update in frame.changes:
            self._newest[update.channel] = update
            change = update.change
            assert change is not None
            keys = [*change.set, *change.patch]
            named.update((update.channel, key) for key in keys)
            self._add(job, update.channel, update.state, keys)
            for key in change.remove:
                if (token_id := self._token_id(update.channel, key)) is not None:
                    job.gone.append((update.channel, token_id))
        if any(update.channel == self._head_channel for update in frame.changes):
            job.is_block = True
            exact = {name: each for name, each in self._newest.items() if name not in frame.inexact}
            job.owned = dict(self._owned(exact))
            rest = [(name, key) for name, update in exact.items() for key in update.state if (name, key) not in named]
            for name, key in rest if everything else self._some(rest):
                self._add(job, name, exact[name].state, (key,))
        return job

    @property
    def channels(self) -> frozenset[str]:
        """Return the channels seen so far."""
        return frozenset(self._newest)

    def _some(self, rest: list[tuple[str, str]]) -> list[tuple[str, str]]:
        if len(rest) <= _IN_TURN:
            return rest
        start = self._turn % len(rest)
        self._turn = start + _IN_TURN
        return (rest + rest)[start : start + _IN_TURN]

    def _is_ours(self, channel: str) -> bool:
        return channel.split(":", 2)[1] == str(self._chain_id)

    def _add(self, job: Job, channel: str, state: State, keys: "State | list[str] | tuple[str, ...]") -> None:
        if channel.startswith("pool:"):
            job.pools.extend((channel, state[key]) for key in keys)
            return
        if channel == self._head_channel:
            job.heads.extend(state[key] for key in keys if key == "head")
            job.tags.extend((key, state[key]) for key in keys if key != "head")
            return
        for key in keys:
            if (token_id := self._token_id(channel, key)) is not None:
                job.positions.append((channel, token_id, state[key]))

    def _token_id(self, channel: str, key: str) -> TokenId | None:
        """Return which NFT of the verified protocol a key stands for."""
        if channel.startswith("owner:"):
            protocol, _, digits = key.rpartition(":")
        elif channel.startswith("position:"):
            protocol, digits = channel.split(":")[2], key
        else:
            return None
        return TokenId(int(digits)) if protocol == self._protocol and digits.isdigit() else None

    def _owned(self, exact: dict[str, Update]) -> Iterator[tuple[Address, frozenset[TokenId]]]:
        for channel, update in exact.items():
            if (owner := owner_of(channel)) is not None:
                held = (self._token_id(channel, key) for key in update.state)
                yield owner, frozenset(token_id for token_id in held if token_id is not None)
