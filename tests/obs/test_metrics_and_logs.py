"""Metrics in one registry a process; logs as JSON lines on standard error, without library chatter."""

import json
import logging
import subprocess
import sys

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
