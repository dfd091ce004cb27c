"""`serve --gateways 3` as people run it: one port, three gateways, an engine, a Redis, and one that is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession
from broker.redis_server import RedisServer
from prometheus_client.parser import text_string_to_metric_families

from rtserver.client import RtClient
from rtserver.demo.lab import Lab
from rtserver.demo.market import Market
from rtserver.demo.ports import free_port
from rtserver.demo.process import Child
from rtserver.demo.server import await_ready, url_of
from rtserver.demo.showcase import mint_exhibits

from .processes import Deployed, mining

GATEWAYS = 3
CLIENTS = 20


class OnePort:
    """The supervisor, and what it tells."""

    def __init__(self, world: Deployed) -> None:
        self.world = world
        self.port = free_port()
        self.url = url_of("127.0.0.1", self.port)
        self.ws_url = f"ws://127.0.0.1:{self.port}/ws"
        ops_port = free_port()
        self.ops_url = url_of("127.0.0.1", ops_port)
        command = [sys.executable, "-m", "rtserver", "serve", "--gateways", str(GATEWAYS), "--port", str(self.port)]
        self.log = world.folder / "supervisor.log"
        self.child = Child(
            [*command, "--config", str(world.settings)],
            log=self.log,
            environment={**os.environ, "RTSERVER_OPS__PORT": str(ops_port), "RTSERVER_LOG__FORMAT": "json"},
        )

    async def processes(self) -> dict[str, dict[str, Any]]:
        async with ClientSession() as session, session.get(f"{self.ops_url}/health/ready") as response:
            return {one["name"]: one for one in (await response.json())["processes"]}

    async def until_all_are_ready(self) -> dict[str, dict[str, Any]]:
        async with asyncio.timeout(60):
            while True:
                processes = await self.processes()
                if all(one["ready"] for one in processes.values()):
                    return processes
                await asyncio.sleep(0.1)

    async def connections(self) -> dict[str, int]:
        """Return how many clients each gateway has."""
        async with ClientSession() as session, session.get(f"{self.ops_url}/metrics") as response:
            families = {one.name: one for one in text_string_to_metric_families(await response.text())}
        samples = families["rtserver_connections"].samples
        return {one.labels["process"]: int(one.value) for one in samples if one.labels["process"][:7] == "gateway"}

    async def restarted(self, name: str) -> dict[str, dict[str, Any]]:
        """Return what is told once a process was started again, and all are ready."""
        async with asyncio.timeout(60):
            while (await self.processes())[name]["restarts"] == 0:
                await asyncio.sleep(0.1)
        return await self.until_all_are_ready()

    async def until_same_as_the_chain(self, channel: str, clients: list[RtClient]) -> None:
        """Wait until each client's copy is what is served of the chain's newest block."""
        lab = self.world.lab
        await lab.catch_up()
        async with asyncio.timeout(60), ClientSession() as session:
            while True:
                async with session.get(f"{self.url}/api/v1/snapshot", params={"channel": channel}) as response:
                    answer = await response.json()
                if answer["block"]["hash"] == lab.head.hash and all(
                    client.states.get(answer["channel"]) == answer["state"] for client in clients
                ):
                    return
                await asyncio.sleep(0.05)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
async def one_port(lab: Lab, redis_server: RedisServer, tmp_path: Path) -> AsyncIterator[OnePort]:
    await mint_exhibits(lab, seed=1)
    await Market(lab, seed=1).steps(10)
    world = Deployed(lab, redis_server, tmp_path)
    text = world.settings.read_text()
    world.settings.write_text(f'{text}prefix = "{tmp_path.name.replace("_", "-")[-20:].strip("-").lower()}"\n'
                              "[limits]\nconnections_per_minute = 1000\n")  # fmt: skip
    started = OnePort(world)
    try:
        await await_ready(started.child, started.ops_url)
        yield started
    finally:
        await started.child.end(timeout_s=15.0)


async def test_a_gateway_of_one_port_is_killed_and_then_the_engine(one_port: OnePort) -> None:
    lab = one_port.world.lab
    before = await one_port.until_all_are_ready()
    assert list(before) == ["engine", "gateway-1", "gateway-2", "gateway-3"]
    assert before["engine"]["chains"][0]["inCharge"] is True
    channel = f"owner:{lab.deployment.chain_id}:{one_port.world.owner}"

    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(RtClient(one_port.ws_url)) for _ in range(CLIENTS)]
        for client in clients:
            await (await client.subscribe(channel)).opened()
        spread = await one_port.connections()
        assert sum(spread.values()) == CLIENTS
        assert sum(count > 0 for count in spread.values()) >= 2, spread

        victim = max(spread, key=lambda name: spread[name])
        os.kill(before[victim]["pid"], signal.SIGKILL)
        after = await one_port.restarted(victim)
        assert after[victim]["pid"] != before[victim]["pid"]
        assert {name: one["restarts"] for name, one in after.items()} == {name: int(name == victim) for name in after}

        await Market(lab, seed=2).steps(3)
        await one_port.until_same_as_the_chain(channel, clients)
        assert sum(client.stats.reconnects for client in clients) >= spread[victim]
        async with asyncio.timeout(60):
            while sum((await one_port.connections()).values()) != CLIENTS:
                await asyncio.sleep(0.05)
        # A machine so busy that the engine lost its lease has given every client a snapshot.
        if "not in charge any more" not in one_port.log.read_text():
            assert sum(client.stats.resumed for client in clients) >= spread[victim], "with their cursors"

        # The engine is the only one: until it is back, gateways serve the last state.
        os.kill(after["engine"]["pid"], signal.SIGKILL)
        after = await one_port.restarted("engine")
        async with mining(one_port.world):
            await one_port.world.verify(one_port)
        await one_port.until_same_as_the_chain(channel, clients)

        one_port.child.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            assert await one_port.child.wait() == 0
    for one in after.values():
        with pytest.raises(ProcessLookupError):
            os.kill(one["pid"], 0)
    lines = one_port.lines()
    told = [line for line in lines if line["event"] == "process ended, to be started again"]
    assert [(line["process"], line["status"]) for line in told] == [
        (name, -signal.SIGKILL) for name in (victim, "engine")
    ]
    assert {line["process"] for line in lines if line["event"] == "serving"} == set(after)


class Gateways:
    """A supervisor of gateways alone, whose engines are elsewhere."""

    def __init__(self, redis: RedisServer, folder: Path, port: int) -> None:
        self.log = folder / "gateways.log"
        self.ops_url = url_of("127.0.0.1", ops_port := free_port())
        command = [sys.executable, "-m", "rtserver", "serve", "--role", "gateway", "--gateways", "2"]
        command += ["--port", str(port)]
        mine = {"RTSERVER_REDIS__URL": redis.url, "RTSERVER_REDIS__PREFIX": "nobody", "RTSERVER_LOG__FORMAT": "json"}
        mine["RTSERVER_OPS__PORT"] = str(ops_port)
        self.child = Child(command, log=self.log, environment={**os.environ, **mine})

    async def running(self) -> list[dict[str, Any]]:
        """Return what is told of the gateways once they run. There is no chain, so they are not ready."""
        async with asyncio.timeout(60), ClientSession() as session:
            while True:
                with suppress(ClientError):
                    async with session.get(f"{self.ops_url}/health/ready") as response:
                        assert response.status == 503
                        processes = list((await response.json())["processes"])
                    if all(one["state"] == "running" for one in processes):
                        return processes
                await asyncio.sleep(0.05)


async def answers(session: ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/health/live"):
            return True
    except ClientError:
        return False


async def test_gateways_end_with_their_supervisor_also_if_it_is_killed(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    port = free_port()
    one = Gateways(redis_server, tmp_path, port)
    try:
        gateways = await one.running()
        (tmp_path / "other").mkdir()
        assert [gateway["name"] for gateway in gateways] == ["gateway-1", "gateway-2"]
        assert all("no engine has said yet" in gateway["reason"] for gateway in gateways)

        other = Gateways(redis_server, tmp_path / "other", port)
        assert await other.child.wait() == 2
        assert f"127.0.0.1:{port} is in use" in other.child.said(), "although gateways may share a port"

        one.child.kill_now()
        async with asyncio.timeout(60), ClientSession() as session:
            # Not by their process ids: whose children they are now may not care that they ended.
            while any([await answers(session, gateway["url"]) for gateway in gateways]):
                await asyncio.sleep(0.05)
        said = one.log.read_text()
        assert said.count('"event": "shutting down"') == len(gateways), "in order"
    finally:
        await one.child.end(timeout_s=15.0)


def test_without_its_redis_nothing_is_started(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "rtserver",
        "serve",
        "--gateways",
        "2",
        "--port",
        "0",
        "--rpc",
        "http://127.0.0.1:9",
    ]
    environment = {**os.environ, "RTSERVER_REDIS__URL": "redis://:secret@127.0.0.1:1/0"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "no Redis answers at redis://127.0.0.1:1/0" in done.stderr
    assert "start one (redis-server" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr
