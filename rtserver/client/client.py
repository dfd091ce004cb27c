"""The client: one socket, its tasks and its listeners around the `Session` that decides everything.

    async with RtClient("ws://127.0.0.1:8080/ws") as client:
        subscription = await client.subscribe("owner:31337:0x…")
        async for update in subscription:
            print(update.block.number, update.state)

It connects, sends, receives and comes back with a delay; it never looks into a channel's state.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from ..domain.diff import State
from ..domain.errors import ClientError
from ..wire.codes import CloseCode
from .errors import ConnectFailed, ConnectionEnded, SubscribeTimeout, public_url
from .events import BlockUpdate, Connected, Disconnected, Event, Failed, Stats, Update
from .retry import STABLE_S, Backoff
from .session import SILENCE_GRACE_S, Session
from .subscription import FEED_LIMIT, QUEUE_LIMIT, EventFeed, Subscription

__all__ = ["RtClient"]

# A frame with every position of a large owner: 9,000 of them are about 9 MB.
_MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
_ABNORMAL: Final = 1006
# A server that is going away should not hold up ours.
_CLOSE_TIMEOUT_S: Final = 1.0


class RtClient:
    """A connection that heals itself, as an async context manager.

    Entering connects and raises `ConnectFailed` if there is no server; later drops are healed by coming back.
    Where the server forbids that, every iterator raises `ConnectionEnded`.

    Args:
        url: The server's socket, `ws://host:port/ws`.
        token: Sent with `auth`, where the server wants one.
        open_timeout_s: For the socket to open and the server to welcome us.
        subscribe_timeout_s: For the first state of a channel.
        send_timeout_s: For one message to be taken by the socket.
        grace_s: Silence beyond the heartbeat's interval after which the connection counts as dead.
        queue_limit: How many updates of a subscription may wait; see `Subscription` for what happens then.
        backoff: Delays between attempts to come back.
        clock: Monotonic seconds.
        sleep: Waits between attempts.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        open_timeout_s: float = 10.0,
        subscribe_timeout_s: float = 30.0,
        send_timeout_s: float = 10.0,
        grace_s: float = SILENCE_GRACE_S,
        queue_limit: int = QUEUE_LIMIT,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._url = url
        self._open_timeout_s = open_timeout_s
        self._subscribe_timeout_s = subscribe_timeout_s
        self._send_timeout_s = send_timeout_s
        self._queue_limit = queue_limit
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._sleep = sleep
        self._session = Session(token=token, grace_s=grace_s)
        self._wake = asyncio.Event()
        self._group = asyncio.TaskGroup()
        self._task: asyncio.Task[None] | None = None
        self._is_connected = False
        self._ended: Exception | None = None
        # By the spelling asked for until the server answers, then by the server's.
        self._opening: list[Subscription] = []
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._feeds: list[EventFeed[Event] | EventFeed[BlockUpdate]] = []

    async def __aenter__(self) -> Self:
        socket, events = await self._open()
        self._dispatch(events)
        await self._group.__aenter__()
        self._task = self._group.create_task(self._run(socket))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
        try:
            # Not the body's error: the group would wrap it into an ExceptionGroup.
            await self._group.__aexit__(None, None, None)
        finally:
            self._end(None)

    # --- what there is to know -------------------------------------------------------------------------

    @property
    def stats(self) -> Stats:
        """Return the counters; live, not a copy."""
        return self._session.stats

    @property
    def is_connected(self) -> bool:
        """Return whether the server has welcomed the current connection."""
        return self._is_connected

    @property
    def checksum_ok(self) -> bool:
        """Return whether no copy's newest checksum is wrong."""
        return self._session.checksum_ok

    @property
    def states(self) -> Mapping[str, State]:
        """Return the newest state of every channel by the server's spelling."""
        return {channel: replica.state for channel, replica in self._session.replicas.items()}

    # --- listening -------------------------------------------------------------------------------------

    async def subscribe(self, channel: str, *, queue_limit: int | None = None) -> Subscription:
        """Watch a channel; returns once its first state is there, which is also the first update.

        Raises:
            TypeError: The channel is no text.
            ClientError: The server refused; `code` is the protocol's.
            SubscribeTimeout: No answer in time.
            ConnectionEnded: The server ended the connection for good.
        """
        if not isinstance(channel, str):
            raise TypeError(f"a channel is a text such as 'owner:1:0x…', not {type(channel).__name__}")
        if self._ended is not None:
            raise self._ended
        subscription = Subscription(channel, queue_limit or self._queue_limit, self._leave)
        known = self._session.want(channel, self._clock())
        if known is not None:
            self._subscriptions.setdefault(known.channel, []).append(subscription)
            subscription.put(known)
            return subscription
        self._opening.append(subscription)
        self._wake.set()
        try:
            async with asyncio.timeout(self._subscribe_timeout_s):
                await subscription.opened()
        except TimeoutError:
            subscription.close()
            raise SubscribeTimeout(channel, self._subscribe_timeout_s) from None
        except BaseException:
            subscription.close()
            raise
        return subscription

    def events(self, *, limit: int = FEED_LIMIT) -> EventFeed[Event]:
        """Return everything that happens from now on, in order, over all channels."""
        feed: EventFeed[Event] = EventFeed(limit, lambda event: event, self._feeds.remove)
        self._feeds.append(feed)
        self._end_if_over(feed)
        return feed

    def blocks(self, *, limit: int = FEED_LIMIT) -> EventFeed[BlockUpdate]:
        """Return the block frames from now on: one item a frame, with the changes of all channels in it."""
        feed: EventFeed[BlockUpdate] = EventFeed(
            limit, lambda event: event if isinstance(event, BlockUpdate) else None, self._feeds.remove
        )
        self._feeds.append(feed)
        self._end_if_over(feed)
        return feed

    def _end_if_over(self, feed: EventFeed[Event] | EventFeed[BlockUpdate]) -> None:
        if self._ended is not None:
            feed.end(self._ended)

    def _leave(self, subscription: Subscription) -> None:
        for listeners in (self._opening, self._subscriptions.get(subscription.channel, [])):
            if subscription in listeners:
                listeners.remove(subscription)
        others = (*self._opening, *(each for listeners in self._subscriptions.values() for each in listeners))
        if all(other.name != subscription.name for other in others):
            self._session.drop(subscription.name)
            self._wake.set()

    # --- the connection --------------------------------------------------------------------------------

    async def _run(self, first: ClientConnection) -> None:
        """Serve one connection after the other until the server forbids it or the client is closed."""
        socket: ClientConnection | None = first
        while True:
            after_s: float | None = None
            if socket is None:
                try:
                    socket, events = await self._open()
                except ConnectFailed as error:
                    reason, code = error.reason, None
                except ConnectionEnded as error:
                    return self._end(error)
                else:
                    self._dispatch(events)
            if socket is not None:
                opened_at = self._clock()
                reason, code, after_s, is_final = await self._serve(socket)
                socket = None
                if is_final:
                    return self._end(ConnectionEnded(code or _ABNORMAL, reason))
                if self._clock() - opened_at >= STABLE_S:
                    self._backoff.reset()
            # A server that goes away on purpose spreads its clients itself.
            delay_s = self._backoff.next_s() if after_s is None else after_s
            self._dispatch([Disconnected(reason=reason, code=code, retry_in_s=delay_s)])
            await self._sleep(delay_s)

    async def _open(self) -> tuple[ClientConnection, list[Event]]:
        """Return a welcomed socket and what the welcome meant."""
        try:
            async with asyncio.timeout(self._open_timeout_s):
                socket = await connect(
                    self._url, compression=None, max_size=_MAX_MESSAGE_BYTES, open_timeout=None,
                    close_timeout=_CLOSE_TIMEOUT_S, ping_interval=None,
                )  # fmt: skip
                try:
                    return socket, await self._welcome(socket)
                except BaseException:
                    socket.transport.abort()
                    raise
        except InvalidStatus as error:
            status = error.response.status_code
            raise ConnectFailed(self._url, f"HTTP {status} instead of a WebSocket", status=status) from error
        except ConnectionClosed as error:
            code = error.rcvd.code if error.rcvd is not None else _ABNORMAL
            reason = error.rcvd.reason if error.rcvd is not None else ""
            if _is_final(code):
                raise ConnectionEnded(code, reason) from error
            raise ConnectFailed(self._url, f"closed before the welcome with {code}") from error
        except TimeoutError as error:
            raise ConnectFailed(self._url, f"no welcome within {self._open_timeout_s:g} s") from error
        except (WebSocketException, OSError, EOFError) as error:
            raise ConnectFailed(self._url, _words(error)) from error

    async def _welcome(self, socket: ClientConnection) -> list[Event]:
        self._session.connected(self._clock())
        events: list[Event] = []
        while not any(isinstance(event, Connected) for event in events):
            events += self._session.receive(await socket.recv(), self._clock())
            if (bye := self._session.bye) is not None and not bye.reconnect:
                raise ConnectionEnded(bye.code, "bye")
            for event in events:
                if isinstance(event, Failed):
                    raise ConnectionEnded(CloseCode.BAD_FRAME, event.error.message)
        return events

    async def _serve(self, socket: ClientConnection) -> tuple[str, int | None, float | None, bool]:
        """Run one connection to its end; return (reason, close code, seconds to wait if told, is it final)."""
        self._is_connected = True
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._write(socket))
                await self._read(socket)
                writer.cancel()
            bye = self._session.bye
        finally:
            self._is_connected = False
            self._session.disconnected(self._clock())
            await socket.close()
        if bye is not None:
            after_s = bye.after_ms / 1000 if bye.after_ms else None
            return f"bye {bye.code}", bye.code, after_s, not bye.reconnect
        code = socket.close_code
        reason = socket.close_reason or ("the connection broke" if code in (None, _ABNORMAL) else f"closed with {code}")
        return reason, code, None, code is not None and _is_final(code)

    async def _read(self, socket: ClientConnection) -> None:
        """Hand messages to the session until the socket is closed or the server says goodbye."""
        while self._session.bye is None:
            try:
                data = await socket.recv()
            except ConnectionClosed:
                return
            self._dispatch(self._session.receive(data, self._clock()))
            self._wake.set()

    async def _write(self, socket: ClientConnection) -> None:
        """Send what the session wants sent, wake it in time, and cut the connection when it is dead."""
        session = self._session
        while True:
            now = self._clock()
            session.tick(now)
            if session.is_silent(now):
                socket.transport.abort()
                return
            for message in session.outbox.take(now):
                try:
                    async with asyncio.timeout(self._send_timeout_s):
                        await socket.send(message, text=True)
                except ConnectionClosed:
                    return
                except TimeoutError:
                    socket.transport.abort()
                    return
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(session.next_at(now) - now):
                    await self._wake.wait()

    # --- telling ---------------------------------------------------------------------------------------

    def _dispatch(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, Update):
                self._tell(event)
            elif isinstance(event, BlockUpdate):
                for update in event.changes:
                    self._tell(update)
            elif isinstance(event, Failed):
                self._fail(event.names, event.error)
            for feed in list(self._feeds):
                feed.offer(event)

    def _tell(self, update: Update) -> None:
        for subscription in [each for each in self._opening if self._is_for(each, update)]:
            self._opening.remove(subscription)
            self._subscriptions.setdefault(update.channel, []).append(subscription)
        for subscription in self._subscriptions.get(update.channel, ()):
            subscription.put(update)

    def _is_for(self, subscription: Subscription, update: Update) -> bool:
        replica = self._session.replica(subscription.name)
        return replica is not None and replica.channel == update.channel

    def _fail(self, names: frozenset[str], error: ClientError) -> None:
        for listeners in (self._opening, *self._subscriptions.values()):
            for subscription in [each for each in listeners if each.name in names]:
                listeners.remove(subscription)
                subscription.end(error)

    def _end(self, error: Exception | None) -> None:
        """Let every listener have what is left, and then the error or the end."""
        self._ended = self._ended or error or ConnectionEnded(1000, f"the client of {public_url(self._url)} was closed")
        for subscription in [*self._opening, *(each for some in self._subscriptions.values() for each in some)]:
            subscription.end(error)
        for feed in self._feeds:
            feed.end(error)
        self._opening.clear()
        self._subscriptions.clear()
        self._feeds.clear()


def _is_final(code: int) -> bool:
    return 4500 <= code <= 4999


def _words(error: Exception) -> str:
    """Return an error for a person; connecting to several addresses at once gathers several errors."""
    if isinstance(error, ConnectionRefusedError) or "Connect call failed" in str(error):
        return "connection refused, nothing listens there"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
