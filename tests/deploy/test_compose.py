"""The compose file: valid by its specification, and each process of it started by hand as it says, on real servers."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import ClientSession, WSMsgType
from broker.redis_server import RedisServer
from compose_pydantic.models import ComposeSpecification  # type: ignore[import-untyped]
from store.postgres import open_postgres

from rtserver.config import load_settings
from rtserver.demo.node import AnvilNode
from rtserver.demo.ports import free_port
from rtserver.demo.process import Child
from rtserver.demo.server import await_ready, url_of
from rtserver.demo.toolchain import Toolchain

from .environment import ROOT, image_environment, interpolated, known_variables

GIVEN = {"RPC": "ws://127.0.0.1:1,http://127.0.0.1:1", "POSTGRES_PASSWORD": "a-password"}
OURS = ("engine", "standby", "gateway-1", "gateway-2")
ALONE = "rtserver"


def composed(**given: str) -> dict[str, Any]:
    text = (ROOT / "compose.yaml").read_text()
    return dict(interpolated(yaml.safe_load(text), GIVEN | given))


def services(**given: str) -> dict[str, dict[str, Any]]:
    return dict(composed(**given)["services"])


def ours() -> dict[str, dict[str, Any]]:
    return {name: one for name, one in services().items() if one.get("image") == "rtserver"}


def test_it_is_valid() -> None:
    document = {key: value for key, value in composed().items() if not key.startswith("x-")}
    found = ComposeSpecification.model_validate(document)
    assert set(found.services) == {*OURS, ALONE, "proxy", "redis", "postgres", "demo"}
    for part in (composed()["services"]["engine"], composed()["services"]["redis"]):
        part["helthcheck"] = part.pop("healthcheck")
        with pytest.raises(ValueError, match="helthcheck"):
            ComposeSpecification.model_validate({"services": {"one": part}})


def test_what_services_name_is_there() -> None:
    document = composed()
    for name, service in document["services"].items():
        assert set(service.get("depends_on", ())) <= document["services"].keys(), name
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            if source.startswith("."):
                assert (ROOT / source).is_file(), volume
            else:
                assert source in document["volumes"], volume
        if isinstance(service.get("depends_on"), dict):
            for other, condition in service["depends_on"].items():
                assert condition["condition"] == "service_healthy"
                assert "healthcheck" in document["services"][other]


def test_each_variable_is_a_setting_and_each_setting_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, service in ours().items():
        environment = image_environment() | service["environment"]
        with monkeypatch.context() as shell:
            for variable, value in environment.items():
                assert not variable.startswith("RTSERVER_") or variable in known_variables(), f"{name}: {variable}"
                assert isinstance(value, str), f"{name}: {variable} has to be text"
                shell.setenv(variable, value)
            settings = load_settings(None, {})
        if name in OURS:
            assert settings.role == name.partition("-")[0].replace("standby", "engine")
            assert settings.name == name
        assert settings.port == 8080, "what the health check asks"


def test_containers_have_no_rights_and_time_to_say_bye() -> None:
    for name, service in services().items():
        if name in ("redis", "postgres"):
            continue
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["stop_grace_period"].removesuffix("s")) > 5, name


class Started:
    """Processes in place of containers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.children: dict[str, Child] = {}
        self.ports: dict[str, int] = {}
        self.ops_ports: dict[str, int] = {}

    def start(self, name: str, service: dict[str, Any], hosts: dict[str, str]) -> None:
        """Start a service's command with its environment; containers' names become addresses of this machine."""
        port, ops_port = free_port(), free_port()
        environment = image_environment() | {
            variable: re.sub("|".join(map(re.escape, hosts)), lambda found: hosts[found[0]], value)
            for variable, value in service["environment"].items()
        }
        # In a container each has ports and folders of its own.
        own = {"RTSERVER_PORT": str(port), "XDG_STATE_HOME": str(self.folder / name), "PATH": os.environ["PATH"]}
        if "RTSERVER_OPS__PORT" in environment:
            own["RTSERVER_OPS__PORT"] = str(ops_port)
        command = service.get("command", ["serve"])
        self.children[name] = Child(
            [sys.executable, "-m", "rtserver", *command],
            log=self.folder / f"{name}.log",
            environment=environment | own | {"PYTHONPATH": str(ROOT)},
        )
        self.ports[name], self.ops_ports[name] = port, ops_port

    async def ready(self, name: str) -> str:
        url = url_of("127.0.0.1", self.ports[name])
        await await_ready(self.children[name], url, timeout_s=60)
        return url

    def start_proxy(self, proxy: str) -> str:
        port = free_port()
        text = (ROOT / "deploy" / "nginx.conf").read_text()
        for name in ("gateway-1", "gateway-2"):
            assert f"{name}:8080" in text
            text = text.replace(f"{name}:8080", f"127.0.0.1:{self.ports[name]}")
        file = self.folder / "nginx.conf"
        file.write_text(text.replace("listen 8080", f"listen 127.0.0.1:{port}").replace("/tmp/", f"{self.folder}/"))
        command = [proxy, "-c", str(file), "-p", str(self.folder), "-g", "daemon off;"]
        self.children["proxy"] = Child(command, log=self.folder / "proxy.log")
        return url_of("127.0.0.1", port)


