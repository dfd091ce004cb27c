"""One price a token and block: from the first fresh source, in dispute where another contradicts, or none."""

from dataclasses import dataclass
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from rtserver.domain.diff import State, apply
from rtserver.domain.ids import Address
from rtserver.protocols.addresses import checksum
from rtserver.protocols.base import QuotePool
from rtserver.worth.aggregator import PricePolicy
from rtserver.worth.chainlink import Feed
from rtserver.worth.quotes import Quote

from .stage import BEGAN, CHAIN, DAI, USD, WETH, A, B, Stage, header, pool, quote, round_data, word

FEED = Feed(token=WETH, address=Address("0x" + "f" * 40), max_age_s=3600)
MAX_AGE = {"coingecko": 900, "defillama": 900}


def _near(text: str | None, price: str) -> bool:
    return text is not None and abs(Fraction(text) / Fraction(price) - 1) < Fraction(1, 10**9)


def test_a_dollar_token_is_a_dollar_until_a_source_says_otherwise() -> None:
    stage = Stage(policy=PricePolicy(max_age_s=MAX_AGE))
    stage.book.known.pop(USD)
    assert stage.block() == {DAI}
    assert (stage.text(USD), stage.source(USD)) == ("1", "par")
    assert USD not in stage.prices.prices
    stage.book.known[USD] = 6
    assert stage.block() == {USD}
    assert stage.prices.prices[USD] == (100 << 128) // 10**6
    assert stage.prices.state()[checksum(USD)]["asOf"] is None
    stage.prices.offer("coingecko", {USD: quote("0.87")})
    assert stage.block() == {USD}
    assert (stage.text(USD), stage.source(USD)) == ("0.87", "coingecko")


def test_a_depegged_dollar_takes_what_is_priced_against_it_along() -> None:
    stage = Stage(policy=PricePolicy(max_age_s=MAX_AGE))
    stage.book.hold(A, pool(1, A, USD, "100"))
    stage.block()
    stage.prices.offer("defillama", {USD: quote("0.5")})
    assert stage.block() == {A, USD}
    assert _near(stage.text(A), "50")


def test_two_hops_and_never_three() -> None:
    stage = Stage(hops=[WETH])
    stage.book.hold(WETH, pool(1, WETH, USD, "3000"))
    stage.book.hold(A, pool(2, A, WETH, "0.01"))
    stage.book.hold(B, pool(3, B, A, "2"))
    stage.block()
    assert _near(stage.text(WETH), "3000")
    assert _near(stage.text(A), "30")
    assert stage.text(B) is None
    assert B in stage.prices.snapshot.prices


def test_a_hop_that_moves_takes_only_those_along_that_are_priced_through_it() -> None:
    stage = Stage()
    stage.book.hold(WETH, pool(1, WETH, USD, "3000"))
    stage.book.hold(A, pool(2, A, WETH, "0.01"))
    stage.book.hold(B, pool(3, B, USD, "7"))
    stage.block()
    stage.book.hold(WETH, pool(1, WETH, USD, "3300"))
    assert stage.block() == {WETH, A}
    assert _near(stage.text(A), "33")
    assert stage.block() == frozenset()


def test_an_oracle_goes_before_pools_and_both_before_others() -> None:
    stage = Stage(feeds=[FEED], policy=PricePolicy(max_age_s=MAX_AGE, dispute_bps=10_000))
    stage.book.hold(WETH, pool(1, WETH, USD, "3000"))
    stage.prices.offer("coingecko", {WETH: quote("3002"), A: quote("5")})
    stage.book.hold(A)
    stage.answer(aggregator=None, decimals=word(8), latest=round_data(3001 * 10**8, BEGAN))
    stage.block()
    assert (stage.text(WETH), stage.source(WETH)) == ("3001", "chainlink")
    assert (stage.text(A), stage.source(A)) == ("5", "coingecko")


def test_the_order_is_by_token_where_one_is_given() -> None:
    policy = PricePolicy(max_age_s=MAX_AGE, order_by_token={A: ("coingecko", "pools"), B: ("defillama",)})
    stage = Stage(policy=policy)
    for token in (A, B):
        stage.book.hold(token, pool(int(token[2]), token, USD, "100"))
    stage.prices.offer("coingecko", {A: quote("101"), B: quote("101")})
    stage.block()
    assert stage.source(A) == "coingecko"
    # A source that is not in the order is not asked, even where nothing else answers.
    assert stage.text(B) is None


