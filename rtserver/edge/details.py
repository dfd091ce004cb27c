"""All that is known of one position, in one object: the position, its prices, and each amount in dollars. Pure.

Values are computed with exactly the prices that stand beside them, and are those of the position's own sums.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal

from ..domain.diff import JsonObject, JsonValue, State
from ..domain.text import cents_text
from ..worth.dollars import parse_dollars
from .earnings import UNKNOWN

__all__ = ["details_of"]


def details_of(position: JsonObject, prices: State, earned: Mapping[str, JsonValue]) -> JsonObject:
    """Return the details of a position.

    Args:
        position: As its channel shows it.
        prices: The state of the `prices:` channel at the same block.
        earned: What `Earnings` says.
    """
    tokens = position["token0"], position["token1"]
    worth = _Worth(prices)
    return {
        **position,
        **{name: earned.get(name) for name in UNKNOWN},
        "rewards": _rewards(position, worth),
        "fees": {
            "amount0": position["fees0"],
            "amount1": position["fees1"],
            "value0USD": worth.of(tokens[0], position["fees0"]),
            "value1USD": worth.of(tokens[1], position["fees1"]),
            "collectable0": position["collectable0"],
            "collectable1": position["collectable1"],
            "usd": position["feesUSD"],
        },
        "prices": {"token0": worth.price_of(tokens[0]), "token1": worth.price_of(tokens[1])},
    }


class _Worth:
    """What amounts are worth at the prices of a block."""

    def __init__(self, prices: State) -> None:
        self._prices = prices

    def price_of(self, token: JsonValue) -> JsonValue:
        """Return a token's price as its channel shows it, None where it has none there."""
        return self._prices.get(str(token["address"])) if isinstance(token, dict) else None

    def of(self, token: JsonValue, amount: JsonValue) -> str | None:
        """Return what an amount in smallest units is worth, None where the amount or the price is unknown."""
        if amount == "0":
            return "0.00"  # whatever the price
        price = self.price_of(token)
        if not (isinstance(token, dict) and isinstance(price, dict) and isinstance(amount, str)):
            return None
        places, told = token["decimals"], price["priceUSD"]
        dollars = parse_dollars(Decimal(told)) if isinstance(told, str) else None
        if dollars is None or not isinstance(places, int):
            return None
        return cents_text((int(amount) * dollars.cents_x128(places) + (1 << 127)) >> 128)


def _rewards(position: JsonObject, worth: _Worth) -> JsonValue:
    """Return what a position earns where it is staked, each place with its value; None where that is not known."""
    rewards = position.get("rewards")
    if not isinstance(rewards, dict):
        return None
    places: list[JsonValue] = [
        {**place, "valueUSD": worth.of(place["token"], place["amount"])} for place in _objects(rewards["places"])
    ]
    return {**rewards, "places": places, "usd": position.get("rewardsUSD")}


def _objects(values: JsonValue) -> Iterable[dict[str, JsonValue]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
