"""`rtserver tail`: one channel, live in the terminal. A table that is redrawn on a tty, lines everywhere else.

It listens and draws; what a state looks like is `render`'s.
"""

import asyncio
import time
from typing import Final

from rich.console import Console
from rich.live import Live

from ..client.client import RtClient
from ..client.errors import ConnectFailed
from ..client.events import Beat, BlockUpdate, Connected, Disconnected, Event, Update
from ..client.subscription import EventFeed
from ..domain.errors import ClientError, RtserverError
from .addresses import ws_url
from .render import HeadLine, plain_lines, table
from .stopping import stop_on_signals

__all__ = ["run_tail"]

# The age of the block moves on without any message.
_REDRAW_S: Final = 1.0


async def run_tail(url: str, channel: str, *, updates: int | None = None, console: Console | None = None) -> int:
    """Show a channel until Ctrl-C.

    Args:
        url: The server, ws(s)://host/ws or http(s)://host.
        channel: Such as `owner:31337:0x…`; addresses in any case.
        updates: End after so many updates; None for no end.
        console: Where to draw; the terminal if None.

    Returns:
        The exit status: 0, or 2 where the server or the channel can't be had.
    """
    console = console or Console()
    status = 0
    try:
        address = ws_url(url)
        with stop_on_signals() as stop:
            async with RtClient(address) as client:
                screen = _Screen(console, address)
                feed = client.events()
                screen.connection = "live"
                subscription = await client.subscribe(channel)
                screen.channel = subscription.channel
                async with asyncio.TaskGroup() as group:
                    follower = group.create_task(_follow(feed, screen, updates))
                    stopper = group.create_task(stop.wait())
                    clock = group.create_task(_tick(screen))
                    with screen:
                        await asyncio.wait({follower, stopper}, return_when=asyncio.FIRST_COMPLETED)
                    for task in (follower, stopper, clock):
                        task.cancel()
    except* RtserverError as errors:
        error: BaseException = errors
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        Console(stderr=True).print(f"rtserver tail: {_advice(error, channel)}", markup=False, soft_wrap=True)
        status = 2
    return status


def _advice(error: BaseException, channel: str) -> str:
    if isinstance(error, ConnectFailed):
        return f"{error}\nIs the server running, and is this its port? --url says where to look."
    if isinstance(error, ClientError):
        return f"{channel}: {error.message} ({error.code})"
    return str(error)


async def _follow(feed: EventFeed[Event], screen: "_Screen", updates: int | None) -> None:
    left = updates
    async for event in feed:
        if not screen.take(event) or left is None:
            continue
        left -= 1
        if left <= 0:
            return


async def _tick(screen: "_Screen") -> None:
    while True:
        await asyncio.sleep(_REDRAW_S)
        screen.draw()


class _Screen:
    """The picture, as a context manager: entered when there is something to draw."""

    def __init__(self, console: Console, url: str) -> None:
        self.channel = ""
        self.connection = "connecting"
        self._url = url
        self._console = console
        self._live: Live | None = None
        self._update: Update | None = None
        self._rollbacks = 0
        self._block_at: float | None = None
        self._block_hash = ""

    def __enter__(self) -> None:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")
            self._live.start()
        self.draw()

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def take(self, event: Event) -> bool:
        """Take an event; return whether it was an update of the channel."""
        mine: list[Update] = []
        match event:
            case Update():
                mine = [event]
            case BlockUpdate():
                self._rollbacks += event.rollback is not None
                mine = [update for update in event.changes if update.channel == self.channel]
            case Connected():
                self._say("live", "connected again")
            case Disconnected():
                words = f"disconnected ({event.reason}), again in {event.retry_in_s:.1f} s"
                self._say(words, words)
            case Beat(heads=heads):
                self._heard_heads({head.hash: head.age_ms / 1000 for head in heads.values()})
            case _:
                pass
        for update in mine:
            self._show(update)
        return bool(mine)

    def draw(self) -> None:
        """Draw the picture anew, where there is one."""
        if self._live is None or self._update is None:
            return
        line = HeadLine(
            channel=self.channel, url=self._url, connection=self.connection, is_live=self.connection == "live",
            age_s=None if self._block_at is None else time.monotonic() - self._block_at, rollbacks=self._rollbacks,
        )  # fmt: skip
        self._live.update(table(self._update, line), refresh=True)

    def _show(self, update: Update) -> None:
        self._update = update
        self.channel = update.channel
        if update.block.hash != self._block_hash:
            self._block_hash, self._block_at = update.block.hash, time.monotonic()
        if self._live is None and not self._console.is_terminal:
            for text in plain_lines(update):
                self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            self.draw()

    def _heard_heads(self, ages: dict[str, float]) -> None:
        if self._block_hash in ages:
            self._block_at = time.monotonic() - ages[self._block_hash]

    def _say(self, state: str, line: str) -> None:
        self.connection = state
        if self._live is None and not self._console.is_terminal:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self.draw()
