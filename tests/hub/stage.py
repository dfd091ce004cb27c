"""A hub on a stage: a clock moved by hand, wishes written down, clients whose socket is a list."""

from __future__ import annotations

import json
from typing import Any

from rtserver.domain.chain import BlockRef, Header, Rollback
from rtserver.domain.diff import Change, JsonObject, State
from rtserver.domain.errors import ClientError
from rtserver.domain.ids import BlockHash, ChainId, TokenId
from rtserver.domain.update import BlockUpdate, LonePatches
from rtserver.hub.hub import Hub
from rtserver.hub.limits import Limits
from rtserver.hub.session import Session
from rtserver.obs.metrics import Metrics
from rtserver.protocols.channels import Channel, PositionChannel
from rtserver.wire.codes import CloseCode

from .replica import Json, Replica, frames_in

__all__ = ["CHAIN", "OTHER_CHAIN", "Client", "Stage", "channel"]

CHAIN, OTHER_CHAIN = ChainId(1), ChainId(2)


def channel(token_id: int, chain_id: ChainId = CHAIN) -> PositionChannel:
    """Return a channel to play with."""
    return PositionChannel(chain_id, "uniswap-v3", TokenId(token_id))


def header(number: int, branch: int = 0) -> Header:
    """Return a block of a branch."""
    return Header(
        number=number,
        hash=BlockHash(f"0x{number:08x}{branch:08x}{0:048x}"),
        parent_hash=BlockHash(f"0x{number - 1:08x}{branch:08x}{0:048x}"),
        timestamp=1_700_000_000 + number,
        logs_bloom=0,
    )


class Client:
    """A client: its session, what was written to it, and a replica that takes all of that."""

    def __init__(self, stage: Stage, name: str) -> None:
        self.unsent = 0
        # Whether what is written stays unsent.
        self.takes_nothing = False
        self.frames: list[bytes] = []
        self.codes: list[CloseCode] = []
        self.is_cut = False
        self.replica = Replica()
        self._read = 0
        self._stage = stage
        self.session = Session(name, self, stage.now, self.codes.append)
        stage.hub.open(self.session)

    # --- the outlet -----------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        self.frames.append(data)
        if self.takes_nothing:
            self.unsent += len(data)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.is_cut

    def abort(self) -> None:
        self.is_cut = True

    # --- the client -----------------------------------------------------------------------------------

    def read(self) -> list[Json]:
        """Return what was written since the last read, and apply it to the replica."""
        new, self._read = self.frames[self._read :], len(self.frames)
        messages = [message for frame in new for message in frames_in(frame)]
        self.replica.take(messages)
        return messages

    def subscribe(
        self, wanted: Channel, request_id: int = 1, cursor: str | None = None, *, latest: bool = False
    ) -> None:
        self._stage.hub.subscribe(self.session, wanted, request_id, cursor, latest=latest)

    def state(self, of: Channel) -> dict[str, Any]:
        """Return the client's copy."""
        self.read()
        return self.replica.states[of.name]


