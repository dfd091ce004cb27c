"""REST: answers in the very state that the socket goes on from, and problems that say what would be right."""

import asyncio

import pytest

from rtserver.domain.diff import Change
from rtserver.domain.errors import ClientError, RetryableError
from rtserver.hub.limits import Limits

from .served import OWNER, Served, position, served

OWNED = f"owner:31337:{OWNER}"
ONE = "position:31337:uniswap-v3:1"


async def test_a_summary(server: Served) -> None:
    server.states[OWNED] = {"uniswap-v3:12": position(12, "5.55"), "uniswap-v3:2": position(2, "10.00")}
    response, body = await server.get(f"/api/v1/positions/summary?owner={OWNER.lower()}")
    assert response.status == 200
    assert (body["owner"], body["chainId"], body["block"]["number"]) == (OWNER, 31337, 1)
    assert set(body["block"]) == {"number", "hash", "timestamp"}
    assert [one["tokenId"] for one in body["positions"]] == ["2", "12"]
    assert (body["totalValueUSD"], body["unpriced"]) == ("15.55", [])


async def test_a_total_says_what_it_leaves_out(server: Served) -> None:
    server.states[OWNED] = {"uniswap-v3:1": position(1, None), "uniswap-v3:2": position(2, "1234567.05")}
    _, body = await server.get(f"/api/v1/positions/summary?owner={OWNER}&chainId=31337")
    assert (body["totalValueUSD"], body["unpriced"]) == ("1234567.05", ["1"])
    server.states[OWNED.replace(OWNER, "0x" + "0" * 40)] = {"uniswap-v3:1": position(1, None)}
    _, body = await server.get("/api/v1/positions/summary?owner=0x" + "0" * 40)
    assert body["totalValueUSD"] is None


async def test_an_owner_of_nothing_is_worth_nothing(server: Served) -> None:
    server.states[OWNED] = {}
    _, body = await server.get(f"/api/v1/positions/summary?owner={OWNER}")
    assert (body["positions"], body["totalValueUSD"]) == ([], "0.00")


async def test_a_token_that_is_not_there(server: Served) -> None:
    server.states["position:31337:uniswap-v3:7"] = {}
    response, body = await server.get("/api/v1/positions/7/details")
    assert (response.status, body["code"]) == (404, "not_found")
    assert "no position 7 at block 1" in body["detail"]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/api/v1/positions/summary", "owner is required"),
        ("/api/v1/positions/summary?owner=", "owner is required"),
        ("/api/v1/positions/summary?owner=vitalik.eth", "owner must be 0x"),
        (f"/api/v1/positions/summary?owner={OWNER[:-1]}D", "checksum"),
        (f"/api/v1/positions/summary?owner={OWNER}&chainId=5", "served are 31337"),
        (f"/api/v1/positions/summary?owner={OWNER}&chainId=x", "chainId 'x'"),
        ("/api/v1/positions/abc/details", "tokenId must be a decimal number"),
        ("/api/v1/positions/-1/details", "tokenId"),
        (f"/api/v1/positions/{2**256}/details", "tokenId"),
        ("/api/v1/positions/1/details?protocol=sushi", "served are uniswap-v3"),
        ("/api/v1/snapshot", "channel is required"),
        ("/api/v1/snapshot?channel=price:1", "channels are"),
    ],
)
async def test_bad_requests_are_problems(server: Served, path: str, says: str) -> None:
    response, body = await server.get(path)
    assert response.status == 400
    assert response.headers["Content-Type"] == "application/problem+json"
    assert says in body["detail"]
    assert (body["status"], body["title"], body["type"]) == (400, "Bad request", "about:blank")
    assert server.wanted == []


async def test_several_chains_have_to_be_told_apart() -> None:
    async with served(chain_ids=(1, 31337)) as server:
        server.mine()
        server.states[OWNED] = {}
        response, body = await server.get(f"/api/v1/positions/summary?owner={OWNER}")
        assert response.status == 400
        assert "one of 1, 31337" in body["detail"]
        response, _ = await server.get(f"/api/v1/positions/summary?owner={OWNER}&chainId=31337")
        assert response.status == 200