def test_a_stale_oracle_gives_way_to_pools_and_comes_back() -> None:
    stage = Stage(feeds=[FEED])
    stage.book.hold(WETH, pool(1, WETH, USD, "2990"))
    stage.answer(aggregator=None, decimals=word(8), latest=round_data(3000 * 10**8, BEGAN))
    stage.block(BEGAN + 3600)
    assert stage.source(WETH) == "chainlink"
    assert stage.block(BEGAN + 3601) == {WETH}
    assert stage.source(WETH) == "pools"
    # A reorganisation may lead to an earlier time.
    assert stage.block(BEGAN + 3599) == {WETH}
    assert (stage.text(WETH), stage.source(WETH)) == ("3000", "chainlink")


def test_without_any_fresh_source_there_is_no_price_and_never_the_last_one() -> None:
    stage = Stage(feeds=[FEED], policy=PricePolicy(max_age_s=MAX_AGE))
    stage.book.hold(WETH)
    stage.book.hold(A)
    stage.prices.offer("defillama", {A: quote("5")})
    stage.answer(aggregator=None, decimals=word(8), latest=round_data(3000 * 10**8, BEGAN))
    stage.block()
    assert stage.text(WETH) == "3000"
    stage.now = BEGAN + 901
    assert stage.block(BEGAN + 4000) == {WETH, A}
    for token in (WETH, A):
        assert token not in stage.prices.prices
        view = stage.prices.state()[checksum(token)]
        assert (view["priceUSD"], view["source"], view["asOf"], view["confidence"]) == (None, None, None, None)


def test_sources_that_contradict_each_other_are_in_dispute_and_never_averaged() -> None:
    stage = Stage(feeds=[FEED], policy=PricePolicy(dispute_bps=200))
    stage.answer(aggregator=None, decimals=word(8), latest=round_data(3000 * 10**8, BEGAN))
    stage.book.hold(WETH, pool(1, WETH, USD, "3050"))
    stage.block()
    assert not stage.disputed(WETH)
    assert stage.prices.state()[checksum(WETH)]["others"] == {}
    stage.book.hold(WETH, pool(1, WETH, USD, "3100"))
    # The value is the oracle's as before: no position has to be valued anew.
    assert stage.block() == frozenset()
    view = stage.prices.state()[checksum(WETH)]
    assert view["priceUSD"] == "3000"
    assert view["disputed"] is True
    others = view["others"]
    assert isinstance(others, dict)
    assert _near(str(others["pools"]), "3100")
    stage.book.hold(WETH, pool(1, WETH, USD, "3001"))
    stage.block()
    assert not stage.disputed(WETH)


def test_what_comes_over_http_waits_for_the_next_block() -> None:
    stage = Stage(policy=PricePolicy(max_age_s=MAX_AGE))
    stage.book.hold(A)
    stage.block()
    before = stage.prices.snapshot
    stage.prices.offer("coingecko", {A: quote("5")})
    assert stage.again() == frozenset()
    assert stage.text(A) is None
    assert stage.block() == {A}
    assert before.prices[A].quote is None
    assert stage.prices.snapshot.block.number == 2


def test_an_older_or_impossible_answer_over_http_changes_nothing() -> None:
    stage = Stage(policy=PricePolicy(max_age_s=MAX_AGE))
    stage.book.hold(A)
    stage.prices.offer("coingecko", {A: quote("5", BEGAN - 10)})
    stage.block()
    for other in (quote("6", BEGAN - 11), quote("7", BEGAN + 500), quote("8", BEGAN - 5000)):
        stage.prices.offer("coingecko", {A: other})
        assert stage.block() == frozenset()
    assert stage.text(A) == "5"


def test_a_source_without_a_limit_of_age_is_not_used() -> None:
    stage = Stage()
    stage.book.hold(A)
    stage.prices.offer("coingecko", {A: quote("5")})
    stage.now += 1
    stage.block()
    assert stage.text(A) is None


def test_a_token_without_decimals_has_a_price_but_no_value() -> None:
    stage = Stage(policy=PricePolicy(max_age_s=MAX_AGE))
    stage.book.known.pop(A)
    stage.book.hold(A, pool(1, A, USD, "100"))
    stage.prices.offer("coingecko", {A: quote("5")})
    assert A not in stage.block()
    assert (stage.text(A), stage.source(A)) == ("5", "coingecko")
    assert A not in stage.prices.prices


def test_released_tokens_leave_and_come_back_without_their_old_price() -> None:
    stage = Stage()
    stage.book.hold(A, pool(1, A, USD, "100"))
    stage.block()
    stage.prices.take_change()
    stage.book.release(A)
    assert stage.block() == {A}
    assert stage.prices.take_change().remove == [checksum(A)]
    assert A not in stage.prices.prices
    stage.book.hold(A)
    stage.block()
    assert stage.text(A) is None


