"""HTTP sources against a local server that replays what they document: answers, errors, limits, and rubbish."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web

from rtserver.domain.ids import Address, ChainId
from rtserver.worth.coingecko import PLATFORMS as COINGECKO_PLATFORMS
from rtserver.worth.coingecko import CoinGecko
from rtserver.worth.defillama import PLATFORMS as DEFILLAMA_PLATFORMS
from rtserver.worth.defillama import DefiLlama
from rtserver.worth.http_asker import FetchLimits, HttpAsker
from rtserver.worth.http_prices import PriceFetcher
from rtserver.worth.http_source import HttpSource, MalformedPrices
from rtserver.worth.quotes import Quote

from .price_server import Answer, PriceServer, price_server
from .stage import usd

MAINNET, BASE = ChainId(1), ChainId(8453)
WBTC = Address("0x2260fac5e5542a773aa44fbcfedf7c193bc2c599")
UNI = Address("0x1f9840a85d5af5bf1d1762f925bdaddc4201f984")
SCAM = Address("0x" + "e" * 40)
LIMITS = FetchLimits(requests_per_minute=30, tokens_per_request=2, refresh_s=60, unknown_s=3600, timeout_s=5)
# As documented, docs.coingecko.com/reference/simple-token-price, with two more fields than are asked for.
COINGECKO_ANSWER = b"""{
  "0x2260fac5e5542a773aa44fbcfedf7c193bc2c599": {
    "usd": 67187.3358936566, "usd_market_cap": 1317802988326.25, "last_updated_at": 1711356300
  }
}"""
# As documented, api-docs.defillama.com, /prices/current/{coins}.
DEFILLAMA_ANSWER = b"""{"coins": {
  "ethereum:0x2260fac5e5542a773aa44fbcfedf7c193bc2c599":
    {"decimals": 8, "symbol": "WBTC", "price": 67187.3358936566, "timestamp": 1711356300, "confidence": 0.99},
  "ethereum:0x1F9840a85d5aF5bf1D1762F925BDADdC4201F984":
    {"symbol": "UNI", "price": 1.2e-05, "timestamp": 1711356200}
}}"""
# As documented, "Common errors and rate limit".
RATE_LIMITED = (
    b'{"status":{"error_code":429,"error_message":"You\'ve exceeded the Rate Limit. Please visit '
    b'https://www.coingecko.com/en/api/pricing to subscribe to our API plans for higher rate limits."}}'
)
TOO_MANY_ADDRESSES = b'{"status":{"error_code":10012,"error_message":"Your app exceeds the limit of addresses"}}'


class Desk:
    """A fetcher at a local server, with a clock that the test moves."""

    def __init__(self, server: PriceServer, source: HttpSource, limits: FetchLimits = LIMITS) -> None:
        self.server = server
        self.now = 1000.0
        self.wanted: dict[ChainId, Sequence[Address]] = {MAINNET: [WBTC]}
        self.offered: list[tuple[ChainId, Mapping[Address, Quote]]] = []
        self.asker = HttpAsker(
            source.name,
            base_url=server.url + "/api/v3/",
            limits=limits,
            clock=lambda: self.now,
            jitter=lambda: 1.0,
        )
        self.fetcher = PriceFetcher(
            source,
            self.asker,
            wanted=lambda: list(self.wanted.items()),
            offer=lambda chain_id, quotes: self.offered.append((chain_id, quotes)),
            limits=limits,
            clock=lambda: self.now,
        )

    async def step(self) -> float:
        """Let it do what is due; return how long it then rests."""
        return await self.fetcher.step()

    async def turn(self) -> float:
        """Wait until the budget allows for a request, and let it be sent if one is due."""
        wait_s = await self.step()
        self.now += wait_s
        return await self.step()


@pytest.fixture
async def server() -> AsyncIterator[PriceServer]:
    async with price_server() as started:
        yield started


@pytest.fixture
async def open_desk(server: PriceServer) -> AsyncIterator[Callable[..., Desk]]:
    """Return what makes desks at the server; they are closed at the end."""
    made: list[Desk] = []

    def make(source: HttpSource, limits: FetchLimits = LIMITS) -> Desk:
        made.append(Desk(server, source, limits))
        return made[-1]

    yield make
    for desk in made:
        await desk.fetcher.close()


@pytest.fixture
async def desk(open_desk: Callable[..., Desk]) -> Desk:
    return open_desk(CoinGecko(COINGECKO_PLATFORMS, "CG-secret", is_pro=False))


def _addresses(path: str) -> list[str]:
    return parse_qs(urlsplit(path).query)["contract_addresses"][0].split(",")


def _prices(request: web.Request) -> bytes:
    """Answer a price for every address, as CoinGecko does."""
    return json.dumps(
        {
            address: {"usd": 5, "last_updated_at": 1711356300}
            for address in request.query["contract_addresses"].split(",")
        }
    ).encode()


async def test_coingecko_as_documented(desk: Desk) -> None:
    desk.server.next(Answer(COINGECKO_ANSWER))
    await desk.step()
    assert desk.offered == [(MAINNET, {WBTC: Quote(usd("67187.3358936566"), 1711356300)})]
    asked = urlsplit(desk.server.asked[0])
    assert asked.path == "/api/v3/simple/token_price/ethereum"
    assert parse_qs(asked.query) == {
        "contract_addresses": [WBTC], "vs_currencies": ["usd"], "include_last_updated_at": ["true"],
        "precision": ["full"],
    }  # fmt: skip
    assert desk.server.headers[0]["x-cg-demo-api-key"] == "CG-secret"
    assert "Cookie" not in desk.server.headers[0]


async def test_defillama_as_documented(server: PriceServer, open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(DefiLlama(DEFILLAMA_PLATFORMS))
    desk.wanted = {MAINNET: [WBTC, UNI]}
    server.next(Answer(DEFILLAMA_ANSWER))
    await desk.step()
    assert desk.offered == [
        (
            MAINNET,
            {WBTC: Quote(usd("67187.3358936566"), 1711356300, 99), UNI: Quote(usd("0.000012"), 1711356200, None)},
        )
    ]
    assert server.asked == [f"/api/v3/prices/current/ethereum:{WBTC},ethereum:{UNI}"]


async def test_a_paid_key_has_its_own_header(server: PriceServer, open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(CoinGecko(COINGECKO_PLATFORMS, "CG-secret", is_pro=True))
    await desk.step()
    assert server.headers[0]["x-cg-pro-api-key"] == "CG-secret"


async def test_what_is_fresh_is_not_asked_again_and_what_is_unknown_much_later(desk: Desk) -> None:
    desk.wanted = {MAINNET: [WBTC, SCAM]}
    desk.server.next(Answer(COINGECKO_ANSWER))
    await desk.step()
    assert _addresses(desk.server.asked[0]) == [WBTC, SCAM]
    desk.now += 59
    assert await desk.step() == 1.0
    assert len(desk.server.asked) == 1
    desk.now += 1
    await desk.step()
    assert _addresses(desk.server.asked[1]) == [WBTC]
    desk.now += 3600
    await desk.turn()
    assert _addresses(desk.server.asked[-1]) == [WBTC, SCAM]


async def test_the_budget_is_kept_and_chains_take_turns(desk: Desk) -> None:
    tokens = [Address(f"0x{n:040x}") for n in range(1, 6)]
    desk.wanted = {MAINNET: tokens, BASE: tokens[:2], ChainId(999): tokens}
    desk.server.next(Answer(_prices))
    for _ in range(4):
        assert await desk.step() == 2.0  # 30 a minute
        assert len(desk.server.asked) == desk.asker.requests
        desk.now += 1.0
        assert await desk.step() == 1.0
        desk.now += 1.0
    assert [urlsplit(path).path.rsplit("/", 1)[1] for path in desk.server.asked] == [
        "ethereum", "base", "ethereum", "ethereum",
    ]  # fmt: skip
    assert [len(_addresses(path)) for path in desk.server.asked] == [2, 2, 2, 1]
    assert await desk.step() == 1.0
    assert desk.asker.requests == 4


async def test_retry_after_is_kept(desk: Desk) -> None:
    desk.server.next(Answer(RATE_LIMITED, 429, {"Retry-After": "41"}), Answer(COINGECKO_ANSWER))
    assert await desk.step() == 41.0
    desk.now += 40
    assert await desk.step() == 1.0
    assert len(desk.server.asked) == 1
    desk.now += 1
    await desk.step()
    assert len(desk.offered) == 1
    assert desk.asker.failures == 0


async def test_retry_after_may_be_a_date_or_nonsense(desk: Desk) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=120), usegmt=True)
    desk.server.next(
        Answer(b"", 503, {"Retry-After": date}),
        Answer(b"", 429, {"Retry-After": "soon"}),
        Answer(b"", 429, {"Retry-After": "-5"}),
        Answer(b"", 429, {"Retry-After": "9" * 300}),
        Answer(b"", 429, {"Retry-After": "Sat, 01 Jan 2000 00:00:00 GMT"}),
    )
    assert 100 < await desk.step() <= 120
    desk.now += 120
    assert await desk.step() == 4.0
    desk.now += 4
    assert await desk.step() == 8.0
    desk.now += 8
    assert await desk.step() == 3600.0
    desk.now += 3600
    assert await desk.step() == 32.0


async def test_pauses_double_up_to_five_minutes_and_end_with_the_first_answer(desk: Desk) -> None:
    desk.server.next(*[Answer(b"", 502)] * 10, Answer(COINGECKO_ANSWER))
    pauses = []
    for _ in range(10):
        pauses.append(await desk.step())
        desk.now += pauses[-1]
    assert pauses == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0, 300.0]
    assert desk.fetcher.is_away
    assert await desk.step() == 2.0
    assert len(desk.offered) == 1
    assert desk.asker.failures == 0


RUBBISH = {
    "markup": Answer(b"<html>rate limited</html>"),
    "nothing": Answer(b""),
    "list": Answer(b"[]"),
    "text": Answer(b'"text"'),
    "null": Answer(b"null"),
    "half": Answer(COINGECKO_ANSWER[:-20]),
    "deep list": Answer(b"[" * 100_000),
    "deep object": Answer(b'{"a":' * 100_000),
    "NaN": Answer(b'{"0x2260fac5e5542a773aa44fbcfedf7c193bc2c599": {"usd": NaN, "last_updated_at": 1711356300}}'),
    "many digits": Answer(b'{"a": ' + b"9" * 5000 + b"}"),
    "more than a double": Answer(b'{"a": 1e400}'),
    "huge exponent": Answer(b'{"a": 1e9999999999999999999}'),
    "no text": Answer(b"\xff\xfe"),
    "compressed": Answer(b"\x1f\x8b" + b"\0" * 50, headers={"Content-Encoding": "gzip"}),
    "large": Answer(b" " * (1 << 20) + b"{}"),
    "redirect": Answer(COINGECKO_ANSWER, 302, {"Location": "/elsewhere"}),
    "broken off": Answer(COINGECKO_ANSWER, breaks_off=True),
    "error": Answer(COINGECKO_ANSWER, 500),
}


@pytest.mark.parametrize("answer", RUBBISH.values(), ids=RUBBISH)
async def test_rubbish_is_a_failure_and_nothing_more(desk: Desk, answer: Answer) -> None:
    desk.server.next(answer, Answer(COINGECKO_ANSWER))
    await desk.step()
    assert (desk.offered, desk.asker.failures) == ([], 1)
    assert len(desk.server.asked) == 1
    await desk.turn()
    assert len(desk.offered) == 1


@pytest.mark.parametrize(
    "entry",
    [
        "null", "{}", "[]", '{"usd": null, "last_updated_at": 1711356300}', '{"usd": 0, "last_updated_at": 1711356300}',
        '{"usd": -1, "last_updated_at": 1711356300}', '{"usd": "5", "last_updated_at": 1711356300}',
        '{"usd": true, "last_updated_at": 1711356300}', '{"usd": 5}', '{"usd": 5, "last_updated_at": 1711356300000}',
        '{"usd": 5, "last_updated_at": 0}', '{"usd": 5, "last_updated_at": "now"}',
        '{"usd": 1e300, "last_updated_at": 1711356300}', '{"eur": 5, "last_updated_at": 1711356300}',
    ],
)  # fmt: skip
async def test_an_entry_that_is_no_price_is_left_out(desk: Desk, entry: str) -> None:
    desk.wanted = {MAINNET: [UNI, WBTC]}
    good = COINGECKO_ANSWER.decode().strip()[1:]
    unasked = '{"usd": 1, "last_updated_at": 1711356300}'
    desk.server.next(Answer(f'{{"{UNI}": {entry}, "{SCAM}": {unasked}, {good}'.encode()))
    await desk.step()
    assert [list(quotes) for _, quotes in desk.offered] == [[WBTC]]


@pytest.mark.parametrize("body", [b"{}", b'{"coins": []}', b'{"coins": null}', b'{"error": "boom"}'])
def test_an_answer_without_coins_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedPrices):
        DefiLlama(DEFILLAMA_PLATFORMS).read(MAINNET, [WBTC], body)


@pytest.mark.parametrize("confidence", ["2", "-1", '"high"', "true", "null", "1e300"])
def test_a_confidence_that_is_none_is_left_out(confidence: str) -> None:
    body = f'{{"coins": {{"ethereum:{WBTC}": {{"price": 5, "timestamp": 1711356300, "confidence": {confidence}}}}}}}'
    found = DefiLlama(DEFILLAMA_PLATFORMS).read(MAINNET, [WBTC], body.encode())
    assert found == {WBTC: Quote(usd("5"), 1711356300, None)}


async def test_a_batch_that_is_refused_is_halved_and_grows_again(
    server: PriceServer, open_desk: Callable[..., Desk]
) -> None:
    limits = FetchLimits(requests_per_minute=600, tokens_per_request=8, refresh_s=1, timeout_s=5)
    desk = open_desk(CoinGecko(COINGECKO_PLATFORMS, None, is_pro=False), limits)
    desk.wanted = {MAINNET: [Address(f"0x{n:040x}") for n in range(1, 9)]}
    refused = Answer(TOO_MANY_ADDRESSES, 400)
    server.next(refused, refused, refused, Answer(_prices))
    for _ in range(4):
        await desk.turn()
    assert [len(_addresses(path)) for path in server.asked[:4]] == [8, 4, 2, 1]
    assert desk.asker.failures == 0
    for _ in range(80):
        desk.now += 1
        await desk.turn()
    assert max(len(_addresses(path)) for path in server.asked[4:]) == 8


async def test_one_token_that_is_refused_does_not_hold_up_others(desk: Desk) -> None:
    desk.wanted = {MAINNET: [SCAM]}
    desk.server.next(Answer(b"{}", 404), Answer(COINGECKO_ANSWER))
    await desk.step()
    desk.wanted = {MAINNET: [SCAM, WBTC]}
    await desk.turn()
    assert _addresses(desk.server.asked[1]) == [WBTC]


async def test_a_refused_key_is_tried_again_in_ten_minutes(desk: Desk) -> None:
    desk.server.next(Answer(b"{}", 401), Answer(COINGECKO_ANSWER))
    assert await desk.step() == 600.0


async def test_a_source_that_hangs_is_left(server: PriceServer, open_desk: Callable[..., Desk]) -> None:
    limits = FetchLimits(requests_per_minute=30, tokens_per_request=2, refresh_s=60, timeout_s=0.05)
    desk = open_desk(CoinGecko(COINGECKO_PLATFORMS, None, is_pro=False), limits)
    server.next(Answer(hangs=True))
    assert await desk.step() == 2.0
    assert desk.asker.failures == 1


async def test_nobody_there_is_a_failure_and_no_secret_is_logged(
    server: PriceServer, open_desk: Callable[..., Desk], capsys: pytest.CaptureFixture[str]
) -> None:
    server.url = "http://127.0.0.1:9/hidden-key"
    desk = open_desk(CoinGecko(COINGECKO_PLATFORMS, "CG-secret", is_pro=True))
    for _ in range(4):
        await desk.turn()
    assert desk.fetcher.is_away
    out = "".join(capsys.readouterr())
    assert "coingecko" in out
    assert "secret" not in out
    assert "hidden-key" not in out


async def test_nothing_is_asked_while_nothing_is_wanted(desk: Desk) -> None:
    desk.wanted = {}
    assert await desk.step() == 1.0
    assert desk.server.asked == []


async def test_it_runs_until_cancelled(server: PriceServer, open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(CoinGecko(COINGECKO_PLATFORMS, None, is_pro=False))
    server.next(Answer(COINGECKO_ANSWER))
    task = asyncio.ensure_future(desk.fetcher.run())
    async with asyncio.timeout(10):
        while not desk.offered:
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
