"""What a position earns, on the page: rewards, rates, the chart of its past, and what is odd about it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from .scripted import CHAIN_ID, FIRST_BLOCK, ORIGIN, OWNER, ScriptedServer, block_of, position

LINK = {"address": f"0x{'03' * 20}", "symbol": "LINK", "decimals": 18, "flags": []}
EVIL = '<img src=x onerror="alert(1)">'
NOW = 1_700_086_400


def place(amount: str | None, *, token: dict[str, Any] = LINK, **fields: Any) -> dict[str, Any]:
    return {"incentive": "0x1", "token": token, "amount": amount, "startTime": 0, "endTime": 4_000_000_000, **fields}


def staked(token_id: int, *places: dict[str, Any], usd: str | None) -> dict[str, Any]:
    return position(token_id, isStaked=True, rewards={"asOf": 1, "places": list(places)}, rewardsUSD=usd)


def details(token_id: int, **fields: Any) -> dict[str, Any]:
    """What REST answers of a position."""
    shown = position(token_id)
    fees = {name: shown[f"fees{name[-1]}"] for name in ("amount0", "amount1")}
    prices = {
        "token0": {"priceUSD": "3400.25", "source": "chainlink", "disputed": False, "others": {}},
        "token1": {"priceUSD": "1", "source": "par", "disputed": False, "others": {}},
    }
    known = {"apr": None, "aprs": None, "poolApr": None, "pnl": None, "earnedAmountUSD": None, "rewards": None}
    return {
        **shown, **known, "prices": prices, "block": block_of(FIRST_BLOCK), **fields,
        "fees": {**fees, "value0USD": "3.00", "value1USD": "2.50", "usd": "5.50"},
    }  # fmt: skip


def past(*values: str | None, step: int = 300) -> dict[str, Any]:
    """A history with a point every step, the last of them now."""
    start = NOW - step * (len(values) - 1)
    points = [
        {"timestamp": start + index * step, "valueUSD": value, "feesUSD": f"{index}.00", "price": "3400.25",
         "inRangeShare": "1" if index < len(values) // 2 else "0.25"}
        for index, value in enumerate(values)
    ]  # fmt: skip
    return {"points": points, "resolution": step, "coveredSeconds": step * len(values)}


async def _open(page: Page, server: ScriptedServer) -> None:
    await server.attach(page)
    await page.goto(f"{ORIGIN}/?owner={OWNER}")
    await expect(page.get_by_test_id("position-row").first).to_be_visible()


def _row(page: Page, token_id: int) -> Locator:
    return page.locator(f"[data-testid=position-row][data-key='uniswap-v3:{token_id}']")


def _serve(server: ScriptedServer, token_id: int, what: str, answer: Any) -> None:
    server.rest[f"/api/v1/positions/{token_id}/{what}"] = answer


async def test_rewards_stand_beside_the_fees_and_move(page: Page) -> None:
    server = ScriptedServer(
        staked(1, place(str(3 * 10**18)), place(str(10**18), incentive="0x2"), usd="60.00"),
        staked(2, place("5", token={**LINK, "symbol": "ODD", "address": f"0x{'04' * 20}"}), usd=None),
        position(3),
    )
    await _open(page, server)
    rewards = _row(page, 1).get_by_test_id("position-rewards")
    await expect(rewards).to_have_text("+ $60.004.00000 LINK")
    await expect(_row(page, 2).get_by_test_id("position-rewards")).to_contain_text("Rewards")
    await expect(_row(page, 2).get_by_test_id("position-rewards")).to_contain_text("5e-18 ODD")
    await expect(_row(page, 3).get_by_test_id("position-rewards")).to_be_hidden()
    await expect(page.get_by_test_id("total-rewards")).to_have_text("$60.00")
    server.mine(patch={1: {"rewards": {"asOf": 2, "places": [place(str(5 * 10**18))]}, "rewardsUSD": "75.00"}})
    await expect(rewards).to_have_text("+ $75.005.00000 LINK")
    await expect(page.get_by_test_id("total-rewards")).to_have_text("$75.00")


async def test_without_stakes_there_is_no_word_of_rewards(page: Page) -> None:
    await _open(page, ScriptedServer(position(1)))
    await expect(page.get_by_test_id("total-rewards")).to_be_hidden()


async def test_a_price_that_is_off_and_odd_tokens_are_flagged(page: Page) -> None:
    odd = {"address": f"0x{'01' * 20}", "symbol": EVIL, "decimals": None, "flags": ["symbolMarkup", "decimalsMissing"]}
    server = ScriptedServer(position(1, priceDeviation=True), position(2, token0=odd, priceDeviation=None), position(3))
    await _open(page, server)
    await expect(_row(page, 1).get_by_test_id("position-deviates")).to_be_visible()
    await expect(_row(page, 1).get_by_test_id("position-odd")).to_be_hidden()
    flag = _row(page, 2).get_by_test_id("position-odd")
    await expect(flag).to_be_visible()
    title = await flag.get_attribute("title") or ""
    assert "looks like a page’s code" in title
    assert "amounts are raw" in title
    await expect(_row(page, 2).get_by_test_id("position-deviates")).to_be_hidden()
    await expect(_row(page, 3).get_by_test_id("position-deviates")).to_be_hidden()
    server.mine(patch={1: {"priceDeviation": False}})
    await expect(_row(page, 1).get_by_test_id("position-deviates")).to_be_hidden()


async def test_rates_have_a_column_once_someone_reckons_them(page: Page) -> None:
    known = {"protocol": "uniswap-v3", "tokenId": "1", "apr": "15.5%", "earnedAmountUSD": "50.25"}
    unknown = {"protocol": "uniswap-v3", "tokenId": "2", "apr": None, "earnedAmountUSD": None}
    server = ScriptedServer(position(1), position(2))
    server.rest["/api/v1/positions/summary"] = {"positions": [known, unknown], "next": None}
    await _open(page, server)
    await expect(_row(page, 1).get_by_test_id("position-earned")).to_contain_text("15.5%")
    await expect(_row(page, 1).get_by_test_id("position-earned")).to_contain_text("$50.25 earned")
    await expect(_row(page, 2).get_by_test_id("position-earned")).to_contain_text("—")
    (asked,) = await server.was_asked("/summary")
    assert f"owner={OWNER}" in asked
    assert f"chainId={CHAIN_ID}" in asked


async def test_without_rates_there_is_no_column(page: Page) -> None:
    server = ScriptedServer(position(1))
    unknown = {"protocol": "uniswap-v3", "tokenId": "1", "apr": None, "earnedAmountUSD": None}
    server.rest["/api/v1/positions/summary"] = {"positions": [unknown], "next": None}
    await _open(page, server)
    await server.was_asked("/summary")
    await expect(_row(page, 1).get_by_test_id("position-earned")).to_be_hidden()


async def test_an_opened_row_draws_the_past_and_says_what_is_known(page: Page) -> None:
    violations: list[str] = []
    page.on("console", lambda m: violations.append(m.text) if "Content Security Policy" in m.text else None)
    server = ScriptedServer(position(1))
    told = {"asOf": 1, "places": [place(str(3 * 10**18), valueUSD="45.00")], "usd": "45.00"}
    day = {"windowSeconds": 86_400, "feesUSD": "1.27", "feeAPR": "12.1%", "rewardAPR": "3.4%", "APR": "15.5%"}
    _serve(server, 1, "details", details(1, apr="15.5%", aprs={"24h": day}, earnedAmountUSD="50.25", rewards=told))
    _serve(server, 1, "history", past("3000.00", "3010.00", "2990.00", "3030.00"))
    await _open(page, server)
    await _row(page, 1).get_by_test_id("position-toggle").click()
    await expect(page.get_by_test_id("chart-said")).to_have_text("$3,030.00 +1.00%")
    facts = page.get_by_test_id("facts")
    for text in ("24 hours", "15.5%", "Earned over life", "$50.25", "3.00000 LINK · $45.00", "$3,400.25"):
        await expect(facts).to_contain_text(text)
    line = await page.locator(".line").get_attribute("d") or ""
    assert len(re.findall("[ML]", line)) == 4
    await expect(page.locator(".strip i")).to_have_count(2)
    await page.locator(".plot").hover(position={"x": 2, "y": 40})
    await expect(page.get_by_test_id("chart-said")).to_contain_text("$3,000.00 · ")
    await page.get_by_role("button", name="7 d").click()
    asked = await server.was_asked("history", count=2)
    assert "window=24h" in asked[0]
    assert "window=7d" in asked[1]
    await page.get_by_label("Show", exact=True).select_option("feesUSD")
    await expect(page.get_by_test_id("chart-said")).to_contain_text("$3.00")
    await _row(page, 1).get_by_test_id("position-toggle").click()
    await expect(page.get_by_test_id("position-panel")).to_have_count(0)
    assert violations == []


@pytest.mark.parametrize(
    ("answer", "says"),
    [(None, "keeps no history"), (past("1.00"), "Not enough"), (past(None, None, None), "Not enough")],
)
async def test_where_there_is_no_past_there_is_no_chart(page: Page, answer: Any, says: str) -> None:
    server = ScriptedServer(position(1))
    _serve(server, 1, "details", details(1))
    if answer is not None:
        _serve(server, 1, "history", answer)
    await _open(page, server)
    await _row(page, 1).get_by_test_id("position-toggle").click()
    await expect(page.get_by_test_id("chart-none")).to_contain_text(says)
    await expect(page.locator(".plot")).to_be_hidden()
    await expect(page.get_by_test_id("facts")).to_contain_text("Prices")


async def test_a_gap_is_not_bridged(page: Page) -> None:
    server = ScriptedServer(position(1))
    history = past(*["3000.00"] * 12)
    del history["points"][4:8]
    _serve(server, 1, "history", history)
    await _open(page, server)
    await _row(page, 1).get_by_test_id("position-toggle").click()
    await expect(page.get_by_test_id("chart-said")).to_contain_text("$3,000.00")
    line = await page.locator(".line").get_attribute("d") or ""
    assert line.count("M") == 2


async def test_names_from_strangers_stay_text_in_an_opened_row(page: Page) -> None:
    evil = {**LINK, "symbol": EVIL}
    server = ScriptedServer(staked(1, place("7", token=evil), usd=None))
    told = {"asOf": 1, "places": [place("7", token=evil, valueUSD=None)], "usd": None}
    pnl = {f"{EVIL}USD": "1.00", "netUSD": EVIL, "netIncludes": [EVIL]}
    _serve(server, 1, "details", details(1, token0=evil, rewards=told, pnl=pnl, apr=EVIL, aprs={EVIL: {"APR": EVIL}}))
    server.rest["/api/v1/positions/summary"] = {
        "positions": [{"protocol": "uniswap-v3", "tokenId": "1", "apr": EVIL, "earnedAmountUSD": EVIL}], "next": None,
    }  # fmt: skip
    await _open(page, server)
    await _row(page, 1).get_by_test_id("position-toggle").click()
    await expect(page.get_by_test_id("facts")).to_contain_text("<img src=x oner…")
    await expect(_row(page, 1).get_by_test_id("position-earned")).to_contain_text("<img")
    assert await page.locator("#rows img").count() == 0


async def test_thousands_of_positions_come_in_portions(page: Page) -> None:
    server = ScriptedServer(*(position(n, valueUSD=f"{10_000 - n}.00") for n in range(450)))
    await _open(page, server)
    rows = page.get_by_test_id("position-row")
    await expect(rows).to_have_count(200)
    await expect(page.locator("#more-text")).to_have_text("200 of 450 are shown")
    await expect(page.get_by_test_id("total-value")).to_have_text("$4,398,975.00")
    await page.get_by_test_id("show-more").click()
    await expect(rows).to_have_count(400)
    await page.get_by_test_id("show-more").click()
    await expect(rows).to_have_count(450)
    await expect(page.get_by_test_id("show-more")).to_be_hidden()
    server.mine(remove=list(range(300)))
    await expect(rows).to_have_count(150)


async def test_an_opened_row_stays_below_its_own(page: Page) -> None:
    server = ScriptedServer(position(1, valueUSD="1.00"), position(2, valueUSD="2.00"))
    _serve(server, 1, "details", details(1))
    await _open(page, server)
    await _row(page, 1).get_by_test_id("position-toggle").click()
    server.mine(add=[position(3, valueUSD="3.00")])
    await expect(page.get_by_test_id("position-row")).to_have_count(3)
    keys = "rows => [...rows.children].map(row => row.dataset.key ?? 'panel')"
    order = await page.locator("#rows").evaluate(keys)
    assert order == ["uniswap-v3:3", "uniswap-v3:2", "uniswap-v3:1", "panel"]
    server.mine(remove=[1])
    await expect(page.get_by_test_id("position-panel")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
async def test_an_opened_row_fits_any_screen(chromium: Browser, width: int, scheme: Any) -> None:
    """RTSERVER_PICTURES=FOLDER keeps pictures of it."""
    context = await chromium.new_context(viewport={"width": width, "height": 1000}, color_scheme=scheme)
    page = await context.new_page()
    server = ScriptedServer(
        staked(1, place(str(12345678 * 10**13)), usd="1822.50"),
        position(2, priceDeviation=True, valueUSD="9999999.99", token0={**LINK, "symbol": "W" * 60}),
        position(3, valueUSD=None, feesUSD=None, priceDeviation=None, isActive=False, tick=-210_000,
                 token0={**LINK, "symbol": EVIL, "flags": ["symbolMarkup"]}),
    )  # fmt: skip
    windows = {
        name: {"windowSeconds": seconds, "feeAPR": "12.1%", "rewardAPR": "3.4%", "APR": "15.5%"}
        for name, seconds in (("1h", 3600), ("24h", 86_400), ("7d", 400_000))
    }
    told = {"asOf": 1, "places": [place(str(12345678 * 10**13), valueUSD="1822.50")], "usd": "1822.50"}
    pnl = {
        "deposits": {"amount0": "1", "amount1": "2", "usd": "2900.00"},
        "collected": {"amount0": "0", "amount1": "0", "usd": None},
        "hodlUSD": "3084.31",
        "netUSD": "150.25",
        "netIncludes": ["principal", "fees"],
        "impermanentLossUSD": "-12.50",
        "basis": {"deposits": "pricesThen", "netUSD": "pricesThen", "impermanentLossUSD": "pricesNow"},
    }
    pool = {"basis": "fullRange", "windowSeconds": 88_000, "APR": "88.10%"}
    _serve(server, 1, "details", details(1, aprs=windows, poolApr=pool, earnedAmountUSD="50.25", rewards=told, pnl=pnl))
    wave = [f"{3000 + 40 * ((index * 7919) % 13) / 13 + index / 2:.2f}" for index in range(120)]
    _serve(server, 1, "history", past(*wave, step=720))
    rates = [{"protocol": "uniswap-v3", "tokenId": str(n), "apr": "15.5%", "earnedAmountUSD": "50.25"} for n in (1, 2)]
    server.rest["/api/v1/positions/summary"] = {"positions": rates, "next": None}
    await _open(page, server)
    await _row(page, 1).get_by_test_id("position-toggle").click()
    facts = page.get_by_test_id("facts")
    for text in ("Rewards", "Over the whole range", "88.10%", "Deposited", "$2,900.00", "Impermanent loss"):
        await expect(facts).to_contain_text(text)
    await expect(page.get_by_test_id("chart-said")).to_contain_text("$")
    await expect(_row(page, 2).get_by_test_id("position-earned")).to_be_visible()
    assert await page.evaluate("() => document.documentElement.scrollWidth") == width
    if folder := os.environ.get("RTSERVER_PICTURES"):
        await page.screenshot(path=Path(folder) / f"opened-{width}-{scheme}.png", full_page=width < 500)
    await context.close()
