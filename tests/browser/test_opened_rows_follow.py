"""An opened row follows its position: it asks again, at a pace, says of which block it is, and loses nobody's place.

How often it asks is proved with a manual clock (`tests/node/asking.test.mjs`); here time only ever jumps ahead, so that
nothing depends on how fast the machine is.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from playwright.async_api import Locator, Page, expect

from .scripted import FIRST_BLOCK, ORIGIN, OWNER, Refused, ScriptedServer, block_of, position
from .test_opened_rows import details, past

DETAILS = "/api/v1/positions/1/details"
HISTORY = "/api/v1/positions/1/history"
PACE_MS = 3_000
HISTORY_PACE_MS = 15_000
LONG_MS = 10_000  # longer than any wait here, and too short for the page to take the server for dead

SELECT_AND_MARK = """() => {
  const facts = document.querySelector("[data-testid=facts]");
  const [first, second] = facts.querySelectorAll("h3");
  getSelection().setBaseAndExtent(first.firstChild, 0, second.firstChild, 3);
  window.marked = [...facts.querySelectorAll("dd")];
  window.told = new Set();
  new MutationObserver(() => window.told.add(facts.textContent)).observe(facts, {
    subtree: true, childList: true, characterData: true,
  });
}"""
IS_UNDISTURBED = """() => {
  const facts = document.querySelector("[data-testid=facts]");
  const now = [...facts.querySelectorAll("dd")];
  return now.length === window.marked.length && now.every((dd, index) => dd === window.marked[index])
    && getSelection().toString().startsWith("Since it was opened");
}"""
HIDE = """isHidden => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => isHidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def told(number: int, net: str) -> dict[str, Any]:
    """What REST tells of the position at a block."""
    return details(1, block=block_of(number), pnl={"netUSD": net, "netIncludes": ["principal"]})


async def _open(page: Page, server: ScriptedServer) -> tuple[Locator, Locator]:
    """Open the row of position 1; return its facts and what it says of their block."""
    await page.clock.install()
    await server.attach(page)
    await page.goto(f"{ORIGIN}/?owner={OWNER}")
    await page.get_by_test_id("position-toggle").click()
    return page.get_by_test_id("facts"), page.get_by_test_id("panel-as-of")


async def _mine(page: Page, server: ScriptedServer, **fields: Any) -> None:
    """Mine a block that changes the position's value, and wait until the row shows it."""
    value = f"{server.number - FIRST_BLOCK + 5_001}.00"
    server.mine(patch={1: {"valueUSD": value, **fields}})
    await expect(page.get_by_test_id("total-value")).to_contain_text(f"${value[0]},{value[1:]}")


def _asked(server: ScriptedServer) -> int:
    return sum("/details" in url for url in server.asked)


async def test_details_follow_the_position_and_stay_where_they_are(page: Page) -> None:
    server = ScriptedServer(position(1))
    server.rest[DETAILS] = told(FIRST_BLOCK, "150.25")
    facts, as_of = await _open(page, server)
    await expect(as_of).to_have_text("At block 1,234,567")
    await expect(facts).to_contain_text("$150.25")
    await page.evaluate(SELECT_AND_MARK)

    # The answer is held: what the socket tells too moves on, the rest stays and says of when it is. Nobody asks twice.
    may_answer = asyncio.Event()

    async def late(_url: str) -> Any:
        await may_answer.wait()
        return told(FIRST_BLOCK + 1, "170.00")

    server.rest[DETAILS] = late
    await _mine(page, server, feesUSD="7.75", fees1="4750000")
    await expect(facts).to_contain_text("4.75000 USDC · $4.75")
    await expect(facts).to_contain_text("$150.25")
    await expect(as_of).to_have_text("At block 1,234,567; fees, rewards and what was earned are 1 block newer")
    await page.clock.fast_forward(PACE_MS)
    await server.was_asked("/details", count=2)
    await _mine(page, server, feesUSD="7.80")
    await page.clock.fast_forward(LONG_MS)
    await expect(as_of).to_contain_text("2 blocks newer")
    assert _asked(server) == 2
    may_answer.set()
    await expect(facts).to_contain_text("$170.00")
    await expect(as_of).to_contain_text("At block 1,234,568; ")

    # It was of the block before the last: asked for again. One that is older still comes too late to be shown.
    server.rest[DETAILS] = told(FIRST_BLOCK, "1.11")
    await page.clock.fast_forward(PACE_MS)
    await server.was_asked("/details", count=3)
    server.rest[DETAILS] = told(FIRST_BLOCK + 2, "180.00")
    await page.clock.fast_forward(LONG_MS)
    await expect(facts).to_contain_text("$180.00")
    await expect(as_of).to_have_text("At block 1,234,569")
    assert not await page.evaluate(
        "() => [...window.told].some(text => text.includes('$1.11') || !text.includes('Net'))"
    )
    assert await page.evaluate(IS_UNDISTURBED)


async def test_the_row_never_contradicts_what_is_told_below_it(page: Page) -> None:
    server = ScriptedServer(position(1))
    summary = {"protocol": "uniswap-v3", "tokenId": "1", "apr": "15.5%", "earnedAmountUSD": "50.25"}
    server.rest["/api/v1/positions/summary"] = {"positions": [summary], "next": None}
    server.rest[DETAILS] = {**told(FIRST_BLOCK, "150.25"), "apr": "1234.5%", "earnedAmountUSD": "51.75"}
    facts, _ = await _open(page, server)
    await expect(facts).to_contain_text("$51.75")
    await expect(page.get_by_test_id("position-earned")).to_contain_text("1,234.5%$51.75 earned")


