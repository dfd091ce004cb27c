"""Metrics in one registry a process; logs as JSON lines on standard error, without library chatter."""

import errno
import io
import json
import logging
import os
import subprocess
import sys

from rtserver.obs.logs import Lines
from rtserver.obs.metrics import Metrics


def test_metrics_are_a_registry_of_their_own() -> None:
    first, second = Metrics(), Metrics()
    first.frames.inc(3)
    first.rpc_calls.labels("ethereum", "block", "eth_call").inc()
    text = first.render().decode()
    assert "rtserver_frames_total 3.0" in text
    assert 'rtserver_rpc_calls_total{chain="ethereum",method="eth_call",purpose="block"} 1.0' in text
    assert "rtserver_frames_total 0.0" in second.render().decode()


def test_every_metric_is_ours_and_explained() -> None:
    for family in Metrics().registry.collect():
        assert family.name.startswith("rtserver_")
        assert family.documentation


def test_logs_are_json_lines_and_urls_stay_out() -> None:
    code = """
import logging, structlog
from rtserver.obs.logs import configure_logs
configure_logs("info", "json")
log = structlog.get_logger()
log.debug("hidden")
log.info("block taken", chain="test", block=5)
try:
    1 / 0
except ZeroDivisionError:
    log.exception("request failed")
logging.getLogger("web3.providers").warning("wss://node/secret")
logging.getLogger("websockets.client").error("wss://node/secret")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == ""
    first, second = map(json.loads, done.stderr.splitlines())
    assert (first["event"], first["level"], first["chain"], first["block"]) == ("block taken", "info", "test", 5)
    assert first["timestamp"].endswith("Z")
    assert "ZeroDivisionError" in second["exception"]
    assert logging.getLogger("web3").level != logging.CRITICAL, "only the child process was configured"


def test_a_log_that_can_not_be_written_stops_nothing() -> None:
    """Neither a full disk nor a reader that is gone; the latter is what `rtserver serve 2>&1 | less` leaves behind."""
    code = """
import structlog
from rtserver.obs.logs import configure_logs
configure_logs("info", "json")
log = structlog.get_logger()
log.warning("lost")
log.warning("lost as well")
print("alive", flush=True)
"""
    command = [sys.executable, "-c", code]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, text=True, timeout=30)
    assert done.stdout == "alive\n"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=writer, text=True, timeout=30)
    os.close(writer)
    assert done.stdout == "alive\n"


def test_what_was_lost_is_told_with_the_next_line() -> None:
    class Disk(io.StringIO):
        is_full = True

        def flush(self) -> None:
            if self.is_full:
                self.seek(0)
                self.truncate()
                raise OSError(errno.ENOSPC, "No space left on device")

    disk = Disk()
    lines = Lines(disk)
    lines.write("one\n")
    lines.write("two\n")
    disk.is_full = False
    lines.write("three\n")
    lines.write("four\n")
    told, *rest = disk.getvalue().splitlines()
    assert json.loads(told) == {"event": "log lines were lost", "level": "warning", "lines": 2}
    assert rest == ["three", "four"]


def test_memory_in_use_is_told_apart_from_memory_that_is_held() -> None:
    registry = Metrics().registry
    resident, blocks = (registry.get_sample_value(f"rtserver_{name}") for name in ("resident_bytes", "memory_blocks"))
    assert resident is not None and blocks is not None
    if sys.platform == "linux":
        assert resident > 10_000_000
    held = [object() for _ in range(50_000)]
    more = registry.get_sample_value("rtserver_memory_blocks")
    assert more is not None and more - blocks > 40_000
    del held