class Stage:
    """The hub, its clock, and the engine that a test plays."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.now = 1000.0
        self.wanted: list[str] = []
        self.unwanted: list[str] = []
        self.metrics = Metrics()
        self.hub = Hub(self, limits or Limits(), self.metrics, clock=lambda: self.now, wall_ms=lambda: 42)
        self.head = {CHAIN: header(100), OTHER_CHAIN: header(7)}
        # What the engine holds: the truth that every replica has to equal.
        self.truth: dict[str, State] = {}

    # --- the engine's side ----------------------------------------------------------------------------

    def want(self, wanted: Channel) -> None:
        self.wanted.append(wanted.name)

    def unwant(self, wanted: Channel) -> None:
        self.unwanted.append(wanted.name)

    def client(self, name: str = "client") -> Client:
        """Connect a client."""
        return Client(self, name)

    def start(self) -> None:
        """Publish the first heads."""
        for chain_id, head in self.head.items():
            self.hub.publish(BlockUpdate(chain_id=chain_id, header=head))

    def open(self, *channels: Channel, size: int = 1) -> None:
        """Open channels without a new block, each with `size` objects; nobody need have wanted them."""
        for one in channels:
            before = len(self.wanted)
            self.hub.when_open(one, lambda _: None)
            del self.wanted[before:]
            state: State = {f"{key}": {"value": "0", "block": 0, "inner": {"a": 1}} for key in range(size)}
            self.truth[one.name] = state
            update = BlockUpdate(
                chain_id=one.chain_id, header=self.head[one.chain_id], is_new_head=False, opened={one.name: state}
            )
            self.hub.publish(update)

    def refuse(self, one: Channel, error: ClientError) -> None:
        """Say that a channel will never be."""
        head = self.head[one.chain_id]
        self.hub.publish(BlockUpdate(chain_id=one.chain_id, header=head, is_new_head=False, refused={one.name: error}))

    def block(self, *channels: Channel, value: str = "x", key: str = "0", opened: Channel | None = None) -> Header:
        """Mine a block that changes a key of these channels, by one shared patch that is text already."""
        chain_id = channels[0].chain_id if channels else CHAIN
        head = self.head[chain_id] = header(self.head[chain_id].number + 1)
        patch: JsonObject = {"value": value, "block": head.number}
        text = f'{{"value":{json.dumps(value)},"block":{head.number}}}'
        update = BlockUpdate(chain_id=chain_id, header=head)
        self._say(update, [one.name for one in channels], key, 3, text)
        for one in channels:
            self.truth[one.name][key].update(patch)
        if opened is not None:
            self.truth[opened.name] = update.opened[opened.name] = {"0": {"value": "new", "inner": {"a": 2}}}
        self.hub.publish(update)
        return head

    def patch_text(self, one: Channel, key: str, text: str, *, also_block: bool) -> None:
        """Mine a block that patches one or two fields of a key, as text."""
        head = self.head[one.chain_id] = header(self.head[one.chain_id].number + 1)
        patch: JsonObject = {"value": text} | ({"block": head.number} if also_block else {})
        self.truth[one.name][key].update(patch)
        update = BlockUpdate(chain_id=one.chain_id, header=head)
        self._say(update, [one.name], key, 3 if also_block else 1, json.dumps(patch))
        self.hub.publish(update)

    def _say(self, update: BlockUpdate, names: list[str], key: str, fields: int, text: str) -> None:
        """Put a text into an update: channels with one object take it either way, and do so by turns."""
        lone = [name for name in names if len(self.truth[name]) == 1 and update.header.number % 3]
        update.lone.append(LonePatches(fields, lone, [text] * len(lone)))
        update.patched.update({name: {key: (fields, text)} for name in names if name not in lone})

    def change(self, one: Channel, change: Change) -> None:
        """Mine a block with any change of one channel; the truth follows key by key."""
        chain_id = one.chain_id
        head = self.head[chain_id] = header(self.head[chain_id].number + 1)
        state = self.truth[one.name]
        for key in change.remove:
            state.pop(key, None)
        state.update({key: dict(value) for key, value in change.set.items()})
        for key, patch in change.patch.items():
            state[key] = {**state[key], **patch}
        self.hub.publish(BlockUpdate(chain_id=chain_id, header=head, changes={one.name: change}))

    def reorg(self, depth: int, *changed: Channel, chain_id: ChainId = CHAIN) -> Header:
        """Replace the newest blocks by one block more of another branch."""
        old = self.head[chain_id]
        dropped = tuple(header(old.number - index).hash for index in range(depth))
        to = header(old.number - depth)
        head = self.head[chain_id] = header(old.number + 1, branch=old.number)
        patch: JsonObject = {"value": "corrected", "block": head.number}
        changes = {one.name: Change(patch={"0": patch}) for one in changed}
        for one in changed:
            self.truth[one.name]["0"].update(patch)
        rollback = Rollback(to=BlockRef(number=to.number, hash=to.hash), dropped=dropped)
        self.hub.publish(BlockUpdate(chain_id=chain_id, header=head, rollback=rollback, changes=changes))
        return head

    def lose_chain(self, *changed: Channel) -> None:
        """Reorganise deeper than can be known."""
        head = self.head[CHAIN] = header(self.head[CHAIN].number + 1, branch=99)
        patch: JsonObject = {"value": "anew", "block": head.number}
        for one in changed:
            self.truth[one.name]["0"].update(patch)
        changes = {one.name: Change(patch={"0": patch}) for one in changed}
        rollback = Rollback(to=None, dropped=())
        self.hub.publish(BlockUpdate(chain_id=CHAIN, header=head, rollback=rollback, changes=changes))

    def later(self, seconds: float) -> None:
        """Let time pass, and the hub notice."""
        self.now += seconds
        self.hub.tick()

    def assert_same(self, *clients: Client) -> None:
        """Every client's copies equal the truth."""
        for client in clients:
            client.read()
            for name in client.session.joined:
                assert client.replica.states[name] == self.truth[name]
