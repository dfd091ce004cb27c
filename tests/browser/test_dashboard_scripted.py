"""The page against a scripted socket: what it shows, and how it behaves when something is wrong."""

from __future__ import annotations

import re

from playwright.async_api import Browser, Locator, Page, expect

from .scripted import CHAIN_ID, ORIGIN, OWNER, OWNER_CHANNEL, ScriptedServer, position

LIVE_ROW_RECORDER = """() => {
  window.touched = new Set();
  new MutationObserver((records) => {
    for (const { target } of records) {
      const element = target.nodeType === Node.ELEMENT_NODE ? target : target.parentElement;
      window.touched.add(element.closest("[data-key]")?.dataset.key ?? "none");
    }
  }).observe(document.getElementById("rows"), {
    subtree: true, childList: true, characterData: true, attributes: true,
  });
}"""

FLASH_COUNTER = """() => {
  window.flashes = 0;
  const own = Element.prototype.animate;
  Element.prototype.animate = function (...how) {
    window.flashes += 1;
    return own.apply(this, how);
  };
}"""


async def _open(page: Page, server: ScriptedServer, query: str = f"?owner={OWNER}") -> None:
    await server.attach(page)
    await page.goto(f"{ORIGIN}/{query}")


def _row(page: Page, token_id: int) -> Locator:
    return page.locator(f"[data-testid=position-row][data-key='uniswap-v3:{token_id}']")


async def test_positions_are_shown_and_move(page: Page) -> None:
    server = ScriptedServer(
        position(1),
        position(2, valueUSD="10000.00", isStaked=True, tick=-205_000, isActive=False, amount1="0"),
        position(3, liquidity="0", isActive=False, amount0="0", amount1="0", valueUSD="0.00", feesUSD="0.00"),
    )
    await _open(page, server)
    rows = page.get_by_test_id("position-row")
    await expect(rows).to_have_count(3)
    assert await rows.evaluate_all("rows => rows.map(row => row.dataset.key)") == [
        "uniswap-v3:2",
        "uniswap-v3:1",
        "uniswap-v3:3",
    ]
    one = _row(page, 1)
    await expect(one.get_by_test_id("position-pair")).to_have_text("WETH/USDC")
    await expect(one).to_contain_text("0.05%")
    await expect(one.get_by_test_id("position-state")).to_have_text("In range")
    await expect(one.get_by_test_id("position-value")).to_contain_text("$3,000.00")
    await expect(one.get_by_test_id("position-value")).to_contain_text("1,500.00 USDC")
    await expect(one.get_by_test_id("position-fees")).to_contain_text("0.001000 WETH")
    await expect(one.get_by_test_id("position-range")).to_contain_text("2,061.15")
    assert await one.get_by_test_id("position-mark").evaluate("mark => mark.style.left") == "50%"
    await expect(_row(page, 2).get_by_test_id("position-state")).to_have_text("Below range")
    await expect(_row(page, 2).get_by_test_id("position-staked")).to_be_visible()
    await expect(_row(page, 3).get_by_test_id("position-state")).to_have_text("Closed")
    await expect(page.get_by_test_id("total-value")).to_have_text("$13,000.00")
    await expect(page.get_by_test_id("status")).to_have_text("live")
    await expect(page.get_by_test_id("head-number")).to_have_text("1,234,567")

    server.mine(patch={1: {"valueUSD": "3001.25", "amount0": "500400000000000000", "tick": -192_500}})
    await expect(one.get_by_test_id("position-value")).to_contain_text("$3,001.25")
    await expect(one.get_by_test_id("position-value")).to_contain_text("0.5004 WETH")
    assert await one.get_by_test_id("position-mark").evaluate("mark => mark.style.left") == "65%"
    await expect(page.get_by_test_id("total-value")).to_have_text("$13,001.25")
    await expect(page.get_by_test_id("head-number")).to_have_text("1,234,568")
    await expect(page.get_by_test_id("as-of")).to_have_text("at block 1,234,568")

    server.mine(add=[position(4, valueUSD="4000.00")], remove=[2])
    await expect(_row(page, 4)).to_be_visible()
    await expect(_row(page, 2)).to_have_count(0)
    await expect(page.get_by_test_id("total-value")).to_have_text("$7,001.25")