async def test_failures_are_told_calmly_and_tried_again(page: Page) -> None:
    server = ScriptedServer(position(1))
    server.rest[DETAILS] = Refused(503)
    server.rest[HISTORY] = Refused(503)
    facts, as_of = await _open(page, server)
    await expect(as_of).to_have_text("Details are not to be had just now; they are asked for again.")
    await expect(page.get_by_test_id("chart-none")).to_contain_text("not to be had just now")
    server.rest[DETAILS] = told(FIRST_BLOCK, "150.25")
    await page.clock.fast_forward(LONG_MS)
    await expect(as_of).to_have_text("At block 1,234,567")

    server.rest[DETAILS] = Refused(429, {"Retry-After": "7"})
    await _mine(page, server)
    await page.clock.fast_forward(PACE_MS)
    await expect(as_of).to_contain_text("The server asks for patience; it is asked again.")
    await _mine(page, server)
    await expect(as_of).to_contain_text("At block 1,234,567; ")
    await expect(as_of).to_contain_text("asks for patience")
    await expect(facts).to_contain_text("$150.25")
    server.rest[DETAILS] = told(FIRST_BLOCK + 2, "160.00")
    await page.clock.fast_forward(LONG_MS)
    await expect(facts).to_contain_text("$160.00")
    await expect(as_of).to_have_text("At block 1,234,569")


async def test_a_hidden_page_asks_nothing(page: Page) -> None:
    server = ScriptedServer(position(1))
    server.rest[DETAILS] = told(FIRST_BLOCK, "150.25")
    facts, _ = await _open(page, server)
    await expect(facts).to_contain_text("$150.25")
    await page.evaluate(HIDE, True)
    server.rest[DETAILS] = told(FIRST_BLOCK + 1, "160.00")
    await _mine(page, server)
    await page.clock.fast_forward(LONG_MS)
    await expect(facts).to_contain_text("$150.25")
    assert _asked(server) == 1
    await page.evaluate(HIDE, False)
    await expect(facts).to_contain_text("$160.00")


async def test_after_a_reorganisation_a_lower_block_is_the_newer_one(page: Page) -> None:
    server = ScriptedServer(position(1))
    server.rest[DETAILS] = told(FIRST_BLOCK, "150.25")
    facts, as_of = await _open(page, server)
    await expect(facts).to_contain_text("$150.25")
    server.rest[DETAILS] = told(FIRST_BLOCK - 1, "140.00")
    await server.wait_for("subscribe", count=2)
    rollback = {"to": {"number": FIRST_BLOCK - 2, "hash": "0x5"}, "dropped": ["0x6", "0x7"]}
    server.mine(patch={1: {"valueUSD": "2999.00"}}, blocks=-1, rollback=rollback)
    await expect(page.get_by_test_id("total-value")).to_have_text("$2,999.00")
    await page.clock.fast_forward(PACE_MS)
    await expect(facts).to_contain_text("$140.00")
    await expect(as_of).to_have_text("At block 1,234,566")


async def test_a_chart_that_gains_a_point_goes_on_saying_what_is_pointed_at(page: Page) -> None:
    server = ScriptedServer(position(1))
    server.rest[HISTORY] = past("3000.00", "3010.00", "3020.00")
    await _open(page, server)
    said = page.get_by_test_id("chart-said")
    await expect(said).to_have_text("$3,020.00 +0.67%")
    await page.locator(".plot").hover(position={"x": 2, "y": 40})
    await expect(said).to_contain_text("$3,000.00 · ")
    server.rest[HISTORY] = past("2950.00", "3010.00", "3020.00", "3030.00")
    await _mine(page, server)
    await page.clock.fast_forward(HISTORY_PACE_MS)
    await expect(said).to_contain_text("$2,950.00 · ")


async def test_while_there_is_no_day_yet_the_hour_is_shown(page: Page) -> None:
    server = ScriptedServer(position(1))

    async def by_window(url: str) -> Any:
        return past("3000.00", "3010.00", "3020.00", step=18) if "window=1h" in url else past("3020.00")

    server.rest[HISTORY] = by_window
    await _open(page, server)
    await expect(page.get_by_test_id("chart-said")).to_have_text("$3,020.00 +0.67%")
    await expect(page.locator("[data-part=windows] [aria-pressed=true]")).to_have_text("1 h")
    await page.get_by_role("button", name="24 h").click()  # who asks for it is shown that there is none
    await expect(page.get_by_test_id("chart-none")).to_contain_text("Not enough")


async def test_a_chart_is_read_by_keyboard(page: Page) -> None:
    server = ScriptedServer(position(1))
    server.rest[HISTORY] = past("3000.00", "3010.00", "3020.00")
    await _open(page, server)
    plot, said = page.get_by_role("slider"), page.get_by_test_id("chart-said")
    await expect(said).to_have_text("$3,020.00 +0.67%")
    await plot.press("Home")
    await expect(said).to_contain_text("$3,000.00 · ")
    await expect(plot).to_have_attribute("aria-valuetext", re.compile(r"^\$3,000\.00 · "))
    await plot.press("End")
    await plot.press("ArrowLeft")
    await expect(said).to_contain_text("$3,020.00 · ")
    await plot.press("Escape")
    await expect(said).to_have_text("$3,020.00 +0.67%")
