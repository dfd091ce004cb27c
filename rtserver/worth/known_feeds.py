"""Chainlink feeds and hop tokens of the chains that rtserver knows by id. Only what is beyond doubt stands here.

A token has the feed of its own price, or of the coin that it wraps one to one. Wrapped bitcoin is not here: what
bridges hold is not what the BTC / USD feed is about. More feeds: `[[chains.feeds]]`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["KNOWN", "KnownFeed", "KnownPrices"]

# An hour is the heartbeat of the coins' feeds, or well under it; ten minutes of grace for a congested chain.
_HOUR: Final = 4200
# A day is the longest heartbeat of a crypto feed; an hour of grace.
_DAY: Final = 90_000


@dataclass(frozen=True, slots=True)
class KnownFeed:
    """A token and its feed in dollars, in EIP-55 spelling; `max_age_s` past its heartbeat."""

    token: str
    feed: str
    max_age_s: int


@dataclass(frozen=True, slots=True)
class KnownPrices:
    """A chain's feeds, and the tokens that others may be priced through."""

    feeds: tuple[KnownFeed, ...]
    hops: tuple[str, ...]


_OP_WETH: Final = "0x4200000000000000000000000000000000000006"

# Source: docs.chain.link/data-feeds/price-feeds/addresses, each found alike in the code of several protocols.
KNOWN: Final[Mapping[int, KnownPrices]] = {
    1: KnownPrices(
        feeds=(
            # WETH, USDC, USDT, DAI
            KnownFeed(
                "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2", "0x5f4eC3Df9cbd43714FE2740f5E3616155c5b8419", _HOUR
            ),
            KnownFeed("0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48", "0x8fFfFfd4AfB6115b954Bd326cbe7B4BA576818f6", _DAY),
            KnownFeed("0xdAC17F958D2ee523a2206206994597C13D831ec7", "0x3E7d1eAB13ad0104d2750B8863b489D65364e32D", _DAY),
            KnownFeed("0x6B175474E89094C44Da98b954EedeAC495271d0F", "0xAed0c38402a5d19df6E4c03F4E2DceD6e29c1ee9", _DAY),
        ),
        hops=("0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2",),
    ),
    10: KnownPrices(
        feeds=(
            # WETH, USDC, USDT, DAI
            KnownFeed(_OP_WETH, "0x13e3Ee699D1909E989722E753853AE30b17e08c5", _HOUR),
            KnownFeed("0x0b2C639c533813f4Aa9D7837CAf62653d097Ff85", "0x16a9FA2FDa030272Ce99B29CF780dFA30361E0f3", _DAY),
            KnownFeed("0x94b008aA00579c1307B0EF2c499aD98a8ce58e58", "0xECef79E109e997bCA29c1c0897ec9d7b03647F5E", _DAY),
            KnownFeed("0xDA10009cBd5D07dd0CeCc66161FC93D7c9000da1", "0x8dBa75e83DA73cc766A7e5a0ee71F656BAb470d6", _DAY),
        ),
        hops=(_OP_WETH,),
    ),
    56: KnownPrices(
        feeds=(
            # WBNB, USDT, USDC
            KnownFeed(
                "0xbb4CdB9CBd36B01bD1cBaEBF2De08d9173bc095c", "0x0567F2323251f0Aab15c8dFb1967E4e8A7D42aeE", _HOUR
            ),
            KnownFeed("0x55d398326f99059fF775485246999027B3197955", "0xB97Ad0E74fa7d920791E90258A6E2085088b4320", _DAY),
            KnownFeed("0x8AC76a51cc950d9822D68b83fE1Ad97B32Cd580d", "0x51597f405303C4377E36123cBc172b13269EA163", _DAY),
        ),
        hops=("0xbb4CdB9CBd36B01bD1cBaEBF2De08d9173bc095c",),
    ),
    137: KnownPrices(
        feeds=(
            # WPOL, WETH, USDC, USDT
            KnownFeed(
                "0x0d500B1d8E8eF31E21C99d1Db9A6444d3ADf1270", "0xAB594600376Ec9fD91F8e885dADF0CE036862dE0", _HOUR
            ),
            KnownFeed(
                "0x7ceB23fD6bC0adD59E62ac25578270cFf1b9f619", "0xF9680D99D6C9589e2a93a78A04A279e509205945", _HOUR
            ),
            KnownFeed("0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359", "0xfE4A8cc5b5B2366C1B58Bea3858e81843581b2F7", _DAY),
            KnownFeed("0xc2132D05D31c914a87C6611C10748AEb04B58e8F", "0x0A6513e40db6EB1b165753AD52E80663aeA50545", _DAY),
        ),
        hops=("0x0d500B1d8E8eF31E21C99d1Db9A6444d3ADf1270", "0x7ceB23fD6bC0adD59E62ac25578270cFf1b9f619"),
    ),
    8453: KnownPrices(
        feeds=(
            # WETH, USDC
            KnownFeed(_OP_WETH, "0x71041dddad3595F9CEd3DcCFBe3D1F4b0a16Bb70", _HOUR),
            KnownFeed("0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "0x7e860098F58bBFC8648a4311b374B1D669a2bc6B", _DAY),
        ),
        hops=(_OP_WETH,),
    ),
    42161: KnownPrices(
        feeds=(
            # WETH (its heartbeat has been a day), USDC, USDT, DAI
            KnownFeed("0x82aF49447D8a07e3bd95BD0d56f35241523fBab1", "0x639Fe6ab55C921f74e7fac1ee960C0B6293ba612", _DAY),
            KnownFeed("0xaf88d065e77c8cC2239327C5EDb3A432268e5831", "0x50834F3163758fcC1Df9973b6e91f0F0F0434aD3", _DAY),
            KnownFeed("0xFd086bC7CD5C481DCC9C85ebE478A1C0b69FCbb9", "0x3f3f5dF88dC9F13eac63DF89EC16ef6e7E25DdE7", _DAY),
            KnownFeed("0xDA10009cBd5D07dd0CeCc66161FC93D7c9000da1", "0xc5C8E77B397E531B8EC06BFb0048328B30E9eCfB", _DAY),
        ),
        hops=("0x82aF49447D8a07e3bd95BD0d56f35241523fBab1",),
    ),
}
