"""Ctrl-C as an event, so that a tool can end with its summary instead of a traceback."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["stop_on_signals"]


@contextmanager
def stop_on_signals() -> Iterator[asyncio.Event]:
    """Set the event at the first SIGINT or SIGTERM; the second one acts as it does without us.

    Outside the main thread, where signals can't be heard, the event is never set.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    heard: list[signal.Signals] = []

    def forget() -> None:
        while heard:
            loop.remove_signal_handler(heard.pop())

    def end() -> None:
        stop.set()
        forget()

    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, end)
        except (NotImplementedError, ValueError, RuntimeError):
            break
        heard.append(number)
    try:
        yield stop
    finally:
        forget()
