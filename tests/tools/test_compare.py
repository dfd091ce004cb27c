"""The comparison by itself: prices against the exact text, and answers that a node takes back."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtserver.chain.rpc import RpcError, TransportError
from rtserver.domain.clmath.tick_math import sqrt_ratio_at_tick
from rtserver.domain.errors import ChainUnavailable, PermanentError
from rtserver.domain.ids import Address, Tick, TokenId
from rtserver.domain.text import price_text
from rtserver.protocols.uniswap_v3.reads import NftPosition
from rtserver.tools.audit import Audit
from rtserver.tools.capture import Job
from rtserver.tools.compare import Difference, compare_position, price_fits, sqrt_price_at
from rtserver.tools.truth import BlockGone, PoolTruth, PositionTruth, TokenTruth, Truth

from .served import entry_of

A, B = Address("0x" + "0a" * 20), Address("0x" + "0b" * 20)
NFT = NftPosition(A, B, 500, Tick(-100), Tick(100), 10**18, 0, 0, 0, 0)


def truth_of(**parts: Any) -> PositionTruth:
    return PositionTruth(
        **{
            "token_id": TokenId(7),
            "holder": A,
            "nft": NFT,
            "pool": PoolTruth(B, 1 << 96, 0),
            "token0": TokenTruth(A, "X", 18),
            "token1": TokenTruth(B, "Y", 6),
            "amounts": (10, 20),
            "collectable": (3, 4),
            **parts,
        }
    )


@given(tick=st.integers(-887272, 887272), decimals0=st.integers(0, 77), decimals1=st.integers(0, 77))
def test_the_price_text_of_every_tick_fits(tick: int, decimals0: int, decimals1: int) -> None:
    text = price_text(sqrt_ratio_at_tick(Tick(tick)), decimals0, decimals1)
    assert price_fits(text, sqrt_price_at(tick), decimals0 - decimals1)


@given(tick=st.integers(-800_000, 887271))
def test_the_price_of_the_next_tick_does_not_fit(tick: int) -> None:
    text = price_text(sqrt_ratio_at_tick(Tick(tick + 1)), 18, 6)
    assert not price_fits(text, sqrt_price_at(tick), 12)


@pytest.mark.parametrize("text", ["", "x", "NaN", "Infinity", "-1", "1,0"])
def test_what_is_no_price(text: str) -> None:
    assert not price_fits(text, Decimal(1), 0)


def test_an_equal_position_has_no_findings() -> None:
    truth = truth_of()
    findings = compare_position(entry_of(truth, 1), truth, 1, "uniswap-v3")
    assert findings.differing == [] and findings.compared == 28


@pytest.mark.parametrize("field", [name for name, value in entry_of(truth_of(), 1).items() if value is not None])
def test_every_field_is_compared(field: str) -> None:
    truth = truth_of()
    entry = entry_of(truth, 1)
    entry[field] = "something else"
    found = compare_position(entry, truth, 1, "uniswap-v3").differing
    assert [name.partition(".")[0] for name, _, _ in found] == [field]


def test_null_is_skipped_and_missing_is_not() -> None:
    truth = truth_of()
    entry = entry_of(truth, 1)
    entry["amount0"] = None
    del entry["amount1"]
    assert compare_position(entry, truth, 1, "uniswap-v3").differing == [("amount1", "nothing", "20")]


def test_numbers_are_of_their_type() -> None:
    truth = truth_of()
    entry = entry_of(truth, 1)
    entry["amount0"], entry["tick"], entry["isActive"] = 10, "0", 1
    found = compare_position(entry, truth, 1, "uniswap-v3").differing
    assert [name for name, _, _ in found] == ["tick", "isActive", "amount0"]


def test_fees_with_principal_in_them_are_bounded() -> None:
    owed = NftPosition(A, B, 500, Tick(-100), Tick(100), 10**18, 0, 0, 100, 100)
    truth = truth_of(nft=owed, collectable=(150, 90))
    entry = entry_of(truth, 1)
    for fees0, fees1, wrong in (("50", "0", 0), ("150", "90", 0), ("49", "91", 2), ("151", "-1", 2)):
        entry["fees0"], entry["fees1"] = fees0, fees1
        assert len(compare_position(entry, truth, 1, "uniswap-v3").differing) == wrong


def test_a_reverting_call_is_no_truth() -> None:
    truth = truth_of(collectable=None)
    findings = compare_position(entry_of(truth_of(), 1), truth, 1, "uniswap-v3")
    assert findings.differing == [] and findings.unanswered == 2


# --- answers that a real node gives only by accident ------------------------------------------------------


class Node:
    """Answers `collect` as told, call by call, and everything else of one position; the rest is real."""

    name = "node"

    def __init__(self, *collectable: int, exists: bool = True, refuse: RpcError | None = None) -> None:
        self._collectable = list(collectable)
        self._exists = exists
        self._refuse = refuse
        self.failures = 0
        # Errors in the place of an answer, by selector, one after the other.
        self.errors: dict[str, list[RpcError]] = {}

    async def send(self, requests: Any) -> list[Any]:
        if self.failures:
            self.failures -= 1
            raise TransportError("node: down")
        return [self._answer(*request) for request in requests]

    async def close(self) -> None:
        pass

    def _answer(self, method: str, params: Any) -> Any:
        if method == "eth_getBlockByHash":
            block = {"number": "0x1", "hash": params[0], "parentHash": "0x0", "timestamp": "0x0"}
            return block if self._exists else None
        if self._refuse is not None:
            return self._refuse
        words: dict[str, list[int]] = {
            "6352211e": [int(A, 16)],
            "99fbab88": [0, 0, int(A, 16), int(B, 16), 500, -100 % 2**256, 100, 10**18, 0, 0, 0, 0],
            "1698ee82": [int(B, 16)],
            "95d89b41": [int.from_bytes(b"X".ljust(32, b"\0"), "big")],
            "313ce567": [18],
            "3850c7bd": [1 << 96, 0],
            "0c49ccbe": [10, 20],
            "fc6f7865": [self._collectable[0], 4],
        }
        selector = params[0]["data"][2:10]
        if self.errors.get(selector):
            return self.errors[selector].pop(0)
        if selector == "fc6f7865" and len(self._collectable) > 1:
            self._collectable.pop(0)
        return "0x" + "".join(f"{word:064x}" for word in words[selector])


async def audited(node: Node) -> Audit:
    audit = Audit(
        Truth(node, A, B, patience_s=1.0), 1, "uniswap-v3",
        everything=False, limit=1, on_difference=lambda difference: None, on_owner=lambda owner: None,
    )  # fmt: skip
    truth = truth_of(token0=TokenTruth(A, "X", 18), token1=TokenTruth(B, "X", 18))
    entry = entry_of(truth, 1)
    channel = f"owner:1:{A}"
    await audit.check(Job(number=1, block_hash="0xb", positions=[(channel, TokenId(7), entry)], is_block=True))
    return audit


async def test_a_difference_is_confirmed_by_a_second_reading() -> None:
    tally = (await audited(Node(5))).tally
    assert {difference.field for difference in tally.found} == {"collectable0", "fees0"}
    assert isinstance(tally.found[0], Difference) and tally.unsteady == 0


async def test_an_answer_that_the_node_takes_back_is_no_difference() -> None:
    tally = (await audited(Node(5, 3))).tally
    assert (tally.differences, tally.unsteady, tally.blocks) == (0, 2, 1)


class FinalNode(Node):
    """Calls one block after the other "finalized", the last one for good; 0 stands for none."""

    def __init__(self, *finalized: int) -> None:
        super().__init__(3)
        self._finalized = list(finalized)

    def _answer(self, method: str, params: Any) -> Any:
        if method != "eth_getBlockByNumber":
            return super()._answer(method, params)
        number = int(params[0], 16) if params[0] != "finalized" else self._finalized[0]
        if params[0] == "finalized" and len(self._finalized) > 1:
            self._finalized.pop(0)
        block = {"number": hex(number), "hash": f"0x{number:064x}", "parentHash": "0x0", "timestamp": "0x0"}
        return block if number else None


@pytest.mark.parametrize(
    ("finalized", "keeps_final", "differences"),
    [
        ((5,), True, 0),
        ((7,), True, 0),
        # Another node was the first to know.
        ((4, 4, 5), True, 0),
        ((4,), True, 1),
        ((4,), False, 0),
        # Not told at all: nothing to compare with.
        ((0,), True, 0),
    ],
)
async def test_nothing_is_final_before_the_node_says_so(
    finalized: tuple[int, ...], keeps_final: bool, differences: int
) -> None:
    audit = Audit(
        Truth(FinalNode(*finalized), A, B, patience_s=1.0), 1, "uniswap-v3", everything=False, limit=1,
        on_difference=lambda difference: None, on_owner=lambda owner: None, keeps_final=keeps_final,
    )  # fmt: skip
    entry: Any = {"number": 5, "hash": f"0x{5:064x}", "parentHash": "0x0", "timestamp": 0}
    await audit.check(Job(number=9, block_hash="0xb", tags=[("finalized", entry)], is_block=True))
    assert [found.field for found in audit.tally.found] == ["number"] * differences
    if not differences:
        assert audit.tally.values == 4 + (keeps_final and finalized != (0,))


async def test_a_block_that_went_is_skipped() -> None:
    tally = (await audited(Node(5, exists=False))).tally
    assert (tally.differences, tally.skipped, tally.blocks) == (0, 1, 0)


@pytest.mark.parametrize("error", [RpcError(-32001, "Resource not found"), RpcError(-32000, "header not found")])
async def test_an_unknown_block_is_skipped(error: RpcError) -> None:
    assert (await audited(Node(3, refuse=error))).tally.skipped == 1


async def test_a_node_that_stumbles_is_asked_again() -> None:
    node = Node(3)
    node.failures = 2
    tally = (await audited(node)).tally
    assert (tally.differences, tally.blocks) == (0, 1)


REFUSALS = (
    RpcError(-32603, "Internal error"), RpcError(-32000, "out of gas"), RpcError(-32000, "execution aborted (timeout)"),
    RpcError(-32601, "the method eth_call does not exist"),
)  # fmt: skip


@pytest.mark.parametrize("error", REFUSALS, ids=str)
@pytest.mark.parametrize("selector", ["6352211e", "99fbab88", "fc6f7865"])
async def test_a_refusal_is_not_taken_for_a_revert(error: RpcError, selector: str) -> None:
    """Nothing is said of the chain by it: no position is missing, and none is without an answer."""
    stumbles = Node(3)
    stumbles.errors[selector] = [error]
    tally = (await audited(stumbles)).tally
    assert (tally.differences, tally.unanswered, tally.blocks) == (0, 0, 1)
    stays = Node(3)
    stays.errors[selector] = [error] * 100
    with pytest.raises(ChainUnavailable, match="could not verify"):
        await Truth(stays, A, B, patience_s=0.0).positions([TokenId(7)], "0xb")


async def test_a_revert_is_an_answer() -> None:
    node = Node(3)
    node.errors["fc6f7865"] = [RpcError(3, "execution reverted: Not approved")]
    assert (await audited(node)).tally.unanswered == 2
    node.errors["6352211e"] = [RpcError(-32000, "execution reverted: ERC721: owner query for nonexistent token")]
    assert await Truth(node, A, B).positions([TokenId(7)], "0xb") == {7: None}


async def test_a_token_may_burn_all_gas() -> None:
    node = Node(3)
    node.errors["95d89b41"] = [RpcError(-32000, "out of gas")]
    (truth,) = (await Truth(node, A, B).positions([TokenId(7)], "0xb")).values()
    assert truth is not None and "…" in truth.token0.symbol


async def test_a_node_that_stays_down_is_said() -> None:
    node = Node(3)
    node.failures = 10_000
    with pytest.raises(ChainUnavailable, match="is it running"):
        await Truth(node, A, B, patience_s=0.0).chain_id()


async def test_no_manager_at_that_address() -> None:
    reverts = RpcError(3, "execution reverted")
    with pytest.raises(PermanentError, match="no position manager"):
        await Truth(Node(3, refuse=reverts), A, B).holders("0xb", 10)
    with pytest.raises(BlockGone):
        await Truth(Node(3, refuse=reverts, exists=False), A, B).holders("0xb", 10)
