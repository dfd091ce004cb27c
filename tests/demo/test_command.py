"""The demo as a person meets it: a terminal command that starts, says what to do, and ends clean."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rtserver.demo.deployment import Deployment
from rtserver.demo.lab import Lab
from rtserver.demo.ports import free_port, is_port_free
from rtserver.demo.process import Child
from rtserver.demo.server import ServerFailed, await_ready, url_of
from rtserver.demo.settings_file import settings_toml
from rtserver.demo.toolchain import Toolchain

_RUN = "import sys, uvloop; from rtserver.demo.command import run_demo; sys.exit(uvloop.run(run_demo({})))"


@contextmanager
def _demo(arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", _RUN.format(arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "60"},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _read_until(process: subprocess.Popen[str], wanted: str) -> str:
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if re.search(wanted, line):
            return said
    raise AssertionError(f"it ended without saying {wanted!r}:\n{said}")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_within_five_seconds(toolchain: Toolchain, number: signal.Signals) -> None:
    with _demo(f"no_serve=True, chain_port={(port := free_port())}, seed=4") as process:
        said = _read_until(process, r"  staked +\d+ positions")
        node = _node_pid(process.pid)
        handle = os.pidfd_open(node)
        began = time.monotonic()
        process.send_signal(number)
        assert process.stdout is not None
        rest = process.stdout.read()
        assert process.wait(timeout=10) == 0, rest
        assert time.monotonic() - began < 5
        assert re.search(r"market: \d+ blocks, \d+ transactions$", rest.strip()), rest
        poller = select.poll()
        poller.register(handle, select.POLLIN)
        assert poller.poll(0), "the node still runs"
        os.close(handle)
    assert is_port_free(port)
    settings = re.search(r"--config (\S+)", said)
    assert settings is not None
    assert not Path(settings[1]).parent.exists()


def _node_pid(parent: int) -> int:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    (node,) = (int(pid) for pid in children if "anvil" in Path(f"/proc/{pid}/cmdline").read_text())
    return node


@pytest.mark.parametrize(
    ("option", "flag", "who"), [("port", "--port", "server"), ("chain_port", "--chain-port", "chain")]
)
def test_a_port_in_use_says_so_and_how_to_choose_another(
    toolchain: Toolchain, option: str, flag: str, who: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        serve = "" if option == "port" else ", no_serve=True"
        with _demo(f"{option}={port}{serve}") as process:
            said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"port {port} for the {who} is in use" in said.replace("\n", " ")
    assert f"rtserver demo {flag} {port + 10}" in said
    assert f"make demo {'PORT' if option == 'port' else 'CHAIN_PORT'}={port + 10}" in said


async def test_the_settings_are_toml_that_names_everything(lab: Lab) -> None:
    deployment: Deployment = lab.deployment
    text = settings_toml(deployment, ws_url="ws://127.0.0.1:1", http_url="http://127.0.0.1:1")
    (chain,) = tomllib.loads(text)["chains"]
    assert chain["id"] == 31337
    assert chain["rpc"] == ["ws://127.0.0.1:1", "http://127.0.0.1:1"]
    assert [a.lower() for a in chain["stablecoins"]] == [
        deployment.tokens[symbol].address for symbol in ("USDC", "USDT", "DAI")
    ]
    (protocol,) = chain["protocols"]
    assert protocol["kind"] == "uniswap-v3"
    assert protocol["factory"].lower() == deployment.factory
    assert protocol["position_manager"].lower() == deployment.position_manager


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("box.local", "http://box.local:80"),
    ],
)
def test_the_printed_url_can_be_opened(host: str, url: str) -> None:
    assert url_of(host, 80) == url


_SLOW_SERVER = """
import http.server, sys
answers = [503, 503, 200]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(answers.pop(0)); self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


async def test_ready_is_what_the_server_says_it_is(tmp_path: Path) -> None:
    port = free_port()
    server = Child([sys.executable, "-c", _SLOW_SERVER, str(port)], log=tmp_path / "log")
    try:
        await await_ready(server, url_of("127.0.0.1", port))
    finally:
        await server.end(timeout_s=1)
    assert server.said().count('" 503') == 2


async def test_a_server_that_ends_is_not_waited_for(tmp_path: Path) -> None:
    server = Child([sys.executable, "-c", "raise SystemExit('no such setting')"], log=tmp_path / "log")
    with pytest.raises(ServerFailed, match="ended with code 1:\nno such setting"):
        await await_ready(server, url_of("127.0.0.1", free_port()))
