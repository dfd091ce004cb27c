"""The protocol as an AsyncAPI 3.0 document, made from the message types: what they say, it says.

It decides how operations group messages and what an example looks like; fields, types and codes are only
ever those of `messages` and `codes`. Served at `/asyncapi.json`. `PROTOCOL.md` beside this file is the prose.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, get_args

import msgspec

from .asyncapi_examples import EXAMPLES
from .codes import PROTOCOL, CloseCode, ErrorCode
from .messages import ClientMessage, ServerMessage

__all__ = ["CLOSE_MEANINGS", "ERROR_MEANINGS", "asyncapi_document"]

_Json = dict[str, Any]

CLOSE_MEANINGS: Final[Mapping[CloseCode, str]] = {
    CloseCode.SHUTDOWN: "the server shuts down; a `bye` came before, with `afterMs` spread over all clients",
    CloseCode.TOKEN_EXPIRED: "reserved, not sent yet: the token expired; come back with a new one",
    CloseCode.SLOW: "nothing was read for too long; the connection is dropped without a closing handshake",
    CloseCode.NO_PONG: "a heartbeat was not answered in time",
    CloseCode.RATE: "went on sending far over the rate",
    CloseCode.BAD_TOKEN: "reserved, not sent yet: the token is not valid",
    CloseCode.BAD_FRAME: "a frame that is not text",
    CloseCode.FORBIDDEN: "reserved, not sent yet: not allowed",
    CloseCode.TOO_MANY_CONNECTIONS: "too many connections from this address",
}
ERROR_MEANINGS: Final[Mapping[ErrorCode, str]] = {
    ErrorCode.UNAUTHORIZED: "reserved, not sent yet: who the client is was not said, or doesn't suffice",
    ErrorCode.BAD_CHANNEL: "no such channel here; the text says which there are",
    ErrorCode.BAD_REQUEST: "not a message of this protocol; the text says what and where",
    ErrorCode.LIMIT: "more than one connection may have",
    ErrorCode.RATE: "too many messages; `retryAfterMs` says when to go on",
    ErrorCode.TOKEN_EXPIRED: "reserved, not sent yet: the token expired; send `refresh`",
    ErrorCode.UNRECOVERABLE: "reserved, not sent yet: what was asked for can't be had any more",
    ErrorCode.CHAIN_UNAVAILABLE: "the chain doesn't answer; try again after `retryAfterMs`",
    ErrorCode.LOAD_TIMEOUT: "the channel could not be read in time; try again after `retryAfterMs`",
}
# What a client's message is answered with; one that isn't here is not answered unless it fails.
_REPLIES: Final[Mapping[str, tuple[str, ...]]] = {
    "subscribe": ("snapshot", "block", "subscribed", "error"),
    "resync": ("snapshot", "subscribed", "error"),
    "unsubscribe": ("unsubscribed", "error"),
    "auth": ("error",),
    "refresh": ("error",),
}
_CHANNELS: Final = """A client's copy of a channel is a map of keys to JSON objects, exact as of a block:

| channel | keys |
|---|---|
| `position:{chainId}:{protocol}:{tokenId}` | the token id; none where the position is burned |
| `owner:{chainId}:{address}` | `protocol:tokenId` of each position of the owner |
| `rewards:{chainId}:{address}` | `protocol:token` of each token that the owner can claim from staking |
| `pool:{chainId}:{address}` | the pool |
| `prices:{chainId}` | the token's address |
| `head:{chainId}` | `head`, and where the nodes know them `safe` and `finalized` |

