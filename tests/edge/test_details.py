"""`GET /api/v1/positions/{tokenId}/details`: one position with all that is known of it, and null for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rtserver.domain.diff import JsonObject, JsonValue
from rtserver.edge.details import details_of
from rtserver.edge.earnings import Earned, PositionKey
from rtserver.protocols.channels import Channel

from .served import CHAIN, OWNER, TOKENS, Served, position, served

ONE = "position:31337:uniswap-v3:1"
PATH = "/api/v1/positions/1/details"
WETH, USDC = (str(token["address"]) for token in TOKENS)
DEEP = 10**18


def price(token: str, usd: str | None) -> JsonObject:
    return {"token": token, "chainId": CHAIN, "priceUSD": usd, "source": "pools", "disputed": False}


class Reckoned:
    """Earnings as someone reckoned them, and who was asked about."""

    def __init__(self, **earned: JsonValue) -> None:
        self.earned_of = earned
        self.asked: list[tuple[int, str, int, bool]] = []

    async def earned(self, channel: Channel, keys: Sequence[PositionKey], *, is_brief: bool) -> Sequence[Earned]:
        self.asked += [(channel.chain_id, *key, is_brief) for key in keys]
        return [self.earned_of for _ in keys]


async def test_what_nobody_reckons_is_null(server: Served) -> None:
    server.states[ONE] = {"1": position(1)}
    response, body = await server.get(f"{PATH}?protocol=uniswap-v3")
    assert response.status == 200
    assert response.headers["Cache-Control"] == "no-cache"
    assert (body["tokenId"], body["block"]["number"], body["ageMs"]) == ("1", 1, 0)
    assert body["fees"] == {
        "amount0": "1", "amount1": "2", "value0USD": None, "value1USD": None,
        "collectable0": "3", "collectable1": "4", "usd": None,
    }  # fmt: skip
    unknown = ("apr", "aprs", "poolApr", "pnl", "earnedAmountUSD", "rewards")
    assert {name: body[name] for name in unknown} == dict.fromkeys(unknown)
    assert body["prices"] == {"token0": None, "token1": None}


async def test_fees_and_their_value_at_the_prices_beside_them(server: Served) -> None:
    server.states[ONE] = {"1": {**position(1, "3006.01"), "fees0": str(2 * DEEP), "fees1": "1500000"}}
    server.states[f"prices:{CHAIN}"] = {WETH: price(WETH, "3000.005"), USDC: price(USDC, "0.999")}
    _, body = await server.get(PATH)
    assert (body["fees"]["value0USD"], body["fees"]["value1USD"]) == ("6000.01", "1.50")
    assert body["prices"]["token0"]["priceUSD"] == "3000.005"
    assert body["prices"]["token1"] == price(USDC, "0.999")


async def test_rewards_have_a_value_place_by_place(server: Served) -> None:
    places: list[JsonValue] = [
        {"incentive": "0x1", "token": TOKENS[0], "amount": str(DEEP)},
        {"incentive": "0x2", "token": TOKENS[1], "amount": "5"},
        {"incentive": "0x3", "token": TOKENS[0], "amount": None},
    ]
    rewards: JsonObject = {"asOf": 17, "places": places}
    server.states[ONE] = {"1": {**position(1), "isStaked": True, "rewards": rewards, "rewardsUSD": "3000.00"}}
    server.states[f"prices:{CHAIN}"] = {WETH: price(WETH, "3000"), USDC: price(USDC, None)}
    _, body = await server.get(PATH)
    told = body["rewards"]
    assert (told["asOf"], told["usd"]) == (17, "3000.00")
    assert [place["valueUSD"] for place in told["places"]] == ["3000.00", None, None]
    assert [place["amount"] for place in told["places"]] == [str(DEEP), "5", None]


async def test_earnings_are_joined_by_name() -> None:
    reckoned = Reckoned(apr="15.5%", earnedAmountUSD="50.25", aprs={"24h": {"APR": "15.5%"}}, secret="never told")
    async with served(earnings=reckoned) as server:
        server.mine()
        server.states[ONE] = {"1": position(1)}
        server.states[f"owner:31337:{OWNER}"] = {"uniswap-v3:1": position(1)}
        _, body = await server.get(PATH)
        assert (body["apr"], body["earnedAmountUSD"], body["aprs"]) == ("15.5%", "50.25", {"24h": {"APR": "15.5%"}})
        assert (body["pnl"], body["poolApr"]) == (None, None)
        assert "secret" not in body
        _, body = await server.get(f"/api/v1/positions/summary?owner={OWNER}")
        assert (body["positions"][0]["apr"], body["positions"][0]["earnedAmountUSD"]) == ("15.5%", "50.25")
        assert reckoned.asked == [(CHAIN, "uniswap-v3", 1, False), (CHAIN, "uniswap-v3", 1, True)]


async def test_prices_that_are_not_to_be_had_are_not_waited_for(server: Served) -> None:
    """While the chain stands still nothing opens; the position is known all the same."""
    server.states[ONE] = {"1": position(1)}
    await server.get(PATH)
    server.head = None
    server.hub._openings.streams.pop(f"prices:{CHAIN}")
    server.hub._openings._channels.pop(f"prices:{CHAIN}")
    response, body = await server.get(PATH)
    assert response.status == 200
    assert body["prices"] == {"token0": None, "token1": None}


def test_a_token_without_decimals_has_no_value() -> None:
    odd: dict[str, Any] = {**TOKENS[0], "decimals": None}
    told = details_of({**position(1), "token0": odd, "fees0": str(DEEP)}, {WETH: price(WETH, "3000")}, {})
    assert isinstance(told["fees"], dict)
    assert told["fees"]["value0USD"] is None
