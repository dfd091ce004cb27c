"""A Redis of a bench's own, on a free port, that keeps nothing."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from rtserver.demo.ports import free_port

__all__ = ["own_redis"]


@contextmanager
def own_redis() -> Iterator[str]:
    """Run `redis-server`, which has to be on the PATH; lend its address."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--logfile", "/dev/null"]
    with subprocess.Popen(command) as server:
        try:
            yield f"redis://127.0.0.1:{port}"
        finally:
            server.terminate()
