"""The page in a real browser against a real server on a moving chain.

Takes `server_url`: http://host:port of a server whose chain goes on producing blocks that move at least one known
owner's positions. RTSERVER_SCREENSHOT=FILE keeps a picture of the page.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from playwright.async_api import Page, WebSocketRoute, expect

BLOCKS_TIMEOUT_MS = 30_000
READ_ROWS = "[...document.querySelectorAll('[data-testid=position-row]')].map((r) => [r.dataset.key, r.textContent])"


async def _busiest_owner(page: Page, server_url: str) -> str:
    response = await page.request.get(f"{server_url}/api/v1/owners")
    assert response.ok, await response.text()
    owners = (await response.json())["owners"]
    return str(max(owners, key=lambda entry: entry["positions"])["owner"])


async def test_values_move_with_the_chain(page: Page, server_url: str) -> None:
    violations: list[str] = []
    page.on("console", lambda m: violations.append(m.text) if "Content Security Policy" in m.text else None)
    owner = await _busiest_owner(page, server_url)
    await page.goto(f"{server_url}/?owner={owner}")
    await expect(page.get_by_test_id("status")).to_have_text("live")
    await expect(page.get_by_test_id("position-row").first).to_be_visible()
    before = await page.evaluate(f"() => {READ_ROWS}")
    head = await page.get_by_test_id("head-number").get_attribute("data-number")
    await page.wait_for_function(
        "before => Number(document.querySelector('[data-testid=head-number]').dataset.number) > before",
        arg=int(head or 0),
        timeout=BLOCKS_TIMEOUT_MS,
    )
    await page.wait_for_function(
        f"before => {{ const now = new Map({READ_ROWS});"
        " return before.some(([key, text]) => now.has(key) && now.get(key) !== text); }",
        arg=before,
        timeout=BLOCKS_TIMEOUT_MS,
    )
    await expect(page.get_by_test_id("total-value")).to_have_text(re.compile(r"^(\$[\d,]+\.\d\d|—)$"))
    await expect(page.get_by_test_id("head-age")).to_have_text(re.compile(r"^\d.* ago$"))
    assert violations == []
    if picture := os.environ.get("RTSERVER_SCREENSHOT"):
        await page.screenshot(path=Path(picture))


async def test_a_cut_connection_heals_by_itself(page: Page, server_url: str) -> None:
    sockets: list[WebSocketRoute] = []

    def between(socket: WebSocketRoute) -> None:
        sockets.append(socket)
        socket.connect_to_server()

    await page.route_web_socket(re.compile(r"/ws$"), between)
    owner = await _busiest_owner(page, server_url)
    await page.goto(f"{server_url}/?owner={owner}")
    await expect(page.get_by_test_id("position-row").first).to_be_visible()
    head = int(await page.get_by_test_id("head-number").get_attribute("data-number") or 0)
    await sockets[0].close(code=1012, reason="cut by the test")
    await expect(page.get_by_test_id("status")).to_have_text(re.compile("reconnecting"))
    await expect(page.get_by_test_id("status")).to_have_text("live", timeout=BLOCKS_TIMEOUT_MS)
    await page.wait_for_function(
        "before => Number(document.querySelector('[data-testid=head-number]').dataset.number) > before",
        arg=head,
        timeout=BLOCKS_TIMEOUT_MS,
    )
    assert len(sockets) == 2


async def test_an_owner_without_positions(page: Page, server_url: str) -> None:
    await page.goto(f"{server_url}/?owner=0x{'0e' * 20}")
    await expect(page.get_by_test_id("notice")).to_contain_text("No positions yet")


async def test_a_typing_error_in_an_address_is_found(page: Page, server_url: str) -> None:
    """By the case of its letters, which is a checksum."""
    owner = await _busiest_owner(page, server_url)
    at = next(index for index, digit in enumerate(owner) if index > 1 and digit.isalpha())
    await page.goto(f"{server_url}/?owner={owner[:at]}{owner[at].swapcase()}{owner[at + 1 :]}")
    await expect(page.get_by_test_id("notice")).to_contain_text("has a wrong EIP-55 checksum")
    await expect(page.get_by_test_id("position-row")).to_have_count(0)