A change covers `(prev, seq]` and applies iff its `epoch` and `prev` are the copy's own; else send `resync`.
Frames are text, one JSON object each, not compressed. Integers over 2^53 are decimal strings; there are no floats."""


def _tag(message: type[msgspec.Struct]) -> str:
    tag = message.__struct_config__.tag
    assert isinstance(tag, str), f"{message.__name__} has no name on the wire"
    return tag


def _messages(union: Any) -> dict[str, type[msgspec.Struct]]:
    return {_tag(message): message for message in get_args(union)}


def _summary(message: type[msgspec.Struct]) -> str:
    return " ".join((message.__doc__ or "").split())


def _message(tag: str, message: type[msgspec.Struct]) -> _Json:
    examples = [
        {"name": f"{tag}{index or ''}", "payload": msgspec.json.decode(msgspec.json.encode(example))}
        for index, example in enumerate(EXAMPLES[message])
    ]
    described: _Json = {
        "name": tag,
        "title": message.__name__,
        "summary": _summary(message),
        "contentType": "application/json",
        "payload": {"$ref": f"#/components/schemas/{message.__name__}"},
        "examples": examples,
    }
    if "id" in message.__struct_fields__:
        described["correlationId"] = {
            "description": "A reply echoes its request's `id`; a push has none.",
            "location": "$message.payload#/id",
        }
    return described


def _table(heads: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _channel(name: str, address: str, summary: str, tags: Iterable[str], **more: Any) -> _Json:
    closes = _table(
        ("close code", "come back", "meaning"),
        ((code.value, "yes" if code.reconnect else "no", meaning) for code, meaning in CLOSE_MEANINGS.items()),
    )
    return {
        "address": address,
        "title": name,
        "summary": summary,
        "description": f"{_CHANNELS}\n\nThe server may close the socket:\n\n{closes}",
        "messages": {tag: {"$ref": f"#/components/messages/{tag}"} for tag in tags},
        **more,
    }


def _operations(channel: str, suffix: str) -> _Json:
    def refs(tags: Iterable[str]) -> list[_Json]:
        return [{"$ref": f"#/channels/{channel}/messages/{tag}"} for tag in tags]

    where = {"$ref": f"#/channels/{channel}"}
    operations: _Json = {
        f"push{suffix}": {
            "action": "send",
            "channel": where,
            "summary": "What the server sends, as replies and by itself: one `block` frame a block and client.",
            "messages": refs(_messages(ServerMessage)),
        }
    }
    for tag, message in _messages(ClientMessage).items():
        operation: _Json = {
            "action": "receive",
            "channel": where,
            "summary": _summary(message),
            "messages": refs([tag]),
        }
        if tag in _REPLIES:
            operation["reply"] = {"channel": where, "messages": refs(_REPLIES[tag])}
        operations[f"{tag}{suffix}"] = operation
    return operations


def _schemas() -> _Json:
    types = [*_messages(ServerMessage).values(), *_messages(ClientMessage).values()]
    _, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    for schema in schemas.values():
        # A docstring's line breaks are the source file's.
        schema["description"] = " ".join(schema.get("description", "").split())
    errors = schemas["ErrorMessage"]["properties"]["code"]
    # Not an enum: a client has to bear with codes that come later.
    errors["examples"] = [code.value for code in ErrorCode]
    errors["description"] = _table(("code", "meaning"), ERROR_MEANINGS.items())
    closes = schemas["Bye"]["properties"]["code"]
    closes["examples"] = [code.value for code in CloseCode]
    closes["description"] = "The close code that follows; 4000–4499 ask to come back, 4500–4999 not to."
    return schemas


def asyncapi_document(version: str, host: str, *, is_secure: bool = False) -> _Json:
    """Return the document.

    Args:
        version: The server's.
        host: Where clients reach it, with the port if it isn't the scheme's own.
        is_secure: Whether by wss.
    """
    messages = {**_messages(ServerMessage), **_messages(ClientMessage)}
    bindings = {"ws": {"method": "GET", "bindingVersion": "0.1.0"}}
    one_position = {
        "type": "object",
        "properties": {
            "chainId": {"type": "integer", "description": "Needed where several chains are served."},
            "protocol": {"type": "string", "description": "Needed where several protocols are served."},
        },
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": f"rtserver, {PROTOCOL}",
            "version": version,
            "description": (
                "Concentrated-liquidity positions, live and exact: a snapshot, then one frame a block with all that "
                "it changed. Everything is sequenced, proved by checksums and resumable by cursor."
            ),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"here": {"host": host, "protocol": "wss" if is_secure else "ws"}},
        "channels": {
            "socket": _channel(
                "The socket", "/ws", "All channels over one connection.", messages, bindings=bindings
            ),
            "position": _channel(
                "One position", "/ws/positions/{tokenId}", "The same socket, subscribed to a position.", messages,
                parameters={"tokenId": {"description": "The NFT's id, decimal.", "examples": ["1"]}},
                bindings={"ws": {**bindings["ws"], "query": one_position}},
            ),
        },
        "operations": {**_operations("socket", ""), **_operations("position", "OfPosition")},
        "components": {
            "messages": {tag: _message(tag, message) for tag, message in messages.items()},
            "schemas": _schemas(),
        },
    }  # fmt: skip
