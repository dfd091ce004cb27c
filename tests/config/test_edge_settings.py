"""Who may come from where: settings that would quietly let nobody or everybody in are refused."""

from __future__ import annotations

import pytest

from rtserver.config import load_settings
from rtserver.domain.errors import ConfigError

RPC = ("ws://127.0.0.1:1",)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("https://App.Example/", ("https://app.example",)),
        ("https://a.example, http://localhost:3000", ("https://a.example", "http://localhost:3000")),
        ("*", ("*",)),
        ("null", ("null",)),
    ],
)
def test_origins_are_spelled_as_browsers_do(monkeypatch: pytest.MonkeyPatch, written: str, meant: tuple[str]) -> None:
    monkeypatch.setenv("RTSERVER_ORIGINS", written)
    assert load_settings(None, {}, RPC).origins == meant


@pytest.mark.parametrize("written", ["app.example", "https://app.example/page", "https://", "https://u:p@a", "//a", ""])
def test_what_no_browser_sends_is_no_origin(monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    """It would match nothing, and lock out every page."""
    monkeypatch.setenv("RTSERVER_ORIGINS", written)
    with pytest.raises(ConfigError, match=r"origins.*https://app\.example"):
        load_settings(None, {}, RPC)


def test_trusted_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(None, {}, RPC).trusted_proxies == ()
    monkeypatch.setenv("RTSERVER_TRUSTED_PROXIES", "10.1.2.3/8, 2001:db8::1")
    assert load_settings(None, {}, RPC).trusted_proxies == ("10.0.0.0/8", "2001:db8::1/128")
    monkeypatch.setenv("RTSERVER_TRUSTED_PROXIES", "nginx")
    with pytest.raises(ConfigError, match=r"trusted_proxies.*an address or a network"):
        load_settings(None, {}, RPC)
