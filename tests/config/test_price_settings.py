"""Settings of prices: what is allowed, what is said of the rest, and what is built from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtserver.config import Settings, load_settings
from rtserver.domain.errors import ConfigError
from rtserver.domain.ids import Address, ChainId
from rtserver.worth.build import build_aggregator, build_fetchers, hops_of

WETH = "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2"
FEED = "0x5f4eC3Df9cbd43714FE2740f5E3616155c5b8419"
CHAIN = '[[chains]]\nid = 1\nrpc = ["http://localhost:1"]\n'


def _load(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "rtserver.toml"
    path.write_text(text)
    return load_settings(path, {})


def test_without_any_settings_oracles_and_pools_and_nobody_over_http(tmp_path: Path) -> None:
    settings = _load(tmp_path, CHAIN)
    assert settings.prices.order == ("chainlink", "pools", "coingecko", "defillama")
    assert build_fetchers(settings.prices, {}) == ([], None)
    prices = build_aggregator(ChainId(1), settings.chains[0], settings.prices, [])
    assert {address for address, _ in prices.plan().calls} >= {Address(FEED.lower())}
    assert hops_of(ChainId(1), settings.chains[0]) == [WETH.lower()]
    assert hops_of(ChainId(31337), settings.chains[0]) == []


def test_feeds_and_hops_replace_the_known_ones(tmp_path: Path) -> None:
    text = f'{CHAIN}hops = []\n[[chains.feeds]]\ntoken = "{WETH}"\nfeed = "{FEED}"\nmax_age_s = 60\n'
    chain = _load(tmp_path, text).chains[0]
    assert hops_of(ChainId(1), chain) == []
    assert chain.feeds is not None
    assert (chain.feeds[0].token, chain.feeds[0].max_age_s) == (WETH.lower(), 60)


def test_everything_about_sources(tmp_path: Path) -> None:
    text = f"""{CHAIN}
[prices]
order = ["pools", "coingecko"]
min_depth_usd = 0
dispute_percent = 0.5
[prices.order_by_token]
"{WETH}" = ["defillama"]
[prices.coingecko]
key = "CG-secret"
is_pro = true
base_url = "https://pro-api.coingecko.com/api/v3"
requests_per_minute = 250
[prices.coingecko.platforms]
31337 = "local"
[prices.defillama]
refresh_s = 30
"""
    settings = _load(tmp_path, text)
    prices = settings.prices
    assert prices.order_by_token == {WETH.lower(): ("defillama",)}
    assert prices.coingecko is not None
    assert prices.coingecko.platforms == {31337: "local"}
    assert "CG-secret" not in repr(settings)
    assert "pro-api" not in repr(settings)
    fetchers, then = build_fetchers(prices, {})
    assert (len(fetchers), then is None) == (2, False)


def test_sources_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTSERVER_PRICES__COINGECKO__KEY", "CG-secret")
    prices = _load(tmp_path, CHAIN).prices
    assert prices.coingecko is not None
    assert prices.coingecko.key is not None
    assert prices.coingecko.key.get_secret_value() == "CG-secret"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[prices]\norder = ["binance"]', "prices.order.0"),
        ("[prices]\norder = []", "prices.order"),
        ("[prices]\nmin_depth = 5", "did you mean min_depth_usd?"),
        ("[prices]\ndispute_percent = 0", "greater than 0"),
        ('[prices.order_by_token]\nWETH = ["pools"]', "prices.order_by_token.WETH"),
        ("[prices.coingecko]\nrequests_per_minute = 0", "greater than 0"),
        ("[prices.coingecko]\nkey_ = 'CG-secret'", "did you mean key?"),
        ("[prices.coingecko]\nbase_url = 'ftp://secret-host/'", "a base URL is http://"),
        ("[prices.defillama]\nbase_url = 'https://llama.example/?key=secret'", "a base URL is http://"),
        (f'[[chains.feeds]]\ntoken = "WETH"\nfeed = "{FEED}"', "chains.0.feeds.0.token"),
        (f'[[chains.feeds]]\ntoken = "{WETH}"', "chains.0.feeds.0.feed: is required"),
    ],
)
def test_what_is_wrong_is_said_by_name_and_without_secrets(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match="wrong setting") as caught:
        _load(tmp_path, f"{CHAIN}{text}\n")
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)
