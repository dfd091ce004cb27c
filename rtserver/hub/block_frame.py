"""The text of a `block` message, written by hand around fragments that were encoded once."""

from collections.abc import Iterable

import orjson

from ..domain.chain import Header, Rollback

__all__ = ["block_head", "block_json", "block_message", "rollback_json"]


def block_json(header: Header) -> str:
    """Return the block that a change or snapshot is anchored to; the timestamp is in seconds."""
    return (
        f'{{"number":{header.number},"hash":"{header.hash}",'
        f'"parentHash":"{header.parent_hash}","timestamp":{header.timestamp}}}'
    )


def rollback_json(rollback: Rollback | None) -> str:
    """Return the member that tells of a reorganisation, with its leading comma; empty where there was none."""
    if rollback is None:
        return ""
    assert rollback.to is not None, "without a block in common there is no change either, but snapshots"
    to = {"number": rollback.to.number, "hash": rollback.to.hash}
    return ',"rollback":' + orjson.dumps({"to": to, "dropped": list(rollback.dropped)}).decode()


def block_message(chain_id: int, header: Header, fragments: Iterable[str], rollback: str, shard: str = "") -> bytes:
    """Return a whole message."""
    return f"{block_head(chain_id, header, shard)}{','.join(fragments)}]{rollback}}}".encode()


def block_head(chain_id: int, header: Header, shard: str = "") -> str:
    """Return the start of a message, up to its first fragment; `shard` where its channels are not all of the chain."""
    part = f',"shard":"{shard}"' if shard else ""
    return f'{{"type":"block","chainId":{chain_id}{part},"block":{block_json(header)},"changes":['
