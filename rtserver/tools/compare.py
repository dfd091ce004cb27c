"""Compares what a server says of a position or a pool with what the chain says. Pure.

Nothing here knows the server's formulas: amounts come from the contracts' own static calls, prices from slot0
and from 1.0001^tick by decimal arithmetic. A null says "not known yet" and is skipped; a field that is
missing altogether is a difference. Dollar values are not the chain's to answer and are left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Context, Decimal, InvalidOperation
from functools import lru_cache
from typing import Final, TypeAlias

from ..domain.diff import JsonObject, JsonValue
from ..protocols.addresses import checksum
from .truth import BlockTruth, PoolTruth, PositionTruth, TokenTruth

__all__ = ["Difference", "Findings", "compare_head", "compare_pool", "compare_position", "differences", "price_fits"]

# (field, what the server says, what the chain says); the chain's word is a sentence where no one value is right.
Finding: TypeAlias = tuple[str, str, str]

_EXACT: Final = Context(prec=100)
_TICK_BASE: Final = Decimal("1.0001")
_Q96: Final = Decimal(1 << 96)
# Prices carry up to 18 digits, rounded down; a guess of the magnitude may cost one.
_PRICE_ROUNDING: Final = Decimal("1e-16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One value that is not the chain's."""

    what: str  # the position, pool or channel
    field: str
    block: int
    block_hash: str
    ours: str
    chain: str


@dataclass(slots=True)
class Findings:
    """What comparing one object found: how many values were compared, which differ, which the chain withholds."""

    compared: int = 0
    differing: list[Finding] = field(default_factory=list)
    unanswered: int = 0

    def check(self, name: str, ours: JsonValue, chain: JsonValue) -> None:
        """Compare one value; a null of ours is not one."""
        if ours is None:
            return
        self.compared += 1
        # A bool equals an int in Python, not in JSON.
        if ours != chain or type(ours) is not type(chain):
            self.differing.append((name, _shown(ours), _shown(chain)))

    def wrong(self, name: str, ours: JsonValue, chain: str) -> None:
        """Note a value that is wrong."""
        self.compared += 1
        self.differing.append((name, _shown(ours), chain))


def _shown(value: JsonValue) -> str:
    return value if isinstance(value, str) else repr(value)


class _Fields:
    """An object whose missing fields are findings."""

    def __init__(self, entry: JsonObject, findings: Findings) -> None:
        self._entry, self._findings = entry, findings

    def expect(self, name: str, chain: JsonValue) -> None:
        if name in self._entry:
            self._findings.check(name, self._entry[name], chain)
        else:
            self._findings.wrong(name, "nothing", _shown(chain))

    def get(self, name: str) -> JsonValue:
        return self._entry.get(name)


def compare_position(entry: JsonObject, truth: PositionTruth, chain_id: int, protocol: str) -> Findings:
    """Return what differs between a served position and the chain's answers at the same block."""
    findings = Findings()
    fields = _Fields(entry, findings)
    nft, pool = truth.nft, truth.pool
    token0, token1 = truth.token0, truth.token1
    fields.expect("tokenId", str(truth.token_id))
    fields.expect("chainId", chain_id)
    fields.expect("protocol", protocol)
    fields.expect("isStaked", truth.stakes > 0)
    fields.expect("owner", checksum(truth.owner or truth.holder))
    if "rewards" not in entry:
        findings.wrong("rewards", "nothing", "rewards, or null")
    elif not truth.stakes:
        findings.check("rewards", entry["rewards"], "null: not staked")
    if not truth.stakes:
        findings.check("rewardsUSD", entry.get("rewardsUSD"), "null: not staked")
    for name, kind in (("rewardsUSD", str), ("priceDeviation", bool)):
        if name not in entry or not isinstance(entry[name], kind | None):
            findings.wrong(name, entry.get(name, "nothing"), "a value, or null")
    fields.expect("pool", checksum(pool.address))
    _compare_tokens(fields, findings, token0, token1)
    fields.expect("feePips", nft.fee_pips)
    fields.expect("tickLower", nft.lower)
    fields.expect("tickUpper", nft.upper)
    fields.expect("tick", pool.tick)
    fields.expect("liquidity", str(nft.liquidity))
    fields.expect("isActive", nft.liquidity > 0 and nft.lower <= pool.tick < nft.upper)
    for index, (amount, collectable) in enumerate((("amount0", "collectable0"), ("amount1", "collectable1"))):
        for name, paid in ((amount, truth.amounts), (collectable, truth.collectable)):
            if paid is None:
                findings.unanswered += 1
            else:
                fields.expect(name, str(paid[index]))
    if truth.collectable is not None:
        _compare_fees(fields, findings, truth, truth.collectable)
    shift = _shift(token0, token1)
    for name, sqrt_price in (
        ("priceLower", sqrt_price_at(nft.lower)),
        ("price", Decimal(pool.sqrt_price) / _Q96),
        ("priceUpper", sqrt_price_at(nft.upper)),
    ):
        _compare_price(fields, findings, name, sqrt_price, shift)
    return findings


