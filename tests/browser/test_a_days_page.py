"""The page in a real browser against a real server, over a day of the chain's time: value, earned, APR and the chart.

RTSERVER_PICTURES=FOLDER keeps pictures of it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from playwright.async_api import Page, expect

from rtserver.demo.lab import Lab
from rtserver.demo.ports import free_port
from rtserver.demo.server import await_ready, start_server, url_of
from rtserver.demo.settings_file import settings_toml


async def test_a_day_of_trades_and_a_stake(page: Page, lab: Lab, tmp_path: Path) -> None:
    owner, pool = lab.owners[0], lab.pool("WETH", "USDC", 500)
    tick = pool.align(lab.pool_state(pool).tick)
    token_id = await lab.mint_now(owner, pool, tick - 2_000, tick + 2_000)
    other = await lab.mint_now(owner, pool, tick + 600, tick + 2_000)
    await lab.stake(token_id)
    await lab.mine()
    settings = tmp_path / "rtserver.toml"
    store = tmp_path / "store.sqlite3"
    settings.write_text(settings_toml(lab.deployment, ws_url=lab.node.ws_url, http_url=lab.node.http_url, store=store))
    server = start_server(settings, host="127.0.0.1", port=(port := free_port()), log=tmp_path / "server.log")
    try:
        url = url_of("127.0.0.1", port)
        await await_ready(server, url)
        await page.goto(f"{url}/?owner={owner}")
        row = page.locator(f"[data-testid=position-row][data-key='uniswap-v3:{token_id}']")
        await expect(row).to_be_visible()
        for index in range(48):
            await lab.swap(
                pool, index % 2 == 0, (3 if index % 3 else 12) * (10**18 if index % 2 == 0 else 3_000 * 10**6)
            )
            await lab.mine(timestamp=lab.head.timestamp + 1800)
            # One after the other: a block that is read with the next one leaves no record of its own.
            await expect(page.get_by_test_id("head-number")).to_have_attribute("data-number", str(lab.head.number))
        # What REST reckons is asked once a minute, and when the page is opened.
        await page.reload()
        await expect(row.get_by_test_id("position-earned")).to_have_text(
            re.compile(r"APR[\d,]+\.\d%\$[\d,]+\.\d\d earned")
        )
        await expect(row.get_by_test_id("position-rewards")).to_contain_text("UNI")
        await expect(row.get_by_test_id("position-value")).to_have_text(re.compile(r"\$[\d,]+\.\d\d"))
        await row.get_by_test_id("position-toggle").click()
        await expect(page.get_by_test_id("chart-said")).to_have_text(re.compile(r"^\$[\d,]+\.\d\d [+−]\d"))
        line = await page.locator(".line").get_attribute("d") or ""
        assert len(re.findall("[ML]", line)) > 20
        facts = page.get_by_test_id("facts")
        for text in ("24 hours", "Over the whole range", "Earned over life", "Worth if just held", "UNI"):
            await expect(facts).to_contain_text(text)
        await page.get_by_role("button", name="7 d").click()
        await expect(page.locator("[aria-pressed=true][value='7d']")).to_be_visible()
        # Nothing was sent twice, nothing is shown of a position that only stands beside it.
        assert await page.locator(f"[data-key='uniswap-v3:{other}']").count() == 1
        if folder := os.environ.get("RTSERVER_PICTURES"):
            await page.get_by_role("button", name="24 h").click()
            await expect(page.get_by_test_id("chart-said")).to_contain_text("$")
            await page.screenshot(path=Path(folder) / "day-1280.png", full_page=True)
            await page.set_viewport_size({"width": 390, "height": 844})
            await page.screenshot(path=Path(folder) / "day-390.png", full_page=True)
    finally:
        await server.end(timeout_s=5.0)