@pytest.fixture
async def started(tmp_path: Path) -> AsyncIterator[Started]:
    one = Started(tmp_path)
    try:
        yield one
    finally:
        await asyncio.gather(*(child.end(timeout_s=15.0) for child in one.children.values()))


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A Redis as the file has it."""
    program, *options = services()["redis"]["command"]
    assert program == "redis-server"
    server = RedisServer(tmp_path, *options, "--dir", str(tmp_path))
    await server.start()
    try:
        yield server
    finally:
        await server.end()


async def health(session: ClientSession, url: str) -> dict[str, Any]:
    async with session.get(f"{url}/health/ready") as response:
        return dict(await response.json())


async def test_what_it_starts_works_together(
    toolchain: Toolchain, redis: RedisServer, started: Started, nginx: str
) -> None:
    async with open_postgres() as postgres, AnvilNode(toolchain, chain_id=1) as node:
        await node.set_block_time(2)
        user = services()["postgres"]["environment"]
        await postgres.run(f"CREATE ROLE {user['POSTGRES_USER']} LOGIN")
        await postgres.run(f"CREATE DATABASE {user['POSTGRES_DB']} OWNER {user['POSTGRES_USER']}")
        file = composed(RPC=f"{node.ws_url},{node.http_url}")
        proxy = file["services"]["proxy"]["networks"]["default"]["ipv4_address"]
        hosts = {
            "redis:6379": f"127.0.0.1:{redis.port}",
            "postgres:5432": postgres.url("x").partition("@")[2].partition("/")[0],
            proxy: "127.0.0.1",
        }
        for name in (*OURS, ALONE):
            started.start(name, file["services"][name], hosts)
        urls = {name: await started.ready(name) for name in (*OURS, ALONE)}
        volume = started.folder / ALONE
        assert [file.name for file in volume.rglob("*.sqlite3")] == ["store.sqlite3"], "in the volume"

        async with ClientSession() as session:
            for name in OURS:
                assert (await health(session, urls[name]))["process"]["name"] == name
            engines = [urls["engine"], urls["standby"]]
            async with asyncio.timeout(60):
                while sorted([(await health(session, url))["chains"][0]["inCharge"] for url in engines]) != [
                    False,
                    True,
                ]:
                    await asyncio.sleep(0.1)
            tables = {str(row[0]) for row in await postgres.rows(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public'", user["POSTGRES_DB"])}  # fmt: skip
            assert "rtserver_schema" in tables, "engines keep what they track there"

            url = started.start_proxy(nginx)
            await await_ready(started.children["proxy"], url)
            async with session.get(f"{url}/metrics") as response:
                assert response.status == 404, "not for everyone"
            ops_url = url_of("127.0.0.1", started.ops_ports["gateway-1"])
            async with session.get(f"{ops_url}/metrics") as response:
                assert "rtserver_connections" in await response.text()

            async with session.ws_connect(f"{url}/ws") as socket:
                assert json.loads(await socket.receive_str())["type"] == "welcome"
                await socket.send_json({"type": "subscribe", "id": 1, "channel": "head:1"})
                block = await socket.receive_json()
                while block["type"] != "subscribed":
                    block = await socket.receive_json()
                # Whoever has the client says bye; the other one takes it.
                async with session.get(f"{ops_url}/metrics") as response:
                    is_first = "rtserver_connections 1.0" in await response.text()
                serving = "gateway-1" if is_first else "gateway-2"
                started.children[serving].send_signal(signal.SIGTERM)
                said = [json.loads(one.data)["type"] async for one in socket if one.type == WSMsgType.TEXT]
                assert said[-1] == "bye"
                assert socket.close_code == 4001
            for _ in range(4):
                async with session.get(f"{url}/api/v1/info") as response:
                    assert response.status == 200, "also while one of both ends"
            assert await started.children[serving].wait() == 0
            async with session.ws_connect(f"{url}/ws") as socket:
                assert json.loads(await socket.receive_str())["type"] == "welcome"