async def test_names_from_strangers_stay_text(page: Page) -> None:
    violations: list[str] = []
    page.on("console", lambda m: violations.append(m.text) if "Content Security Policy" in m.text else None)
    evil = "<img src=x onerror=alert(1)>"
    server = ScriptedServer(
        position(1, token0={"address": f"0x{'01' * 20}", "symbol": evil, "decimals": 18}, pair=f"{evil}/USDC"),
        position(2, token0={"address": f"0x{'01' * 20}", "symbol": "\u202e<b>x</b>\u0000", "decimals": 255}),
    )
    await _open(page, server)
    await expect(_row(page, 1).get_by_test_id("position-pair")).to_have_text("<img src=x oner…/USDC")
    await expect(_row(page, 2).get_by_test_id("position-pair")).to_have_text("<b>x</b>/USDC")
    assert await page.locator("#rows img, #rows b").count() == 0
    assert violations == []


async def test_inline_script_and_foreign_hosts_are_refused(page: Page) -> None:
    server = ScriptedServer()
    await _open(page, server, "")
    await page.evaluate(
        """() => {
          const inline = document.createElement("script");
          inline.textContent = "window.ran = true";
          document.body.append(inline);
        }"""
    )
    assert await page.evaluate("() => window.ran") is None
    hosts = await page.evaluate("() => performance.getEntriesByType('resource').map(e => new URL(e.name).host)")
    assert set(hosts) == {ORIGIN.removeprefix("http://")}


async def test_unknown_is_not_zero(page: Page) -> None:
    server = ScriptedServer(position(1), position(2, valueUSD=None, feesUSD=None, fees0=None, fees1=None))
    await _open(page, server)
    await expect(_row(page, 2).get_by_test_id("position-fees")).to_contain_text("— WETH")
    await expect(_row(page, 2).get_by_test_id("position-value")).to_contain_text("—")
    await expect(page.get_by_test_id("total-value")).to_have_text("$3,000.00")
    await expect(page.get_by_test_id("left-out")).to_have_text("1 without a price is left out")


async def test_a_dropped_socket_shows_and_heals(page: Page) -> None:
    server = ScriptedServer(position(1))
    await _open(page, server)
    await expect(page.get_by_test_id("status")).to_have_text("live")
    await expect(_row(page, 1)).to_be_visible()
    server.accepting = False
    await server.drop()
    await expect(page.get_by_test_id("status")).to_have_text(re.compile(r"reconnecting"))
    await expect(_row(page, 1)).to_be_visible()  # the last state stays, marked as such
    server.accepting = True
    await server.drop()
    await expect(page.get_by_test_id("status")).to_have_text("live")
    resumed = await server.wait_for("subscribe", count=2, channel=OWNER_CHANNEL)
    assert resumed[-1]["cursor"] == "c1"
    server.mine(patch={1: {"valueUSD": "3002.00"}})
    await expect(_row(page, 1).get_by_test_id("position-value")).to_contain_text("$3,002.00")


async def test_a_refused_client_says_so_and_stays_away(page: Page) -> None:
    server = ScriptedServer(position(1))
    await _open(page, server)
    await expect(page.get_by_test_id("status")).to_have_text("live")
    await server.drop(4504)
    await expect(page.get_by_test_id("status")).to_have_text("disconnected")
    await expect(page.get_by_role("button", name="Reload")).to_be_visible()


async def test_a_stalled_chain_shows_its_age(page: Page) -> None:
    server = ScriptedServer(position(1))
    await page.clock.install()
    await _open(page, server)
    await expect(page.get_by_test_id("status")).to_have_text("live")
    await page.clock.pause_at(await page.evaluate("() => Date.now() / 1000 + 1"))
    server.send({"type": "heartbeat", "time": 0, "heads": {}, "seqs": {}})
    await page.clock.run_for(12_000)
    await expect(page.get_by_test_id("head-age")).to_have_text(re.compile(r"^(1[2-9]|[2-9]\d) s ago$"))
    server.send({"type": "heartbeat", "time": 0, "heads": {}, "seqs": {}})
    await server.wait_for("pong", count=2)
    await page.clock.run_for(13_000)
    await expect(page.get_by_test_id("status")).to_have_text(re.compile(r"^chain stalled 2[56] s$"))
    server.mine()
    await expect(page.get_by_test_id("status")).to_have_text("live")


