"""The messages as types. The server writes `block` frames by hand, from parts encoded once; the types are
their reference, and what clients, tests and the protocol's document are made from."""

from typing import Annotated, Any, Literal, TypeAlias

import msgspec

__all__ = [
    "Auth", "Block", "BlockRefMessage", "Bye", "ChangeMessage", "ClientId", "ClientMessage", "ErrorMessage",
    "HeadMessage", "Heartbeat", "Pong", "Refresh", "Resync", "RollbackMessage", "RollbackTo",
    "ServerMessage", "Snapshot", "Subscribe", "Subscribed", "Unsubscribe", "Unsubscribed", "Welcome", "decode_client",
    "decode_server", "encode",
]  # fmt: skip

RequestId: TypeAlias = int | str
# What domain.diff calls a JsonObject; msgspec can't build a decoder from a recursive alias.
WireObject: TypeAlias = dict[str, Any]


# What a client may call its request. Every reply repeats it, so it is short; and a number past 2^53 is no number
# to a browser, past 2^64 none to orjson.
ClientId: TypeAlias = (
    Annotated[int, msgspec.Meta(ge=-(2**53) + 1, le=2**53 - 1)] | Annotated[str, msgspec.Meta(max_length=64)]
)


class _Client(msgspec.Struct, tag_field="type", kw_only=True, omit_defaults=True):
    pass


class Auth(_Client, tag="auth"):
    """Reserved, answered with `bad_request`: says who the client is."""

    token: str
    id: ClientId | None = None


class Subscribe(_Client, tag="subscribe"):
    """Joins a channel, from a cursor if the client has one."""

    channel: str
    id: ClientId | None = None
    cursor: str | None = None
    mode: Literal["all", "latest"] = "all"


class Unsubscribe(_Client, tag="unsubscribe"):
    """Leaves a channel."""

    channel: str
    id: ClientId | None = None


class Resync(_Client, tag="resync"):
    """Asks for a new snapshot: the client saw a gap or a wrong checksum."""

    channel: str
    id: ClientId | None = None
    reason: str = ""


class Refresh(_Client, tag="refresh"):
    """Reserved, answered with `bad_request`: replaces a token before it expires."""

    token: str
    id: ClientId | None = None


class Pong(_Client, tag="pong"):
    """Answers a heartbeat."""

    id: ClientId | None = None


ClientMessage = Auth | Subscribe | Unsubscribe | Resync | Refresh | Pong


class BlockRefMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The block that a state or change is anchored to; the timestamp is in seconds."""

    number: int
    hash: str
    parent_hash: str = ""
    timestamp: int = 0


class HeadMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A chain's head and how long ago it arrived."""

    number: int
    hash: str
    timestamp: int = 0
    age_ms: int = 0


class _Server(msgspec.Struct, tag_field="type", kw_only=True, rename="camel", omit_defaults=True):
    pass


class Welcome(_Server, tag="welcome"):
    """Opens a session."""

    session: str
    protocol: str
    limits: dict[str, int]
    heartbeat_ms: int
    heads: dict[str, HeadMessage]


class Snapshot(_Server, tag="snapshot"):
    """A channel's whole state, or one part of it; the checksum covers all parts together."""

    channel: str
    epoch: str
    seq: int
    block: BlockRefMessage
    state: dict[str, WireObject]
    checksum: int
    cursor: str
    part: int
    parts: int
    id: RequestId | None = None


class Subscribed(_Server, tag="subscribed"):
    """Ends a join: from here on the client has everything up to `seq`."""

    channel: str
    how: Literal["resumed", "snapshot"]
    epoch: str
    seq: int
    cursor: str
    id: RequestId | None = None


class Unsubscribed(_Server, tag="unsubscribed"):
    """Confirms that nothing more comes for a channel."""

    channel: str
    id: RequestId | None = None


class ChangeMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One channel's change: it covers (prev, seq]."""

    channel: str
    epoch: str
    prev: int
    seq: int
    cursor: str
    set: dict[str, WireObject] = {}
    patch: dict[str, WireObject] = {}
    remove: list[str] = []
    checksum: int | None = None


class RollbackTo(msgspec.Struct, frozen=True, kw_only=True):
    """The last block that old and new chain have in common."""

    number: int
    hash: str


class RollbackMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The chain was reorganised."""

    to: RollbackTo
    dropped: list[str]


class Block(_Server, tag="block"):
    """Everything that one block changed for one client; of a chain that engines share, in the channels of a `shard`."""

    chain_id: int
    block: BlockRefMessage
    changes: list[ChangeMessage]
    rollback: RollbackMessage | None = None
    shard: str | None = None


class Heartbeat(_Server, tag="heartbeat"):
    """The socket lives; `ageMs` says whether the chains do; `seqs` reveals a lost last message, and `checksums`,
    each of a channel's state at its seq, one that was changed on the way. Not every channel has one each time."""

    time: int
    heads: dict[str, HeadMessage]
    seqs: dict[str, int]
    checksums: dict[str, int] = {}


class ErrorMessage(_Server, tag="error"):
    """A request failed."""

    code: str
    message: str
    id: RequestId | None = None
    retry_after_ms: int | None = None


class Bye(_Server, tag="bye"):
    """The server is about to close the socket."""

    code: int
    reconnect: bool
    after_ms: int = 0


ServerMessage = Welcome | Snapshot | Subscribed | Unsubscribed | Block | Heartbeat | ErrorMessage | Bye

_client_decoder: msgspec.json.Decoder[ClientMessage] = msgspec.json.Decoder(ClientMessage)
_server_decoder: msgspec.json.Decoder[ServerMessage] = msgspec.json.Decoder(ServerMessage)
_encoder = msgspec.json.Encoder()


def decode_client(text: str | bytes) -> ClientMessage:
    """Return a client's message.

    Raises:
        msgspec.ValidationError, msgspec.DecodeError: Not one of the messages; the text says what and where.
    """
    try:
        return _client_decoder.decode(text)
    except RecursionError as error:
        # Also in fields that are skipped: a kilobyte of brackets is enough.
        raise msgspec.DecodeError("nested too deeply") from error


def decode_server(text: str | bytes) -> ServerMessage:
    """Return a server's message; raises as `decode_client`."""
    return _server_decoder.decode(text)


def encode(message: ClientMessage | ServerMessage) -> bytes:
    """Return a message's JSON."""
    return _encoder.encode(message)
