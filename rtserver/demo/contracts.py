"""The contracts of the local chain: their ABIs and bytecode, and how a call to one is encoded.

Reads the published Uniswap and WETH artifacts as they are, and compiles our own small tokens and the actor
with solc once per source text. Never talks to a node.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eth_abi.abi import decode, encode
from eth_utils.crypto import keccak

from .toolchain import Toolchain, ToolchainError

__all__ = ["Contract", "Contracts", "Function", "load_contracts", "topic_of"]

_SOURCES: Final = Path(__file__).parent / "solidity"
_PERIPHERY: Final = "@uniswap/v3-periphery/artifacts/contracts"
_ARTIFACTS: Final = {
    "UniswapV3Factory": "@uniswap/v3-core/artifacts/contracts/UniswapV3Factory.sol/UniswapV3Factory.json",
    "UniswapV3Pool": "@uniswap/v3-core/artifacts/contracts/UniswapV3Pool.sol/UniswapV3Pool.json",
    "NonfungiblePositionManager": (f"{_PERIPHERY}/NonfungiblePositionManager.sol/NonfungiblePositionManager.json"),
    "SwapRouter": f"{_PERIPHERY}/SwapRouter.sol/SwapRouter.json",
    "UniswapV3Staker": "@uniswap/v3-staker/artifacts/contracts/UniswapV3Staker.sol/UniswapV3Staker.json",
    "WETH9": "canonical-weth/build/contracts/WETH9.json",
}
# solc-js starts in a second and compiles these in another; a minute is a machine under water.
_COMPILE_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Function:
    """One function of an ABI, ready to encode its calls and decode its answers."""

    signature: str
    selector: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def encode(self, *args: object) -> bytes:
        """Return the calldata: selector and arguments."""
        return self.selector + encode(self.inputs, args)

    def decode(self, answer: bytes) -> tuple[Any, ...]:
        """Return the answer's values, addresses as lower-case hex."""
        return decode(self.outputs, answer)


@dataclass(frozen=True, slots=True)
class Contract:
    """A contract's ABI and creation code. An overloaded function is known by its full signature only."""

    name: str
    bytecode: bytes
    constructor: tuple[str, ...]
    functions: Mapping[str, Function]
    abi: Sequence[Mapping[str, Any]]

    def creation(self, *args: object) -> bytes:
        """Return the init code with its constructor arguments."""
        return self.bytecode + encode(self.constructor, args)

    def call(self, function: str, *args: object) -> bytes:
        """Return the calldata of a call by name or full signature."""
        return self.functions[function].encode(*args)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contracts:
    """Everything that the lab deploys or calls."""

    factory: Contract
    pool: Contract
    position_manager: Contract
    router: Contract
    staker: Contract
    weth: Contract
    token: Contract
    fee_token: Contract
    rebasing_token: Contract
    odd_token: Contract
    aggregator: Contract
    feed_proxy: Contract
    actor: Contract


def topic_of(signature: str) -> str:
    """Return an event's topic0 as 0x-hex."""
    return "0x" + keccak(text=signature).hex()


async def load_contracts(toolchain: Toolchain) -> Contracts:
    """Return the contracts, compiling ours if their source was never compiled with this toolchain.

    Raises:
        ToolchainError: An artifact is missing or solc refused a source.
    """
    published = {}
    for name, path in _ARTIFACTS.items():
        artifact = _read_json(toolchain.node_modules / path)
        published[name] = _contract(name, artifact["abi"], artifact["bytecode"])
    ours = {
        name: _contract(name, output["abi"], output["evm"]["bytecode"]["object"])
        for name, output in (await _compiled(toolchain)).items()
    }
    return Contracts(
        factory=published["UniswapV3Factory"],
        pool=published["UniswapV3Pool"],
        position_manager=published["NonfungiblePositionManager"],
        router=published["SwapRouter"],
        staker=published["UniswapV3Staker"],
        weth=published["WETH9"],
        token=ours["Token"],
        fee_token=ours["FeeToken"],
        rebasing_token=ours["RebasingToken"],
        odd_token=ours["OddToken"],
        aggregator=ours["Aggregator"],
        feed_proxy=ours["FeedProxy"],
        actor=ours["Actor"],
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        parsed: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ToolchainError(f"the installed packages are incomplete, {path} is missing") from error
    return parsed


def _contract(name: str, abi: Sequence[Mapping[str, Any]], bytecode: str) -> Contract:
    functions: dict[str, Function] = {}
    overloaded: set[str] = set()
    constructor: tuple[str, ...] = ()
    for entry in abi:
        kind = entry["type"]
        if kind == "constructor":
            constructor = _types(entry["inputs"])
        elif kind == "function":
            inputs = _types(entry["inputs"])
            signature = f"{entry['name']}({','.join(inputs)})"
            function = Function(signature, keccak(text=signature)[:4], inputs, _types(entry.get("outputs", ())))
            functions[signature] = function
            if entry["name"] in functions:
                overloaded.add(entry["name"])
            functions[entry["name"]] = function
    for ambiguous in overloaded:
        del functions[ambiguous]
    return Contract(name, bytes.fromhex(bytecode.removeprefix("0x")), constructor, functions, abi)


def _types(parameters: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the canonical types, with tuples written out: `tuple[]` becomes `(address,bool)[]`."""
    return tuple(
        f"({','.join(_types(p['components']))}){p['type'].removeprefix('tuple')}"
        if p["type"].startswith("tuple")
        else p["type"]
        for p in parameters
    )


async def _compiled(toolchain: Toolchain) -> dict[str, Any]:
    sources = {path.name: path.read_text() for path in sorted(_SOURCES.glob("*.sol"))}
    request = json.dumps(
        {
            "language": "Solidity",
            "sources": {name: {"content": text} for name, text in sources.items()},
            "settings": {
                # The oldest fork that any chain we serve still runs; the tokens need nothing newer.
                "evmVersion": "paris",
                "optimizer": {"enabled": True, "runs": 200},
                "outputSelection": {"*": {"*": ["abi", "evm.bytecode.object"]}},
            },
        },
        sort_keys=True,
    ).encode()
    # The cache folder is named by the lock file, so the compiler's version is in the key already.
    cached = toolchain.cache_dir / f"solc-{hashlib.sha256(request).hexdigest()[:12]}.json"
    if not cached.is_file():
        output = await _run_solc(toolchain, request)
        _write_whole(cached, output)
    compiled = _read_json(cached)
    return {name: c for file in compiled["contracts"].values() for name, c in file.items()}


def _write_whole(path: Path, content: bytes) -> None:
    """Write so that another process sees the whole file or none."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.rename(path)


async def _run_solc(toolchain: Toolchain, request: bytes) -> bytes:
    process = await asyncio.create_subprocess_exec(
        toolchain.node,
        toolchain.node_modules / "solc" / "solc.js",
        "--standard-json",
        cwd=toolchain.cache_dir,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_COMPILE_TIMEOUT_S):
            output, complaints = await process.communicate(request)
    except TimeoutError as error:
        raise ToolchainError(f"solc did not finish in {_COMPILE_TIMEOUT_S:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    # solc-js greets on stdout before the JSON.
    output = output[max(output.find(b"{"), 0) :]
    try:
        errors = [e for e in json.loads(output).get("errors", ()) if e["severity"] == "error"]
    except ValueError as error:
        raise ToolchainError(f"solc said: {(complaints or output).decode(errors='replace')[-2000:]}") from error
    if errors:
        raise ToolchainError("\n".join(e["formattedMessage"] for e in errors))
    return output
