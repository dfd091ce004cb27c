"""The servers of the fan-out bench: how to start each, what its clients say first, and how to install the peers.

Peers go into environments of their own in the cache folder, pinned; nothing of the project's changes. Only
nginx with its module comes from the system's packages.
"""

import hashlib
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.common_install import install_packages, node, packages_home, run_installer
from bench.fanout_process import cores, pinned
from rtserver.demo.toolchain import cache_root

__all__ = ["FLOOR", "OURS", "PEERS", "Contender", "install"]

_HERE: Final = Path(__file__).parent / "peers"
_PYTHON_PEERS: Final = ("picows==2.3.1", "fastapi==0.163.2", "uvicorn==0.54.0", "websockets", "uvloop")
_NCHAN_MODULE: Final = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
_NCHAN_PACKAGES: Final = ("nginx-light", "libnginx-mod-nchan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One server under test.

    Args:
        name: As the table shows it.
        module: The Python module that serves, or the file that Node runs.
        runs_on: `project`, `peers` (a Python environment of its own), `node` or `nginx`.
        path: Where clients connect.
        options: What the load generator needs to know to speak with it.
    """

    name: str
    module: str
    runs_on: str = "project"
    path: str = "/ws"
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def command(self, port: int) -> list[str]:
        """Return how to start it on a port."""
        match self.runs_on:
            case "project":
                return [sys.executable, "-m", self.module, str(port)]
            case "peers":
                return [str(_python_home() / "bin" / "python"), "-m", self.module, str(port)]
            case "nginx":
                # What is started here is the publisher; nginx itself is its child, on the servers' core.
                return [sys.executable, "-m", self.module, str(port), *pinned(cores()[0])]
            case _:
                return [str(node()), str(_HERE / self.module), str(port)]


FLOOR: Final = Contender(name="floor", module="bench.peers.floor")
OURS: Final = Contender(
    name="rtserver", module="bench.fanout_rtserver", options=("--marker", '"timestamp":'),
)  # fmt: skip


def _python_home() -> Path:
    digest = hashlib.sha256(" ".join(_PYTHON_PEERS).encode()).hexdigest()[:12]
    return cache_root() / f"bench-peers-python-{digest}"


def _node_peer(name: str, module: str, path: str = "/", options: tuple[str, ...] = ()) -> Contender:
    environment = {"PEERS_MODULES": str(packages_home(_HERE) / "node_modules")}
    return Contender(name=name, module=module, runs_on="node", path=path, options=options, environment=environment)


PEERS: Final = (
    Contender(name="aiohttp send_str", module="bench.peers.aiohttp_send"),
    Contender(name="websockets.broadcast", module="bench.peers.websockets_broadcast", path="/"),
    Contender(name="picows", module="bench.peers.picows_send", runs_on="peers", path="/"),
    Contender(name="FastAPI + uvicorn", module="bench.peers.fastapi_send", runs_on="peers"),
    _node_peer("ws (Node)", "ws_send.mjs"),
    # Its clients join the namespace first, and are in once both packets have come back.
    _node_peer(
        "socket.io",
        "socketio_emit.mjs",
        "/socket.io/?EIO=4&transport=websocket",
        ("--hello", "40", "--greetings", "2"),
    ),
    Contender(name="nchan", module="bench.peers.nchan_publish", runs_on="nginx"),
)


def _has_nchan() -> bool:
    return shutil.which("nginx") is not None and _NCHAN_MODULE.exists()


async def install(contenders: Sequence[Contender], tell: Callable[[str], None]) -> None:
    """Install whatever these servers need and is not there yet.

    Raises:
        RuntimeError: A package manager failed; the message has its last words.
    """
    kinds = {contender.runs_on for contender in contenders}
    if "peers" in kinds and not (_python_home() / "complete").exists():
        tell(f"installing {', '.join(_PYTHON_PEERS)}")
        home = _python_home()
        await run_installer(sys.executable, "-m", "venv", "--clear", str(home))
        python = str(home / "bin" / "python")
        await run_installer(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *_PYTHON_PEERS)
        (home / "complete").touch()
    if "node" in kinds:
        await install_packages(_HERE, tell)
    if "nginx" in kinds and not _has_nchan():
        tell(f"installing {', '.join(_NCHAN_PACKAGES)}")
        # The package would start a server of its own on port 80.
        # RUNLEVEL is read by invoke-rc.d: start nothing while packages are configured.
        environment = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        command = ("apt-get", "install", "-y", "-qq", "--no-install-recommends", *_NCHAN_PACKAGES)
        await run_installer(*command, environment=environment)
