"""A Redis of a bench's own, on a free port, that keeps nothing."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from redis import Redis
from redis.exceptions import RedisError

from rtserver.demo.ports import free_port

__all__ = ["own_redis"]

_ANSWER_S: Final = 10.0


@contextmanager
def own_redis() -> Iterator[str]:
    """Run `redis-server`, which has to be on the PATH; lend its address once it answers.

    Raises:
        TimeoutError: It does not.
    """
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--logfile", "/dev/null"]
    with subprocess.Popen(command) as server:
        try:
            url = f"redis://127.0.0.1:{port}"
            _wait(url)
            yield url
        finally:
            server.terminate()


def _wait(url: str) -> None:
    until = time.monotonic() + _ANSWER_S
    with Redis.from_url(url) as client:
        while time.monotonic() < until:
            with suppress(RedisError, OSError):
                client.ping()
                return
            time.sleep(0.02)
    raise TimeoutError(f"redis-server does not answer within {_ANSWER_S:g} s")
