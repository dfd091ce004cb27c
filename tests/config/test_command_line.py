"""The command as people meet it: help, mistakes told in a sentence, a port in use, a clean end on SIGTERM."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from rtserver.__main__ import app

# A chain whose id is known from the settings and whose node never answers: port 9 is nobody's.
AWAY = """
[[chains]]
id = 1
rpc = ["http://127.0.0.1:9"]
"""


def _main(*arguments: str) -> Result:
    """Run in this process: for what ends before logs are configured and a loop runs."""
    return CliRunner().invoke(app, arguments)


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rtserver", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


@pytest.fixture
def away(tmp_path: Path) -> str:
    """Return a file with a chain that does not answer."""
    path = tmp_path / "away.toml"
    path.write_text(AWAY)
    return str(path)


def test_help_reads_like_a_manual_page() -> None:
    done = _main("--help")
    assert done.exit_code == 0
    for part in ("EXAMPLES", "ENVIRONMENT", "EXIT STATUS", "serve", "demo", "tail", "verify", "RTSERVER_PORT"):
        assert part in done.stdout
    served = _main("serve", "--help")
    for part in ("--rpc", "--config", "--host", "--port"):
        assert part in served.stdout


def test_version() -> None:
    done = _main("version")
    assert done.exit_code == 0
    assert done.stdout.startswith("rtserver ")


def test_a_wrong_setting_is_told_before_anything_starts(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text("port = 70000\n" + AWAY)
    done = _run("serve", "--config", str(path))
    assert done.returncode == 2
    assert done.stderr.startswith("rtserver: ")
    assert "port = 70000: Input should be less than or equal to 65535" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        (["serve"], {}, "give --rpc URL"),
        (["serve", "--config", "/nowhere.toml"], {}, "/nowhere.toml: cannot be read"),
        (["serve", "--rpc", "nonsense"], {}, "an endpoint is ws://"),
        (["serve", "--rpc", "http://127.0.0.1:9"], {"RTSERVER_PORT": "x"}, "port = 'x'"),
        (["serve", "--port", "many"], {}, "--port"),
        (["nothing"], {}, "nothing"),
    ],
)
def test_mistakes_end_with_status_2_and_a_sentence(
    arguments: list[str], environment: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = _main(*arguments)
    assert done.exit_code == 2, done.output
    assert says in done.output
    assert isinstance(done.exception, SystemExit), "no traceback"


def test_a_node_that_does_not_answer_is_named_without_its_key() -> None:
    done = _run("serve", "--rpc", "http://127.0.0.1:9/0123456789abcdefSECRET")
    assert done.returncode == 2
    assert "http://127.0.0.1:9: asked for its chain id, got no answer" in done.stderr
    assert "Traceback" not in done.stderr
    assert "SECRET" not in done.stderr


def test_an_unknown_chain_without_contracts(tmp_path: Path) -> None:
    path = tmp_path / "unknown.toml"
    path.write_text(AWAY.replace("id = 1", "id = 424242"))
    done = _run("serve", "--config", str(path), "--port", "0")
    assert done.returncode == 2
    assert "chain 424242 is not known" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_says_so_and_how_to_choose_another(away: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = _run("serve", "--config", away, "--port", str(port))
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last == f"rtserver: 127.0.0.1:{port} is in use: choose another port with --port or RTSERVER_PORT"
    assert "Traceback" not in done.stderr


async def test_sigterm_says_bye_and_ends_within_five_seconds(away: str) -> None:
    """Also while no node answers: the server lives, is not ready, and ends in order."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "rtserver", "serve", "--config", away, "--port", "0",
        stderr=asyncio.subprocess.PIPE, env={**os.environ, "RTSERVER_LOG__FORMAT": "json"},
    )  # fmt: skip
    assert process.stderr is not None
    try:
        url = ""
        while not url:
            line = json.loads(await asyncio.wait_for(process.stderr.readline(), 30))
            if line["event"] == "serving":
                url = line["url"]
        async with connect(url.replace("http", "ws") + "/ws") as client:
            assert json.loads(await client.recv())["type"] == "welcome"
            started = time.monotonic()
            process.send_signal(signal.SIGTERM)
            bye = json.loads(await client.recv())
            assert (bye["type"], bye["code"], bye["reconnect"]) == ("bye", 4001, True)
            with pytest.raises(ConnectionClosed) as caught:
                await client.recv()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 4001
        rest = (await asyncio.wait_for(process.communicate(), 5))[1].decode()
        assert process.returncode == 0, rest
        assert time.monotonic() - started < 5
        assert "Traceback" not in rest
        assert "never retrieved" not in rest
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
