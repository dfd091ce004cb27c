"""Staked positions in the running server: under their depositors, and verified against the chain."""

from __future__ import annotations

import io
import json
from typing import Any

import aiohttp
from rich.console import Console

from rtserver.tools.verify import run_verify

from .served import Served


async def _ask(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with session.get(url) as response:
        assert response.status == 200, await response.text()
        return dict(await response.json())


async def test_summary_and_details_of_staked_positions(served: Served) -> None:
    lab = served.lab
    staker = lab.deployment.staker
    # Every sixth owner shows staked positions; the market may have taken some out, or put others in, meanwhile.
    async with aiohttp.ClientSession() as session:
        found = []
        for owner in lab.owners:
            summary = await _ask(session, f"{served.url}/api/v1/positions/summary?owner={owner}")
            assert isinstance(summary["claimable"], list)
            assert all(position["owner"].lower() == owner for position in summary["positions"])
            found += [position for position in summary["positions"] if position["isStaked"]]
        assert len(found) > 3
        for position in found[:3]:
            details = await _ask(session, f"{served.url}/api/v1/positions/{position['tokenId']}/details")
            for place in (details["rewards"] or {"places": []})["places"]:
                assert place["token"]["symbol"] == "UNI"
                assert int(place["amount"]) >= 0
                assert place["startTime"] < place["endTime"]
        mine = await _ask(session, f"{served.url}/api/v1/positions/summary?owner={staker}")
        assert mine["positions"] == []
        info = await _ask(session, f"{served.url}/api/v1/info")
        assert info["chains"][0]["protocols"][0]["staker"].lower() == staker


async def test_verify_finds_nothing_to_say_of_staked_positions(served: Served) -> None:
    out, err = io.StringIO(), io.StringIO()
    status = await run_verify(
        url=served.url,
        rpc=served.lab.node.http_url,
        everything=True,
        blocks=6,
        as_json=True,
        out=Console(file=out, width=300),
        err=Console(file=err, width=300),
    )
    report = json.loads(out.getvalue())
    assert status == 0, (out.getvalue()[-2000:], err.getvalue()[-2000:])
    assert report["positions"] > 50
