"""Settings from file, environment and command line, and what is said about wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtserver.config import Settings, load_settings
from rtserver.domain.errors import ConfigError

RPC = ("ws://127.0.0.1:1",)
KEY = "0123456789abcdefSECRET"
FACTORY = "0x1F98431c8aD98523631AE4a59f267346ea31F984"
FILE = f"""
port = 9001
origins = ["https://app.example"]

[limits]
channels = 7

[[chains]]
id = 31337
name = "local"
rpc = ["ws://127.0.0.1:8545/{KEY}", "http://127.0.0.1:8545"]
stablecoins = ["0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48"]
[[chains.protocols]]
kind = "uniswap-v3"
factory = "{FACTORY}"
position_manager = "0xC36442b4a4522E871399CD717aBDD847Ab11FE88"
staker = "0xe34139463bA50bD61336E0c446Bd8C0867c6fE65"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a good file."""
    path = tmp_path / "rtserver.toml"
    path.write_text(FILE)
    return path


def _wrong(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(path, {})
    return str(caught.value)


def test_defaults() -> None:
    settings = load_settings(None, {}, RPC)
    assert (settings.host, settings.port, settings.origins) == ("127.0.0.1", 8080, ("*",))
    assert settings.limits.channels == 256
    assert settings.chains[0].urls == RPC
    assert settings.chains[0].id is None


def test_a_file(file: Path) -> None:
    settings = load_settings(file, {})
    (chain,) = settings.chains
    assert (settings.port, settings.limits.channels, settings.limits.burst) == (9001, 7, 20)
    assert chain.protocols is not None
    assert chain.protocols[0].staker == "0xe34139463ba50bd61336e0c446bd8c0867c6fe65"
    assert chain.rewards_every_s == 10
    assert chain.looks_back
    assert chain.protocols is not None
    assert chain.protocols[0].factory == FACTORY.lower()
    assert chain.urls == (f"ws://127.0.0.1:8545/{KEY}", "http://127.0.0.1:8545")


def test_the_environment_is_over_the_file_and_the_command_line_over_both(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTSERVER_PORT", "9002")
    monkeypatch.setenv("RTSERVER_HOST", "0.0.0.0")
    monkeypatch.setenv("RTSERVER_LIMITS__BURST", "33")
    settings = load_settings(file, {"port": None, "host": None})
    assert (settings.port, settings.host) == (9002, "0.0.0.0")
    assert (settings.limits.channels, settings.limits.burst) == (7, 33), "one setting of a group leaves the others"
    settings = load_settings(file, {"port": 9003, "host": None})
    assert (settings.port, settings.host, settings.limits.burst) == (9003, "0.0.0.0", 33)


def test_chains_of_the_environment_and_of_the_command_line(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTSERVER_CHAINS", '[{"rpc": "ws://env:1,http://env:2"}]')
    assert load_settings(file, {}).chains[0].urls == ("ws://env:1", "http://env:2")
    assert load_settings(file, {}, RPC).chains[0].urls == RPC


@pytest.mark.parametrize("value", ["https://a.example,https://b.example", '["https://a.example", "https://b.example"]'])
def test_a_list_in_the_environment(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTSERVER_ORIGINS", value)
    assert load_settings(None, {}, RPC).origins == ("https://a.example", "https://b.example")


@pytest.mark.parametrize("name", ["RTSERVER_LIMITS", "RTSERVER_CHAINS"])
def test_what_has_to_be_json_in_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "no json")
    with pytest.raises(ConfigError, match=f"{name}: not JSON"):
        load_settings(None, {}, RPC)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("port = 99999", "port = 99999: Input should be less than or equal to 65535"),
        ('port = "high"', "port = 'high': Input should be a valid integer"),
        ("prot = 1", "prot = 1: is no setting; did you mean port?"),
        ("zzz = 1", "zzz = 1: is no setting; allowed are host, port"),
        ("limits.chanels = 1", "limits.chanels = 1: is no setting; did you mean channels?"),
        ("limits.channels = 0", "limits.channels = 0: Input should be greater than or equal to 1"),
        ('log.level = "loud"', "log.level = 'loud': Input should be 'debug', 'info', 'warning' or 'error'"),
        ('dashboard.owners = ["0x1"]', "dashboard.owners.0 = '0x1': address must be 0x followed by 40 hex digits"),
    ],
)
def test_a_wrong_setting_names_key_value_and_what_is_allowed(file: Path, line: str, says: str) -> None:
    message = _wrong(file, line + "\n" + FILE.replace("port = 9001", "").replace("[limits]\nchannels = 7", ""))
    assert message.startswith(f"{file}: 1 wrong setting\n")
    assert says in message


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"uniswap-v3"', '"uniswap-v9"', "chains.0.protocols.0.kind = 'uniswap-v9': allowed are uniswap-v3"),
        (FACTORY, FACTORY[:-1], "chains.0.protocols.0.factory"),
        (FACTORY, FACTORY.replace("F", "f"), "EIP-55"),
        (f'factory = "{FACTORY}"', "", "chains.0.protocols.0.factory: is required"),
        ('name = "local"', 'name = "Local Net"', "chains.0.name = 'Local Net'"),
        ("id = 31337", "id = 0", "chains.0.id = 0"),
        ("stablecoins", "stablecions", "is no setting; did you mean stablecoins?"),
    ],
)
def test_wrong_chains(file: Path, old: str, new: str, says: str) -> None:
    assert says in _wrong(file, FILE.replace(old, new))


@pytest.mark.parametrize(
    "text",
    [
        FILE.replace("ws://127.0.0.1", "ftp://127.0.0.1"),
        FILE.replace("rpc = [", "rcp = ["),
        FILE.replace('rpc = ["ws', 'rcp = "x"\nrpc = ["ftp'),
        f'chains = "wss://node.example/{KEY}"',
        f'[[chains]]\nrpc = ["wss://a.example"]\nrcp = "wss://node.example/{KEY}"',
        f'[[chains]]\nrpc = "{KEY}"',
    ],
)
def test_no_key_is_shown(file: Path, text: str) -> None:
    assert KEY not in _wrong(file, text)


def test_no_key_is_in_a_repr(file: Path) -> None:
    settings = load_settings(file, {})
    assert KEY not in repr(settings)
    assert KEY not in settings.model_dump_json()


def test_no_chain_at_all() -> None:
    with pytest.raises(ConfigError, match="give --rpc URL, or a file"):
        load_settings(None, {})


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing.toml: cannot be read: No such file"):
        load_settings(tmp_path / "missing.toml", {})
    assert "not TOML" in _wrong(tmp_path / "x.toml", "port = = 1")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not TOML"):
        load_settings(tmp_path / "binary.toml", {})


def test_settings_do_not_change() -> None:
    settings = load_settings(None, {}, RPC)
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1
    assert isinstance(settings, Settings)