def test_two_books_vote_together() -> None:
    stage = Stage()
    other = type(stage.book)("other")
    stage.book.hold(A, pool(1, A, USD, "100", 20_000))
    other.hold(A, pool(2, A, USD, "90", 50_000))
    stage.prices.update([stage.book, other], header(1))
    assert _near(stage.text(A), "90")
    other.release(A)
    stage.prices.update([stage.book, other], header(2))
    assert _near(stage.text(A), "100")


def test_asked_for_first_is_what_has_no_price() -> None:
    policy = PricePolicy(order_by_token={USD: ("chainlink",), DAI: ("chainlink",)})
    stage = Stage(policy=policy)
    stage.book.hold(A, pool(1, A, USD, "100"))
    stage.book.hold(B)
    stage.block()
    assert stage.prices.wanted("coingecko") == [B, A]
    assert stage.prices.wanted("chainlink")[-2:] == [USD, DAI]


def test_a_view_is_what_clients_read() -> None:
    stage = Stage(feeds=[FEED])
    stage.answer(aggregator=None, decimals=word(8), latest=round_data(300012345678, BEGAN - 7))
    stage.book.hold(WETH)
    stage.block()
    assert stage.prices.state()[checksum(WETH)] == {
        "token": checksum(WETH), "chainId": CHAIN, "priceUSD": "3000.12345678", "source": "chainlink",
        "asOf": BEGAN - 7, "confidence": "1.00", "disputed": False, "others": {},
    }  # fmt: skip


@dataclass(frozen=True)
class Hold:
    token: Address
    price: int
    other: Address


@dataclass(frozen=True)
class Release:
    token: Address


@dataclass(frozen=True)
class Offer:
    token: Address
    price: int
    source: str


@dataclass(frozen=True)
class Answer:
    price: int


@dataclass(frozen=True)
class Wait:
    seconds: int


_TOKENS = st.sampled_from([A, B, WETH])
_STEPS = st.one_of(
    st.builds(Hold, _TOKENS, st.integers(1, 500), st.sampled_from([USD, DAI, WETH])),
    st.builds(Release, _TOKENS),
    st.builds(Offer, _TOKENS, st.integers(1, 500), st.sampled_from(["coingecko", "defillama"])),
    st.builds(Answer, st.integers(-1, 500)),
    st.builds(Wait, st.integers(0, 2000)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_STEPS, max_size=25))
def test_any_sequence_ends_where_a_fresh_start_does(steps: list[Hold | Release | Offer | Answer | Wait]) -> None:
    """Changes alone lead to the state; the state is that of an aggregator that learns everything at the end."""
    policy = PricePolicy(max_age_s=MAX_AGE)
    stage = Stage(feeds=[FEED], policy=policy)
    held: dict[Address, list[QuotePool]] = {}
    offers: dict[tuple[str, Address], Quote] = {}
    latest = round_data(0, 0)
    stage.answer(aggregator=None, decimals=word(8), latest=latest)
    client: State = {}
    now = BEGAN
    for step in steps:
        match step:
            case Hold(token, price, other):
                held[token] = [] if token == other else [pool(int(token[2]), token, other, str(price))]
                stage.book.hold(token, *held[token])
            case Release(token):
                held.pop(token, None)
                stage.book.release(token)
            case Offer(token, price, source):
                offers[source, token] = quote(str(price), now)
                stage.prices.offer(source, {token: offers[source, token]})
            case Answer(price):
                latest = round_data(price * 10**8, now)
                stage.prices.mark_all()
                stage.answer(aggregator=None, decimals=word(8), latest=latest)
            case Wait(seconds):
                now += seconds
                stage.now = now
        stage.block(now)
        apply(client, stage.prices.take_change())
    stage.block(now)
    apply(client, stage.prices.take_change())
    assert client == stage.prices.state()

    fresh = Stage(feeds=[FEED], policy=policy)
    fresh.now = now
    for token, pools in held.items():
        fresh.book.hold(token, *pools)
    for (source, token), offered in offers.items():
        fresh.prices.offer(source, {token: offered})
    fresh.answer(aggregator=None, decimals=word(8), latest=latest)
    fresh.block(now)
    assert fresh.prices.prices == stage.prices.prices
    assert _timeless(fresh.prices.state()) == _timeless(stage.prices.state())


def _timeless(state: State) -> State:
    """Leave out when a pool last moved: to a fresh start all of them just did."""
    return {
        key: {name: value for name, value in view.items() if name != "asOf" or view["source"] != "pools"}
        for key, view in state.items()
    }
