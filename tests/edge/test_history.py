"""`GET /api/v1/positions/{tokenId}/history`: what is asked for is what is read, and what is wrong is said."""

from __future__ import annotations

import pytest

from rtserver.domain.diff import JsonObject
from rtserver.domain.errors import ClientError
from rtserver.hub.limits import Limits

from .served import CHAIN, Served, served

POINT: JsonObject = {
    "timestamp": 1_700_000_000, "block": 5, "valueUSD": "1000.50", "fees0": "1", "fees1": None, "feesUSD": None,
    "amount0": "2", "amount1": "3", "price": "1.5", "inRangeShare": "0.25",
}  # fmt: skip
PATH = "/api/v1/positions/7/history"


async def test_an_answer_and_its_tag(server: Served) -> None:
    server.past.answer = {"tokenId": "7", "points": [POINT], "resolution": 432, "coveredSeconds": 60}
    response, body = await server.get(PATH)
    assert response.status == 200
    assert body == {"tokenId": "7", "points": [POINT], "resolution": 432, "coveredSeconds": 60, "window": "24h"}
    assert response.headers["Cache-Control"] == "no-cache"
    assert server.past.asked == [(CHAIN, "uniswap-v3", 7, 86_400, 200)]
    etag = response.headers["ETag"]
    again, _ = await server.get(PATH, If_None_Match=etag)
    assert (again.status, again.headers["ETag"]) == (304, etag)
    server.past.answer = {"tokenId": "7", "points": [], "resolution": 432, "coveredSeconds": 60}
    server.reorg()
    other, _ = await server.get(PATH, If_None_Match=etag)
    assert other.status == 200


@pytest.mark.parametrize(
    ("query", "length_s", "count"),
    [
        ("window=1h", 3600, 200),
        ("window=90m&points=1", 5400, 1),
        ("window=7d&points=1000", 604_800, 1000),
        ("window=2w&chainId=31337&protocol=uniswap-v3", 1_209_600, 200),
        ("window=3650d", 315_360_000, 200),
    ],
)
async def test_windows(server: Served, query: str, length_s: int, count: int) -> None:
    response, body = await server.get(f"{PATH}?{query}")
    assert response.status == 200
    assert body["window"] in query
    assert server.past.asked == [(CHAIN, "uniswap-v3", 7, length_s, count)]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (f"{PATH}?window=day", "such as 1h, 24h, 7d, 30d"),
        (f"{PATH}?window=0h", "such as 1h"),
        (f"{PATH}?window=-1h", "such as 1h"),
        (f"{PATH}?window=1.5h", "such as 1h"),
        (f"{PATH}?window=%D9%A1h", "such as 1h"),
        (f"{PATH}?window=9999w", "at most 3650d"),
        (f"{PATH}?window=1h&window=2h", "2 times"),
        (f"{PATH}?points=0", "from 1 to 1000"),
        (f"{PATH}?points=1001", "from 1 to 1000"),
        (f"{PATH}?points=ten", "from 1 to 1000"),
        (f"{PATH}?points=", "from 1 to 1000"),
        (f"{PATH}?chainId=5", "served are 31337"),
        (f"{PATH}?protocol=other", "protocol"),
        ("/api/v1/positions/x/history", "token"),
    ],
)
async def test_bad_requests_say_why(server: Served, path: str, says: str) -> None:
    response, body = await server.get(path)
    assert response.status == 400
    assert body["code"] == "bad_request"
    assert says in body["detail"]
    assert not server.past.asked


@pytest.mark.parametrize("code", ["history_unavailable", "chain_unavailable"])
async def test_what_can_t_be_read_now_is_to_be_asked_again(server: Served, code: str) -> None:
    server.past.answer = ClientError(code, "not now", retry_after_ms=2000)
    response, body = await server.get(PATH)
    assert (response.status, body["code"], response.headers["Retry-After"]) == (503, code, "2")


async def test_where_none_is_kept() -> None:
    async with served(keeps_past=False) as bare:
        response, body = await bare.get(PATH)
        assert (response.status, body["code"]) == (404, "not_found")
        assert "history.enabled" in body["detail"]


async def test_reads_are_limited_as_loads_are() -> None:
    async with served(limits=Limits(loads_per_minute=3)) as strict:
        statuses = [(await strict.get(f"{PATH}?points={count}"))[0].status for count in (1, 2, 3, 4)]
        assert statuses == [200, 200, 200, 429]
