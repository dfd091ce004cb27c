"""What prices need around them, as values: a book's pools, blocks, and a feed's answers as a node gives them."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from math import isqrt

from eth_abi.abi import encode

from rtserver.domain.chain import Header
from rtserver.domain.ids import Address, BlockHash, ChainId
from rtserver.protocols.base import QuotePool
from rtserver.worth.aggregator import Aggregator, PricePolicy
from rtserver.worth.chainlink import Feed
from rtserver.worth.dollars import Dollars, parse_dollars
from rtserver.worth.quotes import Quote

CHAIN = ChainId(31337)
# In the order of their addresses: A before USD before B before DAI before WETH.
A, USD, B, DAI, WETH = (Address(f"0x{digit * 40}") for digit in "12345")
DECIMALS = {A: 18, USD: 6, B: 8, DAI: 18, WETH: 18}
BEGAN = 1_700_000_000


def usd(text: str) -> Dollars:
    price = parse_dollars(Decimal(text))
    assert price is not None
    return price


def quote(text: str, as_of: int = BEGAN) -> Quote:
    return Quote(usd(text), as_of)


def header(number: int, timestamp: int | None = None) -> Header:
    return Header(
        number=number,
        hash=BlockHash(f"0x{number:064x}"),
        parent_hash=BlockHash("0x"),
        timestamp=BEGAN + number if timestamp is None else timestamp,
        logs_bloom=0,
    )


def pool(name: int, token: Address, other: Address, price: str, depth: int = 10**6) -> QuotePool:
    """Return a pool where a whole token costs so many whole others, with so many others behind it."""
    token0, token1 = sorted((token, other))
    units = Fraction(price) * Fraction(10 ** DECIMALS[other], 10 ** DECIMALS[token])
    ratio = units if token == token0 else 1 / units
    sqrt_price = isqrt((ratio.numerator << 192) // ratio.denominator)
    raw = depth * 10 ** DECIMALS[other]
    liquidity = (raw << 96) // sqrt_price if token == token0 else raw * sqrt_price >> 96
    return QuotePool(Address(f"0x{name:040x}"), token0, token1, sqrt_price, liquidity + 1)


class Pools:
    """A book that has read pools: each token's are told once after they change."""

    def __init__(self, kind: str = "uniswap-v3") -> None:
        self.kind = kind
        self.known = dict(DECIMALS)
        self._news: dict[Address, Sequence[QuotePool] | None] = {}

    def hold(self, token: Address, *pools: QuotePool) -> None:
        self._news[token] = pools

    def release(self, token: Address) -> None:
        self._news[token] = None

    def quotes(self) -> dict[Address, Sequence[QuotePool] | None]:
        news, self._news = self._news, {}
        return news

    def decimals(self, token: Address) -> int | None:
        return self.known.get(token)


class Stage:
    """An aggregator, a book, and a clock that tests move."""

    def __init__(
        self,
        *,
        feeds: Sequence[Feed] = (),
        hops: Sequence[Address] = (WETH,),
        stablecoins: Sequence[Address] = (USD, DAI),
        policy: PricePolicy | None = None,
    ) -> None:
        self.now = float(BEGAN)
        self.book = Pools()
        self.prices = Aggregator(
            CHAIN, stablecoins=stablecoins, hops=hops, feeds=feeds, policy=policy, clock=lambda: self.now
        )
        self._number = 0

    def block(self, timestamp: int | None = None) -> frozenset[Address]:
        """Go to the next block; return the tokens whose value changed."""
        self._number += 1
        return self.prices.update([self.book], header(self._number, timestamp))

    def again(self) -> frozenset[Address]:
        """Settle once more at the same block."""
        return self.prices.update([self.book], header(self._number))

    def text(self, token: Address) -> str | None:
        """Return a token's price as shown, None without one."""
        price = self.prices.snapshot.prices.get(token)
        return None if price is None or price.quote is None else price.quote.price.text

    def source(self, token: Address) -> str | None:
        return self.prices.snapshot.prices[token].source

    def disputed(self, token: Address) -> bool:
        return self.prices.snapshot.prices[token].disputed

    def answer(self, **answers: bytes | None) -> None:
        """Answer the planned reads: `aggregator`, `decimals` and `latest`, alike for every feed."""
        plan = self.prices.plan()
        self.prices.absorb(plan, [answers[what] for _, what in plan.keys])


def round_data(answer: int, updated_at: int, round_id: int = 1) -> bytes:
    """Return what latestRoundData() answers."""
    return encode(["uint80", "int256", "uint256", "uint256", "uint80"], [round_id, answer, 0, updated_at, round_id])


def word(value: int | str) -> bytes:
    return encode(["uint256"], [int(value, 16) if isinstance(value, str) else value])
