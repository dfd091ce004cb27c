"""One example of every message, as a value of its type: an example that doesn't fit can't be written."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from .checksum import checksum_of
from .codes import PROTOCOL, CloseCode, ErrorCode
from .cursor import cursor_text
from .messages import (
    Auth,
    Block,
    BlockRefMessage,
    Bye,
    ChangeMessage,
    ErrorMessage,
    HeadMessage,
    Heartbeat,
    Pong,
    Refresh,
    Resync,
    RollbackMessage,
    RollbackTo,
    Snapshot,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
    Welcome,
)

__all__ = ["EXAMPLES"]

_CHANNEL: Final = "position:31337:uniswap-v3:17"
_EPOCH: Final = "5f0c2a911"
_SUBSCRIBE_ID: Final = 1


def _hash(digit: str) -> str:
    return f"0x{digit * 64}"


def _cursor(seq: int, block_hash: str) -> str:
    return cursor_text(_EPOCH, seq, block_hash)


_BLOCK: Final = BlockRefMessage(number=120, hash=_hash("b"), parent_hash=_hash("a"), timestamp=1_700_000_120)
_NEXT: Final = BlockRefMessage(number=121, hash=_hash("c"), parent_hash=_hash("b"), timestamp=1_700_000_121)
_OTHER: Final = BlockRefMessage(number=121, hash=_hash("d"), parent_hash=_hash("b"), timestamp=1_700_000_122)
_HEAD: Final = HeadMessage(number=_BLOCK.number, hash=_BLOCK.hash, timestamp=_BLOCK.timestamp, age_ms=240)
_BEFORE: Final[dict[str, Any]] = {"tokenId": "17", "isActive": True, "amount0": "1000000000000000001", "fees0": "12"}
_MOVED: Final[dict[str, Any]] = {"amount0": "999000000000000007", "fees0": "14"}
_HEADS: Final = {"31337": _HEAD}


def _state(**fields: Any) -> dict[str, Any]:
    return {"17": {**_BEFORE, **fields}}


_CHANGE: Final = ChangeMessage(
    channel=_CHANNEL, epoch=_EPOCH, prev=41, seq=42, cursor=_cursor(42, _NEXT.hash), patch={"17": _MOVED}
)
_CORRECTION: Final = ChangeMessage(
    channel=_CHANNEL,
    epoch=_EPOCH,
    prev=42,
    seq=43,
    cursor=_cursor(43, _OTHER.hash),
    patch={"17": {"amount0": _BEFORE["amount0"], "fees0": "13"}},
    checksum=checksum_of(_state(fees0="13")),
)
_ROLLBACK: Final = RollbackMessage(to=RollbackTo(number=_BLOCK.number, hash=_BLOCK.hash), dropped=[_NEXT.hash])

EXAMPLES: Final[Mapping[type[msgspec.Struct], tuple[msgspec.Struct, ...]]] = {
    Auth: (Auth(token="eyJhbGciOi…"),),
    Subscribe: (
        Subscribe(channel=_CHANNEL, id=_SUBSCRIBE_ID),
        Subscribe(channel=_CHANNEL, id=_SUBSCRIBE_ID, cursor=_cursor(41, _BLOCK.hash), mode="latest"),
    ),
    Unsubscribe: (Unsubscribe(channel=_CHANNEL, id=2),),
    Resync: (Resync(channel=_CHANNEL, id=3, reason="gap"),),
    Refresh: (Refresh(token="eyJhbGciOi…", id=4),),
    Pong: (Pong(),),
    Welcome: (
        Welcome(
            session="9f3c1d20a7b64e58",
            protocol=PROTOCOL,
            limits={"channels": 256, "messageBytes": 16384, "messagesPerSecond": 10, "burst": 20},
            heartbeat_ms=15_000,
            heads=_HEADS,
        ),
    ),
    Snapshot: (
        Snapshot(
            id=_SUBSCRIBE_ID,
            channel=_CHANNEL,
            epoch=_EPOCH,
            seq=41,
            block=_BLOCK,
            state=_state(),
            checksum=checksum_of(_state()),
            cursor=_cursor(41, _BLOCK.hash),
            part=1,
            parts=1,
        ),
    ),
    Subscribed: (
        Subscribed(
            id=_SUBSCRIBE_ID,
            channel=_CHANNEL,
            how="snapshot",
            epoch=_EPOCH,
            seq=41,
            cursor=_cursor(41, _BLOCK.hash),
        ),
    ),
    Unsubscribed: (Unsubscribed(channel=_CHANNEL, id=2),),
    Block: (
        Block(chain_id=31337, block=_NEXT, changes=[_CHANGE]),
        Block(chain_id=31337, block=_OTHER, changes=[_CORRECTION], rollback=_ROLLBACK),
    ),
    Heartbeat: (Heartbeat(time=1_700_000_135_000, heads=_HEADS, seqs={_CHANNEL: 43}, checksums={_CHANNEL: 7}),),
    ErrorMessage: (
        ErrorMessage(code=ErrorCode.BAD_CHANNEL, message="chain 2 is not served here; served are 31337", id=5),
        ErrorMessage(code=ErrorCode.RATE, message="at most 10 messages a second", id=6, retry_after_ms=90),
    ),
    Bye: (Bye(code=CloseCode.SHUTDOWN, reconnect=True, after_ms=1800),),
}
