"""Which feeds are read when, and what their answers mean."""

import pytest

from rtserver.domain.chain import Log
from rtserver.domain.ids import Address, BlockHash
from rtserver.protocols.addresses import checksum, parse_address
from rtserver.protocols.base import Plan
from rtserver.worth.chainlink import ANSWER_UPDATED, Feed, FeedBook
from rtserver.worth.known_feeds import KNOWN
from rtserver.worth.quotes import Quote

from .stage import BEGAN, A, B, round_data, usd, word

PROXY_A, PROXY_B = Address("0x" + "a" * 40), Address("0x" + "b" * 40)
AGGREGATOR = Address("0x" + "c" * 40)


def _book() -> FeedBook:
    book = FeedBook([Feed(token=A, address=PROXY_A, max_age_s=3600), Feed(token=B, address=PROXY_B, max_age_s=86_400)])
    book.advance(BEGAN)
    return book


def _log(address: Address, topic: str = ANSWER_UPDATED) -> Log:
    return Log(
        address=address, topics=(topic, "0x", "0x"), data="", block_hash=BlockHash("0x"), block_number=1, index=0,
        tx_hash="0x",
    )  # fmt: skip


def _answer(book: FeedBook, latest: bytes | None, decimals: bytes | None = None, proxied: bool = False) -> Plan:
    plan = book.plan()
    answers = {
        "aggregator": word(AGGREGATOR) if proxied else None,
        "decimals": word(8) if decimals is None else decimals,
        "latest": latest,
    }
    book.absorb(plan, [answers[what] for _, what in plan.keys])
    return plan


def test_everything_is_read_at_first_then_only_what_logs() -> None:
    book = _book()
    assert not book.is_settled()
    assert {address for address, _ in _answer(book, round_data(10**8, BEGAN)).calls} == {PROXY_A, PROXY_B}
    assert book.is_settled()
    assert book.log_filter().addresses == {PROXY_A, PROXY_B}
    assert book.log_filter().topics == {ANSWER_UPDATED}
    book.fold([])
    assert book.is_settled()
    book.fold([_log(PROXY_A), _log(PROXY_B, "0x" + "0" * 64), _log(AGGREGATOR)])
    assert {address for address, _ in _answer(book, round_data(2 * 10**8, BEGAN)).calls} == {PROXY_A}
    assert book.advance(BEGAN) == {A, B}
    assert book.quote(A) == Quote(usd("2"), BEGAN, 100)
    assert book.quote(B) == Quote(usd("1"), BEGAN, 100)


def test_a_proxy_is_watched_through_its_aggregator() -> None:
    book = _book()
    _answer(book, round_data(10**8, BEGAN), proxied=True)
    assert book.log_filter().addresses == {AGGREGATOR}
    book.fold([_log(AGGREGATOR)])
    assert not book.is_settled()


def test_all_are_read_again_after_a_minute_and_when_blocks_are_undone() -> None:
    book = _book()
    _answer(book, round_data(10**8, BEGAN))
    book.advance(BEGAN + 59)
    book.fold([])
    assert book.is_settled()
    book.advance(BEGAN + 60)
    book.fold([])
    assert len(_answer(book, round_data(10**8, BEGAN)).calls) == 6
    book.mark_all()
    assert not book.is_settled()


@pytest.mark.parametrize(
    ("latest", "decimals", "fault"),
    [
        (None, None, "latestRoundData() reverts"),
        (b"", None, "latestRoundData() gives no usable answer"),
        (round_data(10**8, BEGAN)[:-1], None, "latestRoundData() gives no usable answer"),
        (round_data(0, BEGAN), None, "answer 0 is no price"),
        (round_data(-(10**8), BEGAN), None, "answer -100000000 is no price"),
        (round_data(2**255 - 1, BEGAN), None, "is no price"),
        (round_data(10**8, 0), None, "the round is not complete"),
        (round_data(10**8, BEGAN + 1), None, "of the future"),
        (round_data(10**8, 2**256 - 1), None, "of the future"),
        (round_data(10**8, BEGAN - 3601), None, "answer is 3601 s old, the limit is 3600 s"),
        (round_data(10**8, BEGAN), b"", "decimals() gives no usable answer"),
        (round_data(10**8, BEGAN), word(2**256 - 1), "decimals() gives no usable answer"),
        (round_data(10**8, BEGAN), word(78), "decimals() gives no usable answer"),
    ],
)
def test_what_can_not_be_used_is_no_quote_and_says_why(
    latest: bytes | None, decimals: bytes | None, fault: str
) -> None:
    book = _book()
    _answer(book, latest, decimals)
    book.advance(BEGAN)
    assert book.quote(A) is None
    assert fault in (book.fault(A) or "")


@pytest.mark.parametrize(("answer", "decimals", "price"), [(1, 0, "1"), (123456, 5, "1.23456"), (10**18 + 1, 18, "1")])
def test_decimals_are_the_feeds_own(answer: int, decimals: int, price: str) -> None:
    book = _book()
    _answer(book, round_data(answer, BEGAN), word(decimals))
    book.advance(BEGAN)
    quote = book.quote(A)
    assert quote is not None
    assert quote.price == usd(price)
    assert book.fault(A) is None


def test_a_feed_that_fails_loses_its_quote() -> None:
    book = _book()
    _answer(book, round_data(10**8, BEGAN))
    assert book.advance(BEGAN) == {A, B}
    book.fold([_log(PROXY_A)])
    _answer(book, None)
    assert book.advance(BEGAN) == {A}
    assert book.quote(A) is None


def test_known_feeds_are_spelled_right_and_each_token_has_one() -> None:
    for known in KNOWN.values():
        tokens = [one.token for one in known.feeds]
        assert len(set(tokens)) == len(tokens)
        assert set(known.hops) <= set(tokens)
        for address in (*tokens, *(one.feed for one in known.feeds)):
            assert checksum(parse_address(address)) == address