async def test_a_reorg_is_named(page: Page) -> None:
    server = ScriptedServer(position(1))
    await _open(page, server)
    await expect(_row(page, 1)).to_be_visible()
    await server.wait_for("subscribe", count=2)
    rollback = {"to": {"number": 1_234_565, "hash": "0x5"}, "dropped": ["0x6", "0x7"]}
    server.mine(patch={1: {"valueUSD": "2999.00"}}, blocks=-1, rollback=rollback)
    await expect(page.get_by_test_id("head-number")).to_have_text("1,234,566")
    await expect(page.get_by_test_id("reorg")).to_have_text("reorg: 2 blocks replaced")
    await expect(_row(page, 1).get_by_test_id("position-value")).to_contain_text("$2,999.00")


async def test_choosing_an_owner(page: Page) -> None:
    other = f"0x{'b2' * 20}"
    server = ScriptedServer(position(1), owners=[{"owner": OWNER, "positions": 1}, {"owner": other, "positions": 0}])
    await _open(page, server, "")
    await expect(page.get_by_test_id("notice")).to_contain_text("Whose positions?")
    field, problem = page.get_by_label("Owner", exact=True), page.get_by_test_id("owner-problem")
    for typed, told in [("", "Paste"), ("vitalik.eth", "Names"), ("0x12", "this one has 2"), ("0x" + "g" * 40, "“g”")]:
        await field.fill(typed)
        await page.get_by_role("button", name="Watch").click()
        await expect(problem).to_contain_text(told)
        await expect(field).to_be_focused()
    await field.fill(f" {OWNER} ")
    await field.press("Enter")
    await expect(problem).to_have_text("")
    await expect(_row(page, 1)).to_be_visible()
    assert page.url.endswith(f"?owner={OWNER}")

    await page.get_by_role("button", name=re.compile("0xb2b2")).click()
    await expect(page.get_by_test_id("notice")).to_contain_text("No positions yet")
    await server.wait_for("unsubscribe", channel=OWNER_CHANNEL)
    await page.go_back()
    await expect(_row(page, 1)).to_be_visible()
    assert await page.evaluate("() => JSON.parse(localStorage.getItem('rtserver.recent-owners'))") == [OWNER, other]


async def test_going_back_to_the_start_shows_nobody_s_positions(page: Page) -> None:
    server = ScriptedServer(position(1), owners=[{"owner": OWNER, "positions": None}])
    await _open(page, server, "")
    chip = page.get_by_role("button", name=re.compile("0xa1a1"))
    await expect(chip).to_have_text("0xa1a1…a1a1")  # how many it has is not known: no badge
    await chip.press("Enter")
    await expect(_row(page, 1)).to_be_visible()
    await expect(chip).to_be_focused()
    await page.go_back()
    await expect(page.get_by_test_id("notice")).to_contain_text("Whose positions?")
    await server.wait_for("unsubscribe", channel=OWNER_CHANNEL)
    await expect(page.get_by_test_id("position-row")).to_have_count(0)
    await expect(page.get_by_label("Owner", exact=True)).to_have_value("")
    await page.go_forward()
    await expect(_row(page, 1)).to_be_visible()


async def test_the_address_bar_says_which_chain_is_shown(page: Page) -> None:
    server = ScriptedServer(position(1), chains=(CHAIN_ID, 42161))
    await _open(page, server)
    await expect(_row(page, 1)).to_be_visible()
    chain = page.locator("#chain")
    await chain.select_option("42161")
    await expect(page.get_by_test_id("notice")).to_contain_text("on Arbitrum")
    assert page.url.endswith(f"?owner={OWNER}&chainId=42161")
    await page.reload()
    await expect(page.get_by_test_id("notice")).to_contain_text("on Arbitrum")
    await expect(chain).to_have_value("42161")
    await page.go_back()
    await expect(_row(page, 1)).to_be_visible()
    await expect(chain).to_have_value(str(CHAIN_ID))
    await page.go_forward()
    await expect(page.get_by_test_id("notice")).to_contain_text("on Arbitrum")


