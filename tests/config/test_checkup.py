"""`rtserver check`: all settings and no secret, and whether what they name is there."""

from __future__ import annotations

import io
from pathlib import Path

from broker.redis_server import RedisServer
from typer.testing import CliRunner

from rtserver.__main__ import app
from rtserver.checkup import run_checkup, shown_settings
from rtserver.config import load_settings
from rtserver.demo.lab import Lab
from rtserver.demo.settings_file import settings_toml


def test_each_setting_is_shown_and_no_secret() -> None:
    given = {
        "port": 9000,
        "role": "engine",
        "redis": {"url": "redis://:SECRET@127.0.0.1:6379/0"},
        "store": {"url": "postgresql://user:SECRET@db.example/rtserver"},
        "prices": {"coingecko": {"key": "SECRET"}, "defillama": {"base_url": "https://pro.example/SECRET/coins"}},
    }
    lines = list(
        shown_settings(load_settings(None, given, ["wss://node.example/SECRET", "https://u:SECRET@b.example"]))
    )
    assert "port = 9000   # default: 8080" in lines
    assert 'role = "engine"   # default: "all"' in lines
    assert "limits.channels = 256" in lines
    assert 'chains[0].rpc = ["wss://node.example", "https://b.example"]' in lines
    assert 'redis.url = "redis://127.0.0.1:6379"   # default: (not set)' in lines
    assert 'store.url = "postgresql://db.example"   # default: (not set)' in lines
    assert 'prices.coingecko.key = "(hidden)"' in lines
    assert 'prices.defillama.base_url = "https://pro.example"' in lines
    assert not [line for line in lines if "SECRET" in line]


async def test_what_is_there_is_told(lab: Lab, redis_server: RedisServer, tmp_path: Path) -> None:
    file = tmp_path / "rtserver.toml"
    store = tmp_path / "kept" / "store.sqlite3"
    text = settings_toml(lab.deployment, ws_url=lab.node.ws_url, http_url=lab.node.http_url, store=store)
    file.write_text(f'gateways = 2\n{text}\n[redis]\nurl = "{redis_server.url}"\n')
    out = io.StringIO()
    assert await run_checkup(load_settings(file, {}), out) == 0, out.getvalue()
    said = [line for line in out.getvalue().splitlines() if line.startswith("ok ")]
    assert f"ok     {lab.node.http_url}: an endpoint of chain 31337" in said
    assert f"ok     store: {store} answers" in said
    assert any(line.startswith(f"ok     redis: {redis_server.url} is ") for line in said)
    assert any(line.startswith("ok     gateways: 2 and an engine on this machine") for line in said)
    assert "WRONG" not in out.getvalue()


async def test_what_is_not_there_is_told_all_of_it(lab: Lab) -> None:
    out = io.StringIO()
    given = {"role": "engine", "redis": {"url": "redis://:SECRET@127.0.0.1:1/0"}, "store": {"path": "/proc/no/where"}}
    rpc = [lab.node.http_url, "http://127.0.0.1:9/SECRET"]
    assert await run_checkup(load_settings(None, given, rpc), out) == 2
    wrong = [line for line in out.getvalue().splitlines() if line.startswith("WRONG")]
    for number, part in enumerate(
        (
            "http://127.0.0.1:9: ",
            "chain 31337: not known; name its contracts",
            "cannot be written",
            "no Redis answers at",
        )
    ):
        assert part in wrong[number]
    assert "SECRET" not in out.getvalue()


def test_a_wrong_setting_ends_it_as_it_ends_serve() -> None:
    done = CliRunner().invoke(app, ["check", "--rpc", "nonsense"])
    assert done.exit_code == 2
    assert "an endpoint is ws://" in done.output
    shown = CliRunner().invoke(app, ["--help"])
    assert "check" in shown.stdout
    assert "child" not in shown.stdout, "nobody starts that by hand"
    by_hand = CliRunner().invoke(app, ["child", "gateway-1"], input="\n")
    assert by_hand.exit_code == 2
    assert "not by hand" in by_hand.output


async def test_a_gateway_is_asked_for_a_store_that_it_names(redis_server: RedisServer, tmp_path: Path) -> None:
    redis = {"redis": {"url": redis_server.url}, "role": "gateway"}
    for store, said in (({}, ""), ({"path": str(tmp_path / "s")}, "answers"), ({"path": "/proc/no/where"}, "WRONG")):
        out = io.StringIO()
        status = await run_checkup(load_settings(None, {**redis, "store": store}), out)
        assert status == (2 if said == "WRONG" else 0), out.getvalue()
        found = [line for line in out.getvalue().splitlines() if "store" in line and line[:2] in ("ok", "WR")]
        assert len(found) == bool(store)
        assert all(said in line for line in found)
