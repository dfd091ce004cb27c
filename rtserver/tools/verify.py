"""`rtserver verify`: connects as any client does and compares everything it is told with the chain itself.

It joins the parts: a client, the capture of what it shows at each block, the audit against the node, the
report. Watching goes at the chain's pace and checking at its own; a bounded queue lies between.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from rich.console import Console

from ..chain.rpc import HttpEndpoint, WsEndpoint
from ..client.client import RtClient
from ..client.errors import SubscribeTimeout
from ..client.events import BlockUpdate, Connected, Disconnected, Event, Failed, Mismatch, Update
from ..client.subscription import EventFeed
from ..domain.errors import ClientError, PermanentError, RtserverError
from ..domain.ids import Address, ChainId
from ..protocols.addresses import parse_address
from ..protocols.channels import HeadChannel, OwnerChannel, PoolChannel
from .addresses import http_base, ws_url
from .audit import Audit
from .capture import Capture, Job
from .compare import Difference
from .deployment import Deployment, fetch_deployment
from .report import Report
from .staking import StakerTruth
from .stopping import stop_on_signals
from .truth import BlockGone, Truth

__all__ = ["run_verify"]

# Captures hold references, not copies, so the bound is for a node that never catches up.
_MAX_BACKLOG: Final = 512
# Subscribes in flight: the client paces them anyway, this keeps their timeouts meaningful.
_AT_ONCE: Final = 8
# A feed that loses events would leave gaps in what is checked; a frame waits here for microseconds.
_FEED_LIMIT: Final = 1 << 16
_ENUMERATION_ATTEMPTS: Final = 5


class _Stalled(PermanentError):
    """The chain does not move."""


async def run_verify(
    *,
    url: str,
    rpc: str,
    owners: Sequence[str] = (),
    everything: bool = False,
    blocks: int | None = 20,
    limit: int = 10_000,
    as_json: bool = False,
    position_manager: str | None = None,
    factory: str | None = None,
    patience_s: float = 120.0,
    out: Console | None = None,
    err: Console | None = None,
) -> int:
    """Verify a server and print what was found.

    Args:
        url: The server, http(s):// or ws(s)://.
        rpc: A node of the same chain.
        owners: Owners whose positions are verified.
        everything: Verify every position of the deployment.
        blocks: How many blocks to watch; None or 0: until Ctrl-C.
        limit: Most positions that `everything` takes on.
        as_json: Print the summary as JSON.
        position_manager, factory: The deployment, where the server's word for it shall not do.
        patience_s: How long a silent node, or a chain without a new block, is waited for.
        out, err: Where to print; the terminal if None.

    Returns:
        The exit status: 0 all equal, 1 a difference, 2 it could not be verified.
    """
    out = out or Console()
    err = err or Console(stderr=True)
    endpoint = (WsEndpoint if rpc.startswith("ws") else HttpEndpoint)(rpc, timeout_s=30.0)
    try:
        if not everything and not owners:
            raise PermanentError("what shall be verified? give --owner 0x… (repeatable) or --all")
        if not rpc.startswith(("http://", "https://", "ws://", "wss://")):
            raise PermanentError(f"--rpc must be the URL of a node, http(s):// or ws(s)://, got {rpc[:60]!r}")
        parsed = [parse_address(owner, what="--owner") for owner in owners]
        chain_id = await Truth(endpoint, Address(""), Address(""), patience_s=5.0).chain_id()
        deployment = await fetch_deployment(http_base(url), chain_id, position_manager, factory)
        truth = Truth(endpoint, deployment.manager, deployment.factory, patience_s=patience_s)
        with Report(out, err, blocks or None, as_json=as_json) as report:
            run = _Run(ws_url(url), truth, deployment, report, everything=everything, limit=limit)
            return await run.go(parsed, blocks or None, patience_s)
    except RtserverError as error:
        err.print(f"rtserver verify: {error}", markup=False, highlight=False, soft_wrap=True)
        return 2
    finally:
        await endpoint.close()


class _Run:
    """One verification."""

    def __init__(
        self, url: str, truth: Truth, deployment: Deployment, report: Report, *, everything: bool, limit: int
    ) -> None:
        self._url = url
        self._truth = truth
        self._chain_id = ChainId(deployment.chain_id)
        self._everything = everything
        self._limit = limit
        self._report = report
        self._capture = Capture(deployment.chain_id, deployment.protocol)
        staker = deployment.staker
        self._staker = None if staker is None else StakerTruth(truth, deployment.manager, staker)
        self._audit = Audit(
            truth, deployment.chain_id, deployment.protocol, everything=everything, limit=limit,
            on_difference=report.difference, on_owner=self._found_owner, staker=self._staker,
        )  # fmt: skip
        self._jobs: asyncio.Queue[Job | None] = asyncio.Queue(_MAX_BACKLOG)
        self._wanted: asyncio.Queue[str] = asyncio.Queue()
        self._asked: set[str] = set()
        self._is_ready = False

    async def go(self, owners: Sequence[Address], blocks: int | None, patience_s: float) -> int:
        """Run to the end and return the exit status."""
        began = time.monotonic()
        tally = self._audit.tally
        problem: RtserverError | None = None
        with stop_on_signals() as stop:
            async with RtClient(self._url, subscribe_timeout_s=60.0) as client:
                feed = client.events(limit=_FEED_LIMIT)
                try:
                    async with asyncio.TaskGroup() as group:
                        checker = group.create_task(self._check())
                        joiner = group.create_task(self._join(client, owners))
                        watcher = group.create_task(self._watch(feed, blocks, patience_s))
                        stopper = group.create_task(stop.wait())
                        await asyncio.wait({watcher, stopper}, return_when=asyncio.FIRST_COMPLETED)
                        for task in (watcher, stopper, joiner):
                            task.cancel()
                        await self._jobs.put(None)
                        await checker
                except* RtserverError as errors:
                    problem = _first(errors)
                stats = client.stats
        if tally.values:
            seconds = time.monotonic() - began
            self._report.summary(tally, stats, seconds, self._truth.calls, is_whole=problem is None)
        if tally.differences:
            return 1
        if problem is not None:
            raise problem
        if not tally.values:
            raise PermanentError("nothing was compared: the owners have no positions, or no block was left to check")
        return 0

    # --- watching --------------------------------------------------------------------------------------

    async def _watch(self, feed: EventFeed[Event], blocks: int | None, patience_s: float) -> None:
        """Take down every frame until enough blocks were seen."""
        seen = 0
        heard_at = time.monotonic()
        while True:
            try:
                async with asyncio.timeout(max(heard_at + patience_s - time.monotonic(), 0)):
                    event = await anext(feed)
            except TimeoutError:
                raise _Stalled(
                    f"no new block for {patience_s:g} s: does the chain move, and is the server ready?"
                ) from None
            match event:
                case Update():
                    self._put(self._capture.take(event))
                case BlockUpdate():
                    is_last = self._is_ready and blocks is not None and seen + 1 >= blocks
                    job = self._capture.take_block(event, everything=is_last)
                    if job is not None and job.is_block:
                        heard_at = time.monotonic()
                        seen += self._is_ready
                        # Blocks before everything is subscribed are checked all the same.
                    self._put(job)
                    if job is not None and job.is_block and is_last:
                        return
                case Mismatch():
                    self._audit.note(
                        Difference(
                            what=event.channel, field="checksum", block=event.block.number,
                            block_hash=event.block.hash, ours=str(event.ours), chain=f"{event.theirs} (the server's)",
                        )
                    )  # fmt: skip
                case Disconnected():
                    self._report.say(f"disconnected: {event.reason}; again in {event.retry_in_s:.1f} s")
                case Connected() if event.again:
                    self._report.say("connected again")
                case Failed() if not event.names:
                    self._report.say(f"the server reports: {event.error}")
                case _:
                    pass

    def _put(self, job: Job | None) -> None:
        if job is None or not (job or job.is_block):
            return
        if self._jobs.full():
            self._audit.tally.late += 1
        else:
            self._jobs.put_nowait(job)

    # --- checking --------------------------------------------------------------------------------------

    async def _check(self) -> None:
        """Check captures in order until the last one."""
        while (job := await self._jobs.get()) is not None:
            await self._audit.check(job)
            for channel, token_id, entry in job.positions:
                del channel, token_id
                if self._is_ready and isinstance(pool := entry.get("pool"), str):
                    self._want(PoolChannel(self._chain_id, Address(pool.lower())).name)
            self._report.progress(self._audit.tally, job.number, self._jobs.qsize())

    # --- subscribing -----------------------------------------------------------------------------------

    async def _join(self, client: RtClient, owners: Sequence[Address]) -> None:
        """Subscribe to everything that is to be verified, and then to what turns up."""
        head = await client.subscribe(HeadChannel(self._chain_id).name)
        assert head.newest is not None
        wanted = set(owners)
        if self._everything:
            wanted |= await self._enumerate(client)
        names = [
            HeadChannel(self._chain_id).name,
            *(OwnerChannel(self._chain_id, owner).name for owner in sorted(wanted)),
        ]
        self._asked.update(names)
        gate = asyncio.Semaphore(_AT_ONCE)

        async def join_one(name: str) -> None:
            async with gate:
                await self._subscribe(client, name)

        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(join_one(name))
        self._is_ready = True
        self._report.say(f"watching {len(names)} owners")
        while True:
            await self._subscribe(client, await self._wanted.get())

    async def _enumerate(self, client: RtClient) -> set[Address]:
        """Return the holders of all NFTs at a block that the server has published, and for whom the staker holds."""
        for attempt in range(_ENUMERATION_ATTEMPTS):
            newest = client.states[HeadChannel(self._chain_id).name]["head"]
            try:
                owners = set((await self._truth.holders(str(newest["hash"]), self._limit)).values())
                if self._staker is not None:
                    owners |= (await self._staker.deposited_by(str(newest["hash"]))).keys()
                return owners
            except BlockGone:
                if attempt + 1 == _ENUMERATION_ATTEMPTS:
                    raise
                await asyncio.sleep(1.0)  # the node may lag behind the one that the server follows
        raise AssertionError("unreachable")

    async def _subscribe(self, client: RtClient, name: str) -> None:
        """Subscribe; nobody reads the subscription, as the feed of events tells all of it in order."""
        try:
            await client.subscribe(name, queue_limit=1)
        except (ClientError, SubscribeTimeout) as error:
            if name.startswith("pool:"):
                self._report.say(f"{name} is not verified: {error}")
                return
            raise PermanentError(f"can't watch {name}: {error}") from error

    def _found_owner(self, owner: Address) -> None:
        if self._is_ready:
            self._want(OwnerChannel(self._chain_id, owner).name)

    def _want(self, name: str) -> None:
        if name not in self._asked:
            self._asked.add(name)
            self._wanted.put_nowait(name)


def _first(errors: BaseExceptionGroup[RtserverError]) -> RtserverError:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, RtserverError)
    return error
