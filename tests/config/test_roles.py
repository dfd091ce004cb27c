"""Which settings a role needs, and what is said where they are missing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rtserver.app import _open_history
from rtserver.config import Settings, load_settings, plain
from rtserver.domain.errors import ConfigError
from rtserver.store.opening import open_store

REDIS = {"url": "redis://127.0.0.1:6379/0"}


def test_one_process_needs_no_redis_and_a_gateway_no_chain() -> None:
    assert load_settings(None, {}, ["http://127.0.0.1:1"]).role == "all"
    gateway = load_settings(None, {"role": "gateway", "redis": REDIS})
    assert gateway.chains == ()
    assert gateway.redis.prefix == "rtserver"


@pytest.mark.parametrize(
    ("given", "rpc", "said"),
    [
        ({"role": "gateway"}, [], "redis.url: is required for a role"),
        ({"role": "engine"}, ["http://127.0.0.1:1"], "redis.url: is required for a role"),
        ({"role": "engine", "redis": REDIS}, [], "chains: is required: give --rpc URL"),
        ({}, [], "chains: is required: give --rpc URL"),
        ({"role": "both", "redis": REDIS}, [], "role"),
        ({"role": "gateway", "redis": {"url": "http://:pass@host"}}, [], "Redis is redis://host:port"),
        ({"role": "gateway", "redis": REDIS | {"prefix": "A b"}}, [], "redis.prefix"),
        ({"role": "gateway", "redis": REDIS | {"prefx": "a"}}, [], "did you mean prefix?"),
    ],
)
def test_what_a_role_lacks_is_named(given: dict[str, Any], rpc: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(None, given, rpc)
    assert said in str(caught.value)
    assert "pass" not in str(caught.value)


def test_gateways_on_one_port_meet_in_this_machines_redis_unless_told_otherwise() -> None:
    assert load_settings(None, {"gateways": 3}, ["http://127.0.0.1:1"]).redis.url is None
    assert load_settings(None, {"gateways": 3, "role": "gateway"}).chains == ()
    with pytest.raises(ConfigError, match="gateways: an engine has none"):
        load_settings(None, {"gateways": 3, "role": "engine", "redis": REDIS}, ["http://127.0.0.1:1"])
    with pytest.raises(ConfigError, match="gateways = 1000: Input should be less"):
        load_settings(None, {"gateways": 1000}, ["http://127.0.0.1:1"])


def test_what_a_child_is_given_is_what_was_set() -> None:
    given = {
        "redis": {"url": "redis://:secret@127.0.0.1:6379/0"},
        "trusted_proxies": "10.0.0.0/8,::1",
        "store": {"path": "/var/lib/x"},
        "prices": {"coingecko": {"key": "secret", "platforms": {"7": "seven"}}},
    }
    settings = load_settings(None, given, ["https://node.example/KEY", "wss://node.example/KEY"])
    assert Settings(**json.loads(json.dumps(plain(settings)))) == settings


async def test_which_part_of_a_chain_is_kept() -> None:
    """Each shard's by itself; of an engine for any shard checkpoints, and no history: it doesn't know them apart."""
    store = await open_store("sqlite+aiosqlite://", None, {})
    kept = {}
    for shard in ("0/1", "1/4", "any/4", "any/1"):
        settings = load_settings(None, {"role": "engine", "redis": REDIS, "shard": shard}, ["http://127.0.0.1:1"])
        kept[shard] = settings.shards.label, _open_history(settings, store) is not None
    assert kept == {"0/1": ("", True), "1/4": ("1/4", True), "any/4": ("any/4", False), "any/1": ("", True)}
    assert store is not None
    await store.close()
