"""Structured logs: a stable event phrase with fields. Never a URL, never a token."""

import logging
import sys
from typing import Literal

import structlog

__all__ = ["LogFormat", "LogLevel", "configure_logs"]

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "json", "console"]


def configure_logs(level: LogLevel, fmt: LogFormat) -> None:
    """Send logs to standard error, as JSON lines unless a person is watching."""
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
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Libraries log request lines and URLs at INFO; URLs carry keys.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)
    for noisy in ("web3", "websockets", "aiohttp.access", "aiohttp.websocket"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
