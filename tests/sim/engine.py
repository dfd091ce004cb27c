"""The scripted engine: wishes in, steps out, in the ways of the real one. Pure but for the hub that it tells.

Like the real engine it hands out objects that it goes on changing in place, shares them between channels,
and tells a reorganisation as one step at the new head. Every step's states are noted as the truth by which
clients are judged.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import orjson

from rtserver.domain.chain import Rollback
from rtserver.domain.diff import Change, EncodedPatch, JsonObject, State, diff
from rtserver.domain.errors import ClientError
from rtserver.domain.update import BlockUpdate, LonePatches
from rtserver.protocols.channels import Channel

from .chain import Block, ChainModel

__all__ = ["NEVER", "ScriptedEngine", "Truth"]

# A load that is not answered before its time is up.
NEVER: Final = 1_000_000
# Each has its bit in patches that come as text.
_FIELDS: Final = (
    "number", "hash", "parentHash", "timestamp", "pool", "tick", "liquidity",
    "owner", "amount0", "fees0", "isActive", "valueUSD", "more",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Truth:
    """What a channel's state is at one place of its stream."""

    state: State
    known: frozenset[int]
    block: Block


class ScriptedEngine:
    """One chain's engine.

    Args:
        chain: What there is.
        publish: The hub's.
        rng: Decides how long loads take, and which steps say a little too much.
    """

    def __init__(self, chain: ChainModel, publish: Callable[[BlockUpdate], None], rng: random.Random) -> None:
        self.chain = chain
        self._publish = publish
        self._rng = rng
        self._head: Block | None = None
        self._rollback: Rollback | None = None
        self._opening: dict[str, tuple[Channel, int]] = {}
        self._open: dict[str, Channel] = {}
        self._published: dict[str, State] = {}
        self.is_prompt = False

    def want(self, channel: Channel) -> None:
        """Open a channel some steps later, at once, or never."""
        if channel.name not in self._open and channel.name not in self._opening:
            steps = self._rng.choice((0, 0, 1, 2, 3, 8, NEVER))
            self._opening[channel.name] = (channel, steps)

    def unwant(self, channel: Channel) -> None:
        """Close a channel."""
        self._opening.pop(channel.name, None)
        self._open.pop(channel.name, None)
        self._published.pop(channel.name, None)

    @property
    def wanted(self) -> set[str]:
        """Return the channels that are open or opening."""
        return {*self._open, *self._opening}

    @property
    def is_opening(self) -> bool:
        """Return whether channels wait to be opened."""
        return bool(self._opening)

    def roll_back(self, rollback: Rollback) -> None:
        """Note a reorganisation that the next step tells, together with those noted before."""
        pending = self._rollback
        if pending is not None:
            lowest = pending.to
            if rollback.to is None or (lowest is not None and rollback.to.number < lowest.number):
                lowest = rollback.to
            rollback = Rollback(to=lowest, dropped=(*pending.dropped, *rollback.dropped))
        self._rollback = rollback

    def step(self) -> dict[str, Truth]:
        """Publish everything since the last step; return the state of every open channel after it."""
        chain, head = self.chain, self.chain.head
        new = {name: self._state(channel) for name, channel in self._open.items()}
        update = BlockUpdate(
            chain_id=chain.chain_id, header=head.header, rollback=self._rollback, is_new_head=self._head is not head
        )
        self._rollback, self._head = None, head
        self._change(update, new)
        for name, (channel, steps) in list(self._opening.items()):
            if steps > 0 and not self.is_prompt:
                self._opening[name] = (channel, steps - 1)
                continue
            del self._opening[name]
            state = chain.state_of(channel, head, chain.known)
            if state is None:
                update.refused[name] = ClientError("bad_channel", f"{name} is not a pool")
                continue
            self._open[name] = channel
            new[name] = state
            self._published[name] = update.opened[name] = {key: dict(view) for key, view in state.items()}
        self._publish(update)
        return {name: Truth(state, chain.known, head) for name, state in new.items() if name in self._open}

    def _state(self, channel: Channel) -> State:
        state = self.chain.state_of(channel, self.chain.head, self.chain.known)
        assert state is not None, "only channels with a state are open, and pools don't go away"
        return state

    def _change(self, update: BlockUpdate, new: dict[str, State]) -> None:
        # Several channels show one view: what is said of it is one object, as it is with the real engine.
        sets: dict[int, JsonObject] = {}
        patches: dict[int, JsonObject] = {}
        texts: dict[int, EncodedPatch] = {}
        as_text = self._rng.random() < 0.5
        # All differences first: the objects of one channel's copy are those of another's.
        differences = {name: diff(self._published[name], state) for name, state in new.items()}
        for name, state in new.items():
            change = differences[name]
            change.set = {key: sets.setdefault(id(state[key]), dict(state[key])) for key in change.set}
            change.patch = {key: patches.setdefault(id(state[key]), patch) for key, patch in change.patch.items()}
            _apply_in_place(self._published[name], change)
            is_lone = False
            if as_text and change.patch:
                encoded = {
                    key: texts.setdefault(id(state[key]), _encoded(patch)) for key, patch in change.patch.items()
                }
                change = Change(set=change.set, remove=change.remove)
                if name.startswith("position:"):
                    ((fields, text),) = encoded.values()
                    update.lone.append(LonePatches(fields, [name], [text]))
                    is_lone = True
                else:
                    update.patched[name] = encoded
            if (change or self._rng.random() < 0.05) and not is_lone:
                update.changes[name] = change
        for name, state in new.items():
            assert self._published[name] == state, f"{name}: diff lost something"


def _encoded(patch: JsonObject) -> EncodedPatch:
    return sum(1 << _FIELDS.index(name) for name in patch), orjson.dumps(patch).decode()


def _apply_in_place(state: State, change: Change) -> None:
    for key in change.remove:
        del state[key]
    state.update(change.set)
    for key, patch in change.patch.items():
        state[key].update(patch)
