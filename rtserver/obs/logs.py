"""Structured logs: a stable event phrase with fields. Never a URL, never a token.

A log that can't be written (its disk is full, its reader is gone) stops nothing: what is lost is counted, and the
next line that can be written says how much that was.
"""

import json
import logging
import sys
from typing import Literal, TextIO

import structlog

__all__ = ["Lines", "LogFormat", "LogLevel", "configure_logs"]

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "json", "console"]


class Lines:
    """A stream of lines whose failures are not the writer's.

    Args:
        stream: Where they go.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lost = 0

    def write(self, line: str) -> None:
        """Write one line, or count it as lost."""
        try:
            if self._lost:
                said = {"event": "log lines were lost", "level": "warning", "lines": self._lost}
                self._stream.write(json.dumps(said) + "\n")
                self._stream.flush()
                self._lost = 0
            self._stream.write(line)
            self._stream.flush()
        except OSError:
            self._lost += 1

    def flush(self) -> None:
        """Do nothing: each line is out."""


def configure_logs(level: LogLevel, fmt: LogFormat, process: str | None = None) -> None:
    """Send logs to standard error, as JSON lines unless a person is watching; each names its process, if given."""
    if process is not None:
        structlog.contextvars.bind_contextvars(process=process)
    threshold = getattr(logging, level.upper())
    console = fmt == "console" or (fmt == "auto" and sys.stderr.isatty())
    renderer = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=Lines(sys.stderr)),  # type: ignore[arg-type] # all that it needs
        cache_logger_on_first_use=True,
    )
    # Libraries log request lines and URLs at INFO; URLs carry keys.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)
    for noisy in ("web3", "websockets", "aiohttp.access", "aiohttp.websocket"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
