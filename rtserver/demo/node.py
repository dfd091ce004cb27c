"""One anvil process: how it is started, paused, killed, brought back and ended.

Knows nothing of contracts. The process is the native binary, never a wrapper, so that its pid is the node.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from .ports import LOOPBACK, free_port, is_port_free
from .process import Child
from .rpc import JsonRpc, NodeUnreachable
from .toolchain import Toolchain

__all__ = ["CHAIN_ID", "AnvilNode", "NodeFailed", "PortInUse"]

CHAIN_ID: Final = 31337
_START_TIMEOUT_S: Final = 20.0
_STOP_TIMEOUT_S: Final = 2.0
_POLL_S: Final = 0.01
_STOP_TAKES_S: Final = 1.0
# The whole deployment (500 transactions, about 150 M gas) fits in one block; a large limit costs nothing.
_BLOCK_GAS_LIMIT: Final = 3_000_000_000
# A free port can be taken between our look and the node's bind, with several test workers.
_PORT_ATTEMPTS: Final = 5


class NodeFailed(Exception):
    """The node ended or never answered; the message carries its own last words."""


class PortInUse(Exception):
    """Another process listens on the port that was asked for."""

    def __init__(self, port: int) -> None:
        super().__init__(f"port {port} on {LOOPBACK} is in use")
        self.port = port


class AnvilNode:
    """A local chain as an async context manager.

    Args:
        toolchain: Where the binary is.
        port: TCP port on 127.0.0.1; 0 picks a free one.
        block_time_s: Seconds between blocks; None mines only on `evm_mine`.
        accounts: Number of unlocked dev accounts, each with a billion ether.
        load_state: A file that `dump` wrote: the chain goes on where that one stood.
        genesis_timestamp: Unix seconds of block 0; None takes the clock.
        history_blocks: How many past states stay readable by block hash, in memory: 0.4 MB each here. None
            keeps anvil's own policy, which spills to disk and makes every block three times as slow.
        log_path: The node's output; a temporary file if None.
    """

    def __init__(
        self,
        toolchain: Toolchain,
        *,
        port: int = 0,
        block_time_s: float | None = None,
        chain_id: int = CHAIN_ID,
        accounts: int = 24,
        load_state: Path | None = None,
        genesis_timestamp: int | None = None,
        history_blocks: int | None = 600,
        log_path: Path | None = None,
        quiet: bool = True,
    ) -> None:
        self.chain_id = chain_id
        self.block_time_s = block_time_s
        self._toolchain = toolchain
        self._wanted_port = port
        self._accounts = accounts
        self._load_state = load_state
        self._genesis_timestamp = genesis_timestamp
        self._history_blocks = history_blocks
        self._quiet = quiet
        self._log_path = log_path
        self._port = port
        self._folder: Path | None = None
        self._process: Child | None = None
        self._client: JsonRpc | None = None

    async def __aenter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="rtserver-anvil-"))
        try:
            await self._start_on_some_port()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    @property
    def port(self) -> int:
        return self._port

    @property
    def http_url(self) -> str:
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def ws_url(self) -> str:
        return f"ws://{LOOPBACK}:{self._port}"

    @property
    def pid(self) -> int | None:
        """The node's process id while it runs, frozen or not."""
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def client(self) -> JsonRpc:
        """The node's own HTTP client; the same one across restarts."""
        if self._client is None:
            raise NodeUnreachable("the node was never started")
        return self._client

    async def rpc(self, method: str, params: Sequence[object] = ()) -> Any:
        """Return the result of one JSON-RPC call."""
        return await self.client.call(method, params)

    async def wait(self) -> int:
        """Return the exit code once the process ends, whoever ended it."""
        if self._process is None:
            raise NodeUnreachable("the node was never started")
        return await self._process.wait(poll_s=0.1)

    def said(self) -> str:
        """Return the end of the node's output."""
        return self._process.said() if self._process is not None else ""

    def freeze(self) -> None:
        """Stop the process where it stands: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)
        # A stop is not done when kill(2) returns: on a busy machine other threads go on for a moment.
        deadline = time.monotonic() + _STOP_TAKES_S
        while self._is_running() and time.monotonic() < deadline:
            os.sched_yield()

    def _is_running(self) -> bool:
        """Return whether any of the process's threads is not stopped, as far as /proc tells."""
        tasks = Path(f"/proc/{self.pid}/task")
        try:
            states = [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in tasks.iterdir()]
        except OSError:
            return False
        return any(state not in "Tt" for state in states)

    def thaw(self) -> None:
        """Let a frozen process go on; harmless on one that is not."""
        self._signal(signal.SIGCONT)

    async def kill(self) -> None:
        """End the process at once, as a crash would; its state since the last `dump` is gone."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            await self._process.wait()

    async def stop(self) -> None:
        """End the process; every connection to it closes. Does nothing if none runs."""
        if self._process is not None:
            await self._process.end(timeout_s=_STOP_TIMEOUT_S)

    async def dump(self, path: Path, *, with_history: bool = True) -> None:
        """Write all blocks and transactions for `load_state`, and the states of past blocks if wanted."""
        packed = await self.rpc("anvil_dumpState", [with_history])
        await asyncio.to_thread(_unpack_into, path, packed)

    async def restart(self) -> None:
        """End the process and start it again on the same port with the same chain.

        After `kill` the chain is the one of the last `dump` or `restart`, or the one it began with.
        """
        if self.pid is not None:
            self.thaw()
            saved = self._own_folder() / "state.json"
            await self.dump(saved)
            self._load_state = saved
            await self.stop()
        await self._start()

    async def set_block_time(self, block_time_s: float | None) -> None:
        """Mine every so many seconds from now on; None mines only on `evm_mine` again."""
        self.block_time_s = block_time_s
        if block_time_s is None or float(block_time_s).is_integer():
            await self.rpc("evm_setIntervalMining", [int(block_time_s or 0)])
        else:
            # The call takes whole seconds only; the command line takes fractions.
            await self.restart()

    async def _start_on_some_port(self) -> None:
        if self._wanted_port:
            if not is_port_free(self._wanted_port):
                raise PortInUse(self._wanted_port)
            return await self._start()
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            self._port = free_port()
            try:
                return await self._start()
            except PortInUse:
                if attempt == _PORT_ATTEMPTS:
                    raise
        return None

    async def _start(self) -> None:
        folder = self._own_folder()
        log = self._log_path or folder / "anvil.log"
        self._process = Child(self._command(folder), log=log)
        if self._client is None or self._client.url != self.http_url:
            if self._client is not None:
                await self._client.close()
            self._client = JsonRpc(self.http_url)
            self._client.open()
        await self._until_it_answers(self._process)

    async def _until_it_answers(self, process: Child) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            if process.returncode is not None:
                said = process.said()
                if "Address already in use" in said:
                    raise PortInUse(self._port)
                raise NodeFailed(f"anvil ended with code {process.returncode}: {said}")
            try:
                async with asyncio.timeout(1.0):
                    await self.rpc("eth_chainId")
                return
            except (NodeUnreachable, TimeoutError):
                if time.monotonic() > deadline:
                    await self.kill()
                    raise NodeFailed(f"anvil did not answer in {_START_TIMEOUT_S:.0f} s: {process.said()}") from None
            await asyncio.sleep(_POLL_S)

    def _command(self, folder: Path) -> list[str]:
        command = [str(self._toolchain.anvil), "--host", LOOPBACK, "--port", str(self._port)]
        command += ["--chain-id", str(self.chain_id), "--accounts", str(self._accounts)]
        # First come, first mined, for nothing: the order of a block is the order of sending.
        command += ["--order", "fifo", "--base-fee", "0", "--gas-price", "0", "--no-priority-fee"]
        command += ["--balance", "1000000000", "--gas-limit", str(_BLOCK_GAS_LIMIT)]
        # Old states go to our own folder, not to the user's home, and end with us.
        command += ["--cache-path", str(folder / "states"), "--threads", "2", "--color", "never"]
        command += ["--no-request-size-limit"]
        if self.block_time_s is None:
            command += ["--no-mining"]
        else:
            command += ["--block-time", f"{self.block_time_s:g}"]
        if self._load_state is not None:
            command += ["--load-state", str(self._load_state)]
        if self._genesis_timestamp is not None:
            command += ["--timestamp", str(self._genesis_timestamp)]
        # Two hours of one-second blocks; their transactions would otherwise stay in memory for ever.
        command += ["--transaction-block-keeper", "7200"]
        if self._history_blocks is not None:
            command += ["--prune-history", str(self._history_blocks)]
        if self._quiet:
            command += ["--quiet"]
        return command

    def _own_folder(self) -> Path:
        if self._folder is None:
            raise NodeUnreachable("the node was never started")
        return self._folder

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    async def _close(self) -> None:
        try:
            await self.stop()
            if self._client is not None:
                await self._client.close()
        finally:
            # Only left running if we are cancelled here: the process must not outlive us even then.
            if self._process is not None:
                self._process.kill_now()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)


def _unpack_into(path: Path, packed: str) -> None:
    path.write_bytes(gzip.decompress(bytes.fromhex(packed.removeprefix("0x"))))