async def test_a_snapshot_is_a_resume_point_with_an_etag(server: Served) -> None:
    server.states[ONE] = {"1": position(1)}
    response, body = await server.get(f"/api/v1/snapshot?channel={ONE}")
    stream = server.hub.peek(next(iter(server.hub._openings._channels.values())))
    assert stream is not None
    assert body["state"] == {"1": position(1)}
    assert (body["cursor"], body["seq"], body["epoch"]) == (stream.cursor, 0, stream.epoch)
    assert body["checksum"] == stream.checksum()
    etag = response.headers["ETag"]
    for tag in (etag, etag.removeprefix("W/"), f'"other", {etag}', "*"):
        response, text = await server.get(f"/api/v1/snapshot?channel={ONE}", If_None_Match=tag)
        assert (response.status, text, response.headers["ETag"]) == (304, "", etag)
    server.mine()
    response, _ = await server.get(f"/api/v1/snapshot?channel={ONE}", If_None_Match=etag)
    assert response.status == 304, "another block, the same state"
    server.mine(**{ONE: Change(patch={"1": {"valueUSD": "11.00"}})})
    response, body = await server.get(f"/api/v1/snapshot?channel={ONE}", If_None_Match=etag)
    assert response.status == 200
    assert response.headers["ETag"] != etag
    assert body["state"]["1"]["valueUSD"] == "11.00"


async def test_while_the_node_is_away_the_last_state_is_served_with_its_age(server: Served) -> None:
    server.states[ONE] = {"1": position(1)}
    await server.get("/api/v1/positions/1/details")
    server.now += 90
    response, body = await server.get("/api/v1/positions/1/details")
    assert response.status == 200
    assert body["ageMs"] == 90_000
    assert response.headers["Age"] == "90"


async def test_where_there_is_no_state_the_answer_is_503() -> None:
    async with served(limits=Limits(load_s=5)) as server:
        asked = asyncio.ensure_future(server.get("/api/v1/positions/1/details"))
        await server.was_wanted.wait()
        server.now += 6
        server.hub.tick()
        response, body = await asked
        assert (response.status, body["code"], response.headers["Retry-After"]) == (503, "chain_unavailable", "5")
        server.mine()
        server.was_wanted.clear()
        asked = asyncio.ensure_future(server.get("/api/v1/positions/2/details"))
        await server.was_wanted.wait()
        server.now += 6
        server.hub.tick()
        response, body = await asked
        assert (response.status, body["code"]) == (503, "load_timeout")
        assert int(response.headers["Retry-After"]) >= 1


async def test_a_refused_channel(server: Served) -> None:
    name = f"pool:31337:{OWNER}"
    server.states[name] = ClientError("bad_channel", "not a pool")
    response, body = await server.get(f"/api/v1/snapshot?channel={name}")
    assert (response.status, body["detail"]) == (400, "not a pool")


async def test_what_is_served(server: Served) -> None:
    _, body = await server.get("/api/v1/info")
    assert body == {
        "version": "1.2.3",
        "chains": [{"chainId": 31337, "name": "chain31337", "protocols": [{"kind": "uniswap-v3"}]}],
    }
    server.states[OWNED] = {"uniswap-v3:1": position(1)}
    _, body = await server.get("/api/v1/owners")
    assert body == {"owners": [{"owner": OWNER, "positions": 1}]}


async def test_unknown_paths_and_methods(server: Served) -> None:
    response, body = await server.get("/api/v1/nothing")
    assert (response.status, body["code"]) == (404, "not_found")
    response, body = await server.ask("POST", "/api/v1/info")
    assert response.status == 405
    assert "GET" in response.headers["Allow"]
    assert "GET" in body["detail"]
    response, text = await server.ask("HEAD", "/api/v1/info")
    assert (response.status, text) == (200, "")


async def test_cors(server: Served) -> None:
    response, _ = await server.ask(
        "OPTIONS", "/api/v1/info", Origin="https://app.example", Access_Control_Request_Method="GET"
    )
    assert response.status == 204
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert "If-None-Match" in response.headers["Access-Control-Allow-Headers"]
    response, _ = await server.get("/api/v1/info", Origin="https://app.example")
    assert "ETag" in response.headers["Access-Control-Expose-Headers"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    response, _ = await server.get("/api/v1/nothing", Origin="https://app.example")
    assert response.headers["Access-Control-Allow-Origin"] == "*", "problems can be read, too"


async def test_only_named_origins() -> None:
    async with served(origins=("https://good.example",)) as server:
        response, _ = await server.get("/api/v1/info", Origin="https://good.example")
        assert response.headers["Access-Control-Allow-Origin"] == "https://good.example"
        assert "Origin" in response.headers["Vary"]
        response, _ = await server.get("/api/v1/info", Origin="https://evil.example")
        assert "Access-Control-Allow-Origin" not in response.headers
        response, body = await server.get("/ws", Origin="https://evil.example")
        assert (response.status, body["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    ("error", "status"), [(RetryableError("rpc http://node/key"), 503), (ValueError("secret detail"), 500)]
)
async def test_no_detail_of_a_failure_leaves(
    server: Served, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(server.hub, "peek", fail)
    response, body = await server.get(f"/api/v1/positions/summary?owner={OWNER}")
    assert response.status == status
    assert "key" not in str(body)
    assert "secret" not in str(body)