async def test_from_a_chain_that_is_not_served_there_is_a_way(page: Page) -> None:
    server = ScriptedServer(position(1))
    await _open(page, server, f"?owner={OWNER}&chainId=1")
    chain = page.locator("#chain")
    await expect(chain.locator("option")).to_have_text(["Ethereum (not served)", "Local chain"])
    await chain.select_option(str(CHAIN_ID))
    await expect(_row(page, 1)).to_be_visible()
    await expect(chain).to_be_hidden()
    await expect(page.locator("#chain-name")).to_have_text("Local chain")


async def test_the_count_beside_an_owner_is_that_of_now(page: Page) -> None:
    server = ScriptedServer(position(1), owners=[{"owner": OWNER, "positions": 7}])
    await _open(page, server)
    badge = page.locator("#known .chip-count")
    await expect(badge).to_have_text("1")
    server.mine(add=[position(2)])
    await expect(badge).to_have_text("2")


async def test_spoiled_storage_and_an_older_server_are_no_obstacle(page: Page) -> None:
    server = ScriptedServer(position(1))  # owners=None: the endpoint answers 404
    await page.add_init_script("localStorage.setItem('rtserver.recent-owners', '[\"<script>\", 5, {]')")
    await _open(page, server)
    await expect(_row(page, 1)).to_be_visible()


async def test_two_hundred_positions_and_only_the_changed_row_is_touched(page: Page) -> None:
    server = ScriptedServer(*(position(n, valueUSD=f"{1000 + n}.00") for n in range(200)))
    await _open(page, server)
    await expect(page.get_by_test_id("position-row")).to_have_count(200)
    await page.evaluate(LIVE_ROW_RECORDER)
    server.mine(patch={7: {"feesUSD": "6.00"}})
    await expect(_row(page, 7).get_by_test_id("position-fees")).to_contain_text("$6.00")
    assert await page.evaluate("() => [...window.touched]") == ["uniswap-v3:7"]
    server.mine(patch={n: {"valueUSD": f"{2000 + n}.00"} for n in range(200)})
    await expect(page.get_by_test_id("total-value")).to_have_text("$419,900.00")
    assert len(await page.evaluate("() => [...window.touched]")) == 200


async def test_motion_only_for_those_who_like_it(chromium: Browser) -> None:
    for motion, moves in [("no-preference", True), ("reduce", False)]:
        context = await chromium.new_context(reduced_motion=motion)  # type: ignore[arg-type]
        page = await context.new_page()
        server = ScriptedServer(position(1))
        await _open(page, server)
        await expect(_row(page, 1)).to_be_visible()
        await page.evaluate(FLASH_COUNTER)
        server.mine(patch={1: {"valueUSD": "3002.00"}})
        await expect(page.get_by_test_id("total-value")).to_have_text("$3,002.00")
        assert (await page.evaluate("() => window.flashes") > 0) is moves
        assert (await page.evaluate("() => document.getAnimations().length") > 0) is moves
        await context.close()


async def test_narrow_screens_do_not_scroll_sideways(page: Page) -> None:
    await page.set_viewport_size({"width": 375, "height": 812})
    long_name = {"address": f"0x{'01' * 20}", "symbol": "W" * 60, "decimals": 0}
    huge = str(2**128 - 1)
    server = ScriptedServer(
        position(1),
        position(2, token0=long_name, token1=long_name, amount0=huge, price=huge, valueUSD=f"{huge}.00", isStaked=True),
        owners=[{"owner": f"0x{n:040x}", "positions": n} for n in range(20)],
    )
    await _open(page, server)
    await expect(page.get_by_test_id("position-row")).to_have_count(2)
    assert await page.evaluate("() => document.documentElement.scrollWidth") == 375
