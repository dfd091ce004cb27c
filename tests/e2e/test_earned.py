"""What positions earned, as the running server tells it: complete, and against what was really put in and paid."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from chain.paid import payments, receipts_of

from .served import Served


async def _ask(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with session.get(url) as response:
        assert response.status == 200, await response.text()
        return dict(await response.json())


async def test_details_and_summaries_tell_what_was_earned(served: Served) -> None:
    lab = served.lab
    async with aiohttp.ClientSession() as session, asyncio.timeout(90):
        owner = next(owner for owner in lab.owners if len(lab.book.owned_by(owner)) > 2)
        token_id = min(lab.book.owned_by(owner))
        url = f"{served.url}/api/v1/positions/{token_id}/details"
        while True:
            # Past events, and prices of then, are read beside the blocks: nobody waits for them.
            details = await _ask(session, url)
            # A window begins with the first block that the position is known at.
            if details["pnl"] and details["pnl"]["deposits"]["usd"] is not None and details["aprs"]["1h"]:
                break
            await asyncio.sleep(0.2)
        number = details["block"]["number"]
        paid = payments(lab, (await receipts_of(lab))[: number + 1])[token_id]
        pnl, earned = details["pnl"], details["earned"]
        for side in ("0", "1"):
            token = details[f"token{side}"]["address"].lower()
            assert pnl["deposits"][f"amount{side}"] == str(paid.deposited[token])
            assert pnl["withdrawals"][f"amount{side}"] == str(paid.withdrawn[token])
            assert pnl["collected"][f"amount{side}"] == str(paid.collected[token])
            assert earned[f"fees{side}"] == str(paid.fees(token) + int(details[f"collectable{side}"]))
        assert set(details["aprs"]) == {"1h", "24h", "7d"}
        assert details["aprs"]["1h"]["windowSeconds"] > 0
        assert sum(pnl["priceSources"].values()) >= 1
        summary = await _ask(session, f"{served.url}/api/v1/positions/summary?owner={owner}")
        assert all({"apr", "earnedAmountUSD"} <= position.keys() for position in summary["positions"])
        assert any(position["earnedAmountUSD"] is not None for position in summary["positions"])
