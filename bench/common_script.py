"""An engine without a chain, for benches of what comes after computing: opens wishes, changes as it is told.

Who takes its steps is whoever makes it: a hub, or a role `engine` in front of Redis.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from rtserver.domain.chain import Header
from rtserver.domain.diff import EncodedPatch, State
from rtserver.domain.ids import BlockHash, ChainId
from rtserver.domain.update import BlockUpdate
from rtserver.hub.limits import Interest
from rtserver.protocols.channels import Channel

__all__ = ["CHAIN", "KIND", "STATE_BYTES", "ScriptedEngine"]

CHAIN: Final = ChainId(1)
KIND: Final = "uniswap-v3"
# A first state of the size of a real position.
STATE_BYTES: Final = 900
# Cold channels that were asked for within this time are read together, as the engine does.
_READ_S: Final = 0.01


class ScriptedEngine(Interest):
    """Opens what is wished for, changes what it is told to.

    Args:
        take: Takes its steps.
    """

    def __init__(self, take: Callable[[BlockUpdate], None]) -> None:
        self._take = take
        self._wanted: list[str] = []
        self._open: list[str] = []
        self._number = 0

    def want(self, channel: Channel) -> None:
        """Note a cold channel; all that come together are opened together."""
        if not self._wanted:
            asyncio.get_running_loop().call_later(_READ_S, self._open_wanted)
        self._wanted.append(channel.name)

    def unwant(self, channel: Channel) -> None:
        """Close a channel."""
        self._open = [name for name in self._open if name != channel.name]

    def header(self) -> Header:
        """Return the newest block: with short hashes, so that a frame can be 300 bytes; its time is the clock's, now.

        The load generator takes a frame's age from it.
        """
        number = self._number
        return Header(
            number=number,
            hash=BlockHash(f"0x{number:08x}"),
            parent_hash=BlockHash(f"0x{max(number - 1, 0):08x}"),
            timestamp=time.monotonic_ns(),
            logs_bloom=0,
        )

    def _open_wanted(self) -> None:
        wanted, self._wanted = self._wanted, []
        self._open += wanted
        opened: dict[str, State] = {
            name: {name.rpartition(":")[2]: {"pad": "x" * STATE_BYTES, "tokenId": name}} for name in wanted
        }
        self._take(BlockUpdate(chain_id=CHAIN, header=self.header(), is_new_head=False, opened=opened))

    def publish(self, pad: int) -> None:
        """Change every open channel in one block, each by a patch of its own."""
        self._number += 1
        header = self.header()
        patch: EncodedPatch = (1, f'{{"pad":"{"x" * pad}"}}')
        patched = {name: {name.rpartition(":")[2]: patch} for name in self._open}
        self._take(BlockUpdate(chain_id=CHAIN, header=header, patched=patched))
