"""An owner with 9,000 positions, as clients have it: in pages over REST, in parts over a socket."""

from __future__ import annotations

import json
from typing import Any

from rtserver.hub.limits import Limits
from rtserver.wire.checksum import checksum_of

from .served import OWNER, position, served

COUNT = 9_000
OWNED = f"owner:31337:{OWNER}"
# A part is whole objects: so it may be one object longer.
PART_BYTES = 256 * 1024 + 4096


async def test_pages_and_parts_are_the_same_positions() -> None:
    async with served(limits=Limits()) as server:
        server.mine()
        server.states[OWNED] = {f"uniswap-v3:{n}": position(n, "1.00") for n in range(1, COUNT + 1)}
        pages: dict[str, Any] = {}
        after = ""
        while True:
            _, body = await server.get(f"/api/v1/positions/summary?owner={OWNER}&limit=1000{after}")
            assert (body["count"], body["totalValueUSD"]) == (COUNT, f"{COUNT}.00")
            pages |= {f"uniswap-v3:{one['tokenId']}": one for one in body["positions"]}
            if body["next"] is None:
                break
            after = f"&after={body['next']}"
        assert len(pages) == COUNT

        async with server.connect(max_size=1 << 20) as socket:
            await socket.recv()
            await socket.send(json.dumps({"type": "subscribe", "id": 1, "channel": OWNED}))
            state: dict[str, Any] = {}
            parts: list[int] = []
            while True:
                text = await socket.recv()
                message = json.loads(text)
                if message["type"] == "subscribed":
                    break
                assert (message["type"], len(text) <= PART_BYTES) == ("snapshot", True)
                state |= message["state"]
                parts.append(message["part"])
                told = message["parts"], message["checksum"]
            assert parts == list(range(1, told[0] + 1))
            assert len(parts) > 10
            assert checksum_of(state) == told[1]
        earned = {"apr": None, "earnedAmountUSD": None}
        assert {key: {**view, **earned} for key, view in state.items()} == pages