def compare_pool(entry: JsonObject, truth: PoolTruth, chain_id: int, tokens: tuple[TokenTruth, TokenTruth]) -> Findings:
    """Return what differs between a served pool and the chain's answers; `truth` must be a whole one."""
    findings = Findings()
    fields = _Fields(entry, findings)
    fields.expect("pool", checksum(truth.address))
    fields.expect("chainId", chain_id)
    _compare_tokens(fields, findings, *tokens)
    fields.expect("sqrtPriceX96", str(truth.sqrt_price))
    fields.expect("tick", truth.tick)
    for name, value in (
        ("liquidity", truth.liquidity),
        ("feeGrowthGlobal0X128", truth.growth0),
        ("feeGrowthGlobal1X128", truth.growth1),
    ):
        fields.expect(name, "no answer" if value is None else str(value))
    _compare_price(fields, findings, "price", Decimal(truth.sqrt_price) / _Q96, _shift(*tokens))
    return findings


def compare_head(entry: JsonObject, truth: BlockTruth) -> Findings:
    """Return what differs between the served head and the block of that hash."""
    findings = Findings()
    fields = _Fields(entry, findings)
    fields.expect("number", truth.number)
    fields.expect("hash", truth.hash)
    fields.expect("parentHash", truth.parent_hash)
    fields.expect("timestamp", truth.timestamp)
    return findings


def _compare_tokens(fields: _Fields, findings: Findings, token0: TokenTruth, token1: TokenTruth) -> None:
    fields.expect("pair", f"{token0.symbol}/{token1.symbol}")
    for name, token in (("token0", token0), ("token1", token1)):
        view = fields.get(name)
        if not isinstance(view, dict):
            findings.wrong(name, view, "a token")
            continue
        inner = _Fields({f"{name}.{key}": value for key, value in view.items()}, findings)
        inner.expect(f"{name}.address", checksum(token.address))
        inner.expect(f"{name}.symbol", token.symbol)
        inner.expect(f"{name}.decimals", token.decimals)


def _compare_fees(fields: _Fields, findings: Findings, truth: PositionTruth, paid: tuple[int, int]) -> None:
    """Fees are what can be collected less the principal in it, and that is part of the tokensOwed."""
    for name, collectable, owed in (("fees0", paid[0], truth.nft.owed0), ("fees1", paid[1], truth.nft.owed1)):
        ours = fields.get(name)
        if owed == 0:
            fields.expect(name, str(collectable))
        elif ours is not None:
            lowest = max(collectable - owed, 0)
            findings.compared += 1
            if not isinstance(ours, str) or not ours.isdigit() or not lowest <= int(ours) <= collectable:
                findings.differing.append((name, _shown(ours), f"{lowest} to {collectable}"))


def _shift(token0: TokenTruth, token1: TokenTruth) -> int | None:
    if token0.decimals is None or token1.decimals is None:
        return None
    return token0.decimals - token1.decimals


@lru_cache(maxsize=4096)  # Ranges repeat in every block.
def sqrt_price_at(tick: int) -> Decimal:
    """Return sqrt(1.0001^tick), the ratio that TickMath approximates, to 100 digits."""
    return _EXACT.sqrt(_EXACT.power(_TICK_BASE, Decimal(tick)))


def _compare_price(fields: _Fields, findings: Findings, name: str, sqrt_price: Decimal, shift: int | None) -> None:
    ours = fields.get(name)
    if ours is None:
        return
    findings.compared += 1
    if shift is None or not sqrt_price:
        findings.differing.append((name, _shown(ours), "no price"))
    elif not isinstance(ours, str) or not price_fits(ours, sqrt_price, shift):
        price = _EXACT.scaleb(_EXACT.multiply(sqrt_price, sqrt_price), shift)
        findings.differing.append((name, _shown(ours), f"{price:.18g}"))


def price_fits(text: str, sqrt_price: Decimal, shift: int) -> bool:
    """Return whether a price text is sqrt_price² × 10^shift, as far as its digits and Q64.96 can say it.

    Args:
        text: token1 per token0, as served.
        sqrt_price: sqrt(token1/token0) in raw units, as a ratio.
        shift: decimals of token0 less those of token1.
    """
    try:
        ours = Decimal(text)
    except InvalidOperation:
        return False
    if not ours.is_finite():
        return False
    price = _EXACT.scaleb(_EXACT.multiply(sqrt_price, sqrt_price), shift)
    # A square-root price is a multiple of 2^-96: near the lowest ticks that is 10 digits, not 18.
    tolerance = _PRICE_ROUNDING + 4 / (sqrt_price * _Q96)
    return _EXACT.abs(_EXACT.subtract(ours, price)) <= _EXACT.multiply(price, tolerance)


def differences(findings: Findings, what: str, block: int, block_hash: str) -> Iterator[Difference]:
    """Return an object's findings with where and when."""
    for name, ours, chain in findings.differing:
        yield Difference(what=what, field=name, block=block, block_hash=block_hash, ours=ours, chain=chain)
