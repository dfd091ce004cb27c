"""`GET /api/v1/prices`: what the channel shows, of the tokens that are asked for."""

from __future__ import annotations

from typing import Any

import pytest
from orjson import loads

from rtserver.domain.diff import Change, JsonObject
from rtserver.domain.errors import ClientError
from rtserver.protocols.channels import PricesChannel

from .served import CHAIN, Served, served

WETH = "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2"
USDC = "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48"
UNKNOWN = "0x1f9840a85d5aF5bf1D1762F925BDADdC4201F984"
PRICES = PricesChannel(CHAIN).name


def _price(token: str, usd: str | None) -> JsonObject:
    return {
        "token": token, "chainId": CHAIN, "priceUSD": usd, "source": None if usd is None else "pools",
        "asOf": None if usd is None else 1_700_000_001, "confidence": None if usd is None else "1.00",
        "disputed": False, "others": {},
    }  # fmt: skip


@pytest.fixture
def priced(server: Served) -> Served:
    server.states[PRICES] = {WETH: _price(WETH, "3000.5"), USDC: _price(USDC, None)}
    return server


async def test_all_prices_at_one_block(priced: Served) -> None:
    response, body = await priced.get("/api/v1/prices")
    assert response.status == 200
    assert response.headers["Cache-Control"] == "no-cache"
    assert body["chainId"] == CHAIN
    assert body["block"]["number"] == 1
    assert body["ageMs"] == 0
    assert body["prices"] == [_price(USDC, None), _price(WETH, "3000.5")]
    assert body["unknown"] == []


async def test_some_prices_in_the_order_asked_each_once_in_any_spelling(priced: Served) -> None:
    path = f"/api/v1/prices?tokens={WETH.lower()},{UNKNOWN},{USDC},%20{WETH}"
    _, body = await priced.get(path)
    assert [one["token"] for one in body["prices"]] == [WETH, USDC]
    assert body["unknown"] == [UNKNOWN]
    assert body["prices"][1]["priceUSD"] is None


async def test_the_answer_is_of_the_newest_block(priced: Served) -> None:
    await priced.get("/api/v1/prices")
    priced.mine(**{PRICES: Change(patch={WETH: {"priceUSD": "3001"}})})
    _, body = await priced.get(f"/api/v1/prices?tokens={WETH}")
    assert (body["prices"][0]["priceUSD"], body["block"]["number"]) == ("3001", 2)
    _, snapshot = await priced.get(f"/api/v1/snapshot?channel={PRICES}")
    assert snapshot["state"][WETH] == body["prices"][0]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("tokens=", "token must be 0x"),
        ("tokens=WETH", "token must be 0x"),
        (f"tokens={WETH},", "token must be 0x"),
        (f"tokens={WETH[:-1]}A", "checksum"),
        ("tokens=" + ",".join([WETH] * 101), "at most 100 tokens"),
        ("chainId=5", "served are 31337"),
        ("chainId=x", "chainId 'x'"),
    ],
)
async def test_bad_requests_say_why(priced: Served, query: str, says: str) -> None:
    response, body = await priced.get(f"/api/v1/prices?{query}")
    assert response.status == 400
    assert response.headers["Content-Type"] == "application/problem+json"
    assert says in body["detail"]
    assert body["code"] == "bad_request"


async def test_the_chain_has_to_be_named_where_there_are_several() -> None:
    async with served(chain_ids=(CHAIN, 1)) as several:
        several.mine()
        response, body = await several.get("/api/v1/prices")
        assert response.status == 400
        assert "add chainId" in body["detail"]


async def test_a_chain_that_does_not_answer_is_unavailable(server: Served) -> None:
    server.states[PRICES] = ClientError("chain_unavailable", "the chain does not answer", retry_after_ms=5000)
    response, body = await server.get("/api/v1/prices")
    assert response.status == 503
    assert body["code"] == "chain_unavailable"


async def test_the_channel_itself(priced: Served) -> None:
    async with priced.connect() as socket:
        await socket.recv()
        await socket.send(f'{{"type":"subscribe","id":1,"channel":"{PRICES}"}}')
        snapshot: dict[str, Any] = loads(await socket.recv())
        assert snapshot["type"] == "snapshot"
        assert snapshot["state"][WETH]["priceUSD"] == "3000.5"
