"""`GET /api/v1/positions/summary` page by page: each position once, and sums over all of them on every page."""

from __future__ import annotations

import random

import pytest

from rtserver.domain.diff import Change, State
from rtserver.domain.errors import ClientError
from rtserver.edge.summary import DEFAULT_LIMIT, MAX_LIMIT, Summaries, parse_limit, parse_place
from rtserver.hub.stream import Encoder, Stream
from rtserver.obs.metrics import Metrics

from .served import CHAIN, OWNER, Served, position

OWNED = f"owner:31337:{OWNER}"
PATH = f"/api/v1/positions/summary?owner={OWNER}"


def owned(*token_ids: int) -> State:
    return {f"uniswap-v3:{token_id}": position(token_id, f"{token_id}.25") for token_id in token_ids}


def stream_of(state: State) -> Stream:
    return Stream(OWNED, CHAIN, "e", state, "0x" + "0" * 64, clock=lambda: 0.0)


async def test_pages_in_order_of_the_ids_and_sums_over_all(server: Served) -> None:
    ids = list(range(1, 24))
    random.Random(5).shuffle(ids)
    server.states[OWNED] = owned(*ids)
    seen, after = [], ""
    for _ in range(3):
        response, body = await server.get(f"{PATH}&limit=10{after}")
        assert response.status == 200
        assert (body["count"], body["totalValueUSD"]) == (23, "281.75")
        assert (body["activeCount"], body["stakedCount"], body["unpricedCount"]) == (23, 0, 0)
        seen += [one["tokenId"] for one in body["positions"]]
        after = f"&after={body['next']}"
    assert seen == [str(token_id) for token_id in range(1, 24)]
    assert body["next"] is None


async def test_a_burn_between_two_pages_hides_nothing(server: Served) -> None:
    server.states[OWNED] = owned(*range(1, 7))
    _, first = await server.get(f"{PATH}&limit=3")
    assert first["next"] == "uniswap-v3:3"
    server.mine(**{OWNED: Change(remove=["uniswap-v3:3", "uniswap-v3:1"])})
    _, second = await server.get(f"{PATH}&limit=3&after={first['next']}")
    assert [one["tokenId"] for one in second["positions"]] == ["4", "5", "6"]
    assert (second["count"], second["next"]) == (4, None)


async def test_without_a_limit_there_is_one(server: Served) -> None:
    server.states[OWNED] = owned(*range(DEFAULT_LIMIT + 1))
    _, body = await server.get(PATH)
    assert len(body["positions"]) == DEFAULT_LIMIT
    assert (body["count"], body["next"]) == (DEFAULT_LIMIT + 1, f"uniswap-v3:{DEFAULT_LIMIT - 1}")


async def test_what_a_page_leaves_out_is_named_there_and_counted_everywhere(server: Served) -> None:
    server.states[OWNED] = {**owned(1, 2), "uniswap-v3:3": position(3, None), "uniswap-v3:4": position(4, None)}
    _, body = await server.get(f"{PATH}&limit=3")
    assert (body["unpriced"], body["unpricedCount"], body["totalValueUSD"]) == (["3"], 2, "3.50")


async def test_sums_of_fees_and_rewards(server: Served) -> None:
    state = owned(1, 2, 3)
    state["uniswap-v3:1"]["feesUSD"] = "1.50"
    state["uniswap-v3:2"] |= {"isStaked": True, "rewardsUSD": "7.05", "feesUSD": "0.25", "isActive": False}
    server.states[OWNED] = state
    _, body = await server.get(PATH)
    assert (body["totalFeesUSD"], body["totalRewardsUSD"]) == ("1.75", "7.05")
    assert (body["activeCount"], body["stakedCount"]) == (2, 1)


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=1001", "limit=x", "limit=", "limit=1&limit=2",
                                   "after=12", "after=:12", "after=uniswap-v3:", "after=uniswap-v3:%D9%A1",
                                   f"after=uniswap-v3:{'9' * 79}"])  # fmt: skip
async def test_a_page_that_is_none_is_refused_before_anything_is_read(server: Served, query: str) -> None:
    response, body = await server.get(f"{PATH}&{query}")
    assert (response.status, body["code"]) == (400, "bad_request")
    assert query.split("=")[0] in body["detail"]
    assert server.wanted == []


def test_limits_and_places() -> None:
    assert (parse_limit(None), parse_limit("1"), parse_limit(str(MAX_LIMIT))) == (DEFAULT_LIMIT, 1, MAX_LIMIT)
    assert (parse_place(None), parse_place(f"a-b:{2**256 - 1}")) == (None, (2**256 - 1, "a-b"))
    with pytest.raises(ClientError):
        parse_limit("١")


def test_sums_over_many_are_made_once_a_change() -> None:
    summaries, stream = Summaries(Metrics()), stream_of(owned(*range(500)))
    first = summaries.overview(stream)
    assert summaries.overview(stream) is first
    stream.apply(Change(remove=["uniswap-v3:7"]), ("ab", 1.0), Encoder(), prove=False)
    second = summaries.overview(stream)
    assert (len(first.places), len(second.places)) == (500, 499)
    assert summaries.overview(stream) is second


def test_few_owners_are_remembered() -> None:
    summaries = Summaries(Metrics())
    for index in range(50):
        stream = stream_of(owned(*range(300)))
        stream.channel = f"owner:{index}"
        summaries.overview(stream)
        summaries.overview(stream_of(owned(1)))
    assert len(summaries._kept) == 8
