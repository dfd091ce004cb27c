"""The whole stage of a soak and its run: chain, proxies, two servers, their clients, and one round after the other.

One server is killed, ended and stopped as the plan says; the other lives from the beginning to the end, through all
other faults: its memory is what is measured.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from faults.proxy import FaultProxy

from rtserver.chain.rpc import HttpEndpoint
from rtserver.demo.contracts import Contracts
from rtserver.demo.toolchain import Toolchain
from rtserver.domain.errors import RtserverError
from rtserver.domain.ids import Address, ChainId, TokenId
from rtserver.protocols.channels import HeadChannel, OwnerChannel, PoolChannel, PositionChannel, RewardsChannel
from rtserver.tools.audit import Audit
from rtserver.tools.capture import Capture
from rtserver.tools.staking import StakerTruth
from rtserver.tools.truth import Truth

from .account import Account, spread
from .clients import LatestClient, WishClient
from .faults import Faults
from .memory import kept_of
from .plan import PROXIES, Round, rounds
from .quiet import PATIENCE_S, Checker, Outcome
from .served import SoakServer
from .world import SoakChain, open_chain

__all__ = ["Stage", "compared", "enter", "open_stage", "soak"]

_KIND: Final = "uniswap-v3"
_LIMIT: Final = 10_000
_KNOWN_IDS: Final = 4
_COMING_IDS: Final = (1, 2, 3, 5, 8, 13, 21, 34)
_SAMPLE_S: Final = 2.0
# Samples of its memory for one of what it keeps.
_KEPT_EVERY: Final = 5
_PROGRESS_S: Final = 60.0
# More rounds with differences find the same one again, and more of one round say no more about it.
_MOST_WRONG_ROUNDS: Final = 5
_TOLD_A_ROUND: Final = 10
# A fault that was not undone by then hangs, and that is a finding.
_ROUND_LIMIT_S: Final = 90.0
# Blocks after the faults, in rounds that go on.
_GOING_ON: Final = 3


@dataclass(slots=True)
class Stage:
    """What faults are done to; the first server is the one that is also killed."""

    chain: SoakChain
    proxies: Sequence[FaultProxy]
    servers: Sequence[SoakServer]
    checker: Checker

    @property
    def roving(self) -> SoakServer:
        return self.servers[0]

    @property
    def steady(self) -> SoakServer:
        return self.servers[-1]


@asynccontextmanager
async def open_stage(toolchain: Toolchain, contracts: Contracts, *, seed: int, folder: Path) -> AsyncIterator[Stage]:
    """Build everything and wait until all clients are there."""
    rng = random.Random(seed)
    async with AsyncExitStack() as stack:
        chain = await stack.enter_async_context(open_chain(toolchain, contracts, seed=seed))
        proxies = [
            await stack.enter_async_context(
                FaultProxy(chain.gate.http_url, chain.gate.ws_url, random.Random(seed + index))
            )
            for index in range(PROXIES)
        ]
        deployment = chain.lab.deployment
        chain_id = ChainId(deployment.chain_id)
        head = HeadChannel(chain_id).name
        owners = [OwnerChannel(chain_id, Address(owner)).name for owner in deployment.owners]
        pools = [PoolChannel(chain_id, Address(pool.address)).name for pool in deployment.pools]
        rewards = [RewardsChannel(chain_id, Address(owner)).name for owner in deployment.owners]
        # Those that are, and those that are to be minted: by blocks that may be undone, so perhaps more than once.
        newest = max(chain.lab.book.nfts)
        ids = [*rng.sample(sorted(chain.lab.book.nfts), _KNOWN_IDS), *(newest + ahead for ahead in _COMING_IDS)]
        passing = {PositionChannel(chain_id, _KIND, TokenId(each)).name: TokenId(each) for each in ids}
        everything = [head, *owners, *pools]
        capture = partial(Capture, int(chain_id), _KIND)
        names = ("roving", "steady")
        servers = [await asyncio.to_thread(SoakServer, name, deployment, proxies, folder) for name in names]
        # Both at a time: it takes them seconds.
        for server in servers:
            server.start()
            stack.callback(server.abandon)
        for server in servers:
            clients: list[WishClient | LatestClient] = [
                WishClient(f"{server.name} all", server.port, [*everything, *passing, *rewards], capture),
                WishClient(f"{server.name} some", server.port, [head, *rng.sample(owners, 3)]),
                WishClient(f"{server.name} pools", server.port, rng.sample([*pools, *owners, *passing, *rewards], 8)),
                LatestClient(f"{server.name} latest", server.port, [head, *rng.sample(owners, 4), *list(passing)[::3]]),
            ]
            await stack.enter_async_context(server.running(clients))
        endpoint = HttpEndpoint(chain.node.http_url, timeout_s=20.0)
        stack.push_async_callback(endpoint.close)
        truth = Truth(endpoint, Address(deployment.position_manager), Address(deployment.factory))
        staker = StakerTruth(truth, Address(deployment.position_manager), Address(deployment.staker))

        def make_audit(on_difference: Callable[[Any], None], on_owner: Callable[[Address], None]) -> Audit:
            return Audit(
                truth, int(chain_id), _KIND, everything=True, limit=_LIMIT,
                on_difference=on_difference, on_owner=on_owner, staker=staker, keeps_final=False,
            )  # fmt: skip

        yield Stage(chain, proxies, servers, Checker(chain, servers, set(everything), passing, make_audit))


async def soak(
    toolchain: Toolchain,
    contracts: Contracts,
    seed: int,
    *,
    seconds: float,
    say: Callable[[str], None] = lambda text: None,
    folder: Path | None = None,
    first_round: int = 1,
    last_round: int | None = None,
) -> Account:
    """Run rounds until the time is over; return what was found.

    Args:
        say: Is told each round before it begins, and each difference.
        folder: Where settings, stores and logs are kept; a temporary one if None.
        first_round: Leaves out those before.
        last_round: Ends it sooner.
    """
    with tempfile.TemporaryDirectory(prefix="rtserver-soak-") as made:
        where = folder or Path(made)
        account = Account(seed)
        async with open_stage(toolchain, contracts, seed=seed, folder=where) as stage:
            planned = itertools.islice(rounds(seed), first_round - 1, last_round)
            await _run(stage, account, seconds, planned, say)
            for server in stage.servers:
                account.lives += server.lives
                for client in server.clients:
                    account.clients += client.account()
                    account.failures += client.failures
        return account


async def _run(
    stage: Stage, account: Account, seconds: float, planned: Iterable[Round], say: Callable[[str], None]
) -> None:
    began = time.monotonic()
    faults = Faults(stage)
    async with asyncio.TaskGroup() as group:
        watching = [group.create_task(_sample(stage, account, began)), group.create_task(_progress(account, say))]
        try:
            # Before anything goes wrong everything has to be right, or nothing that follows says anything.
            enter(account, "before the first round", await compared(stage), stage, say)
            for each in planned:
                if time.monotonic() - began >= seconds:
                    break
                if account.wrong_rounds >= _MOST_WRONG_ROUNDS:
                    say("too many rounds with differences")
                    break
                say(str(each))
                outcome = await _round(stage, faults, each)
                enter(account, str(each), outcome, stage, say)
                kinds = {injection.name for injection in each.injections}
                if len(kinds) == 1:
                    account.settled_by_fault.setdefault(kinds.pop(), []).append(outcome.settled_s)
                account.rounds += 1
                account.seconds = time.monotonic() - began
        finally:
            for task in watching:
                task.cancel()
            faults.heal()
    account.faults, account.hits = faults.done, faults.hits
    account.refused = stage.chain.refused
    account.blocks, account.actions = stage.chain.market.stats.blocks, stage.chain.market.stats.actions
    account.unsteady = sum(tally.unsteady for tally in stage.checker.tallies.values())


async def _round(stage: Stage, faults: Faults, each: Round) -> Outcome:
    try:
        async with stage.chain.trading(each.block_time_s):
            try:
                async with asyncio.timeout(_ROUND_LIMIT_S):
                    await asyncio.gather(*(faults.do(injection) for injection in each.injections))
            finally:
                faults.heal()
            if each.goes_on:
                # Blocks while it heals, as on a chain that waits for nobody; then it stands still after all.
                await asyncio.sleep(_GOING_ON * each.block_time_s)
    except TimeoutError:
        return Outcome(differences=[f"the faults were not over after {_ROUND_LIMIT_S:g} s"])
    return await compared(stage)


async def compared(stage: Stage) -> Outcome:
    """Compare everything at a quiet point."""
    try:
        return await stage.checker.check()
    except RtserverError as error:
        return Outcome(differences=[f"nothing could be compared: {error!r}"])


def enter(account: Account, what: str, outcome: Outcome, stage: Stage, say: Callable[[str], None]) -> None:
    """Put what a quiet point found into the account, and what servers logged meanwhile."""
    account.values += outcome.values
    account.copies += outcome.copies
    account.shown += outcome.shown
    account.gone += outcome.gone
    account.unknown += outcome.unknown
    account.settled_s.append(outcome.settled_s)
    account.equal_s.append(outcome.equal_s)
    found = [*outcome.differences, *(problem for server in stage.servers for problem in server.look())]
    account.wrong_rounds += bool(found)
    for difference in found[:_TOLD_A_ROUND]:
        account.differences.append(f"{difference} — one of {len(found)} after {what}")
        say(f"DIFFERENCE {difference}")
    if outcome.settled_s + outcome.equal_s > PATIENCE_S / 4:
        say(f"slow: settled after {outcome.settled_s:.1f} s, equal after {outcome.equal_s:.1f} s")


async def _sample(stage: Stage, account: Account, began: float) -> None:
    memory = account.memory
    while True:
        memory.points.append((time.monotonic() - began, stage.steady.rss_kib()))
        if len(memory.points) % _KEPT_EVERY == 1 and (kept := kept_of(await stage.steady.metrics())):
            memory.kept.append((memory.points[-1][0], kept))
        await asyncio.sleep(_SAMPLE_S)


async def _progress(account: Account, say: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(_PROGRESS_S)
        memory = account.memory
        kib = memory.points[-1][1] if memory.points else 0
        kept = ", ".join(f"{value:.0f} {name}" for name, value in (memory.kept[-1][1] if memory.kept else {}).items())
        say(
            f"--- {account.rounds} rounds, {account.values:,} values and {account.copies:,} copies compared, "
            f"{len(account.differences)} differences, RSS {kib / 1024:.1f} MiB with {kept or 'nothing'}, "
            f"settled after {spread(account.settled_s)} s"
        )
