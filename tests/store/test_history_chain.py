"""Records of a real market on a real chain: each is what was shown at its block, and no block that left has one."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from chain.test_reorg import reorg
from chain.world import CHAIN, KIND, owner_channel
from chain.world import Keeper as Sink
from sqlalchemy import select

from rtserver.demo.lab import Lab
from rtserver.demo.market import Market, MarketConfig
from rtserver.domain.ids import TokenId
from rtserver.domain.update import BlockUpdate
from rtserver.history.build import Kept
from rtserver.history.reading import Histories
from rtserver.history.windows import share_text
from rtserver.store.database import Database
from rtserver.store.history import HistoryStore
from rtserver.store.tables import minute_records

from .conftest import Place
from .lives import Life, open_life

KEPT = Kept(every_s=30, keep_minutes_h=48, keep_hours_d=90, keep_days_d=0, queue_rows=50_000)
SHOWN = ("amount0", "amount1", "fees0", "fees1", "price")


class Line:
    """The heads that were published and are still on the chain, each with what was shown of every position."""

    def __init__(self, life: Life) -> None:
        self._sink = life.keeper
        self._publish = self._sink.publish
        self.heads: list[tuple[int, str, int, dict[str, Any]]] = []
        # By block hash, all that was shown of it.
        self.told: dict[str, list[dict[str, Any]]] = {}
        self._sink.publish = self._noted  # type: ignore[method-assign]

    def _noted(self, update: BlockUpdate) -> None:
        self._publish(update)
        if update.rollback is not None and update.rollback.to is not None:
            lowest = update.rollback.to.number
            self.heads = [head for head in self.heads if head[0] <= lowest]
        header = update.header
        if self.heads and self.heads[-1][1] == header.hash:
            self.heads.pop()
        shown = positions(self._sink)
        self.heads.append((header.number, header.hash, header.timestamp, shown))
        self.told.setdefault(header.hash, []).append(shown)

    def seconds(self, token_id: str, since: int, until: int) -> int:
        """Return the seconds in range between two of the heads, by height."""
        mine = [head for head in self.heads if since <= head[0] <= until]
        pairs = itertools.pairwise(mine)
        return sum(after[2] - before[2] for before, after in pairs if before[3][token_id]["isActive"])


def positions(sink: Sink) -> dict[str, Any]:
    return {
        str(view["tokenId"]): dict(view)
        for name, state in sink.states.items()
        if name.startswith("owner:")
        for view in state.values()
    }


async def rows(place: Place) -> list[Any]:
    database = Database(place.url)
    async with database.reading() as connection:
        found = (
            await connection.execute(select(minute_records).order_by(minute_records.c.block, minute_records.c.token_id))
        ).all()
    await database.close()
    return list(found)


async def assert_true(lab: Lab, place: Place, line: Line) -> int:
    """Every record is of a block on the chain, is what was shown there, and counts its seconds; return how many."""
    known = {head[1]: head for head in line.heads}
    before: dict[str, Any] = {}
    found = await rows(place)
    for row in found:
        block = await lab.node.rpc("eth_getBlockByNumber", [hex(row.block), False])
        assert block["hash"] == row.hash
        number, _, at, shown = known[row.hash]
        view = shown[row.token_id]
        assert (row.block, row.at) == (number, at)
        # Fees are known once the position's past has been read: of a block that was told twice it may be the first, or
        # what was known before its owner was told anything.
        told = [one[row.token_id] for one in line.told[row.hash] if row.token_id in one]
        if row.token_id not in before:
            told.append({**view, "fees0": None, "fees1": None})
        assert [getattr(row, name) for name in SHOWN] in [[one[name] for name in SHOWN] for one in told], row.token_id
        assert (row.is_active, row.liquidity) == (view["isActive"], view["liquidity"])
        cents = None if view["valueUSD"] is None else view["valueUSD"].replace(".", "").lstrip("0") or "0"
        assert row.value_cents == cents
        last = before.get(row.token_id)
        if last is None:
            assert (row.active_s, row.covered_s) == (0, 0)
        elif row.covered_s:
            assert row.covered_s == row.at - last.at
            assert row.active_s == line.seconds(row.token_id, last.block, row.block)
        before[row.token_id] = row
    return len(found)


async def test_a_market_with_reorganisations(lab: Lab, place: Place) -> None:
    await lab.mine()
    market = Market(lab, seed=3, config=MarketConfig(seconds_per_block=7))
    await market.steps(30)
    async with open_life(lab, place.url, kept=KEPT) as life:
        line = Line(life)
        await life.open(*(owner_channel(owner) for owner in lab.owners))
        for depth in (0, 1, 3, 6):
            if depth:
                await reorg(life, depth)
            for _ in range(25):
                await market.step()
                await life.settled()
            await life.recorded()
            count = await assert_true(lab, place, line)
        # 100 blocks of 7 s, and a record in 30 s; most positions change with each block.
        tokens = positions(life.keeper)
        assert count > 5 * len(tokens)
        assert_all_covered(line, await rows(place))
        await assert_read(life, place, line)


def assert_all_covered(line: Line, found: list[Any]) -> None:
    """No second is missing between two records, unless nobody held the position meanwhile whom anyone watches."""
    for token_id in {row.token_id for row in found}:
        mine = [row for row in found if row.token_id == token_id]
        for before, after in itertools.pairwise(mine):
            if after.covered_s != after.at - before.at:
                between = [head[3] for head in line.heads if before.block < head[0] < after.block]
                assert after.covered_s == 0 and any(token_id not in shown for shown in between), token_id


async def assert_read(life: Life, place: Place, line: Line) -> None:
    """What is read ends with what is shown now, and its seconds are those of all blocks."""
    assert life.history is not None
    database = Database(place.url)
    past = Histories(HistoryStore(database), {CHAIN: life.history}, every_s=30)
    for token_id, view in positions(life.keeper).items():
        answer: Any = await past.read(CHAIN, KIND, TokenId(int(token_id)), 86_400, 200)
        last = answer["points"][-1]
        head = line.heads[-1]
        assert (last["timestamp"], last["block"]) == (head[2], head[0])
        assert [last[name] for name in (*SHOWN, "valueUSD", "feesUSD")] == [
            view[name] for name in (*SHOWN, "valueUSD", "feesUSD")
        ]
        mine = [row for row in await rows(place) if row.token_id == token_id]
        covered = sum(row.covered_s for row in mine) + head[2] - mine[-1].at
        active = sum(row.active_s for row in mine) + line.seconds(token_id, mine[-1].block, head[0])
        assert (answer["coveredSeconds"], answer["inRangeShare"]) == (covered, share_text(active, covered))
    await database.close()


async def test_killed_before_what_left_the_chain_was_taken_back(lab: Lab, place: Place) -> None:
    """The next life deletes what the first one wrote of blocks that left the chain while nobody looked."""
    await lab.mine()
    market = Market(lab, seed=4, config=MarketConfig(seconds_per_block=40))
    await market.steps(30)
    async with open_life(lab, place.url, kept=KEPT) as life:
        await life.open(*(owner_channel(owner) for owner in lab.owners))
        for _ in range(12):
            await market.step()
            await life.settled()
        await life.recorded()
        await life.kept()
    before = await rows(place)
    ancestor = lab.head.number - 8
    assert any(row.block > ancestor for row in before) and any(row.block <= ancestor for row in before)
    await lab.node.rpc("anvil_rollback", [8])
    await lab.catch_up()
    await lab.mine(12)
    async with open_life(lab, place.url, kept=KEPT) as life:
        line = Line(life)
        await life.loaded([owner_channel(owner).name for owner in lab.owners])
        await life.recorded()
        found = await rows(place)
        assert [row for row in found if row.block <= ancestor] == [row for row in before if row.block <= ancestor]
        for row in found:
            block = await lab.node.rpc("eth_getBlockByNumber", [hex(row.block), False])
            assert block["hash"] == row.hash
        await market.steps(3)
        await life.settled()
        await life.recorded()
        assert life.history is not None and line.heads


async def test_deeper_than_is_remembered(lab: Lab, place: Place) -> None:
    """A branch that the follower can't undo step by step: the database is asked what of it is still on the chain."""
    market = Market(lab, seed=6)
    await market.steps(10)
    async with open_life(lab, place.url, kept=KEPT) as life:
        await life.open(*(owner_channel(owner) for owner in lab.owners[:3]))
        for _ in range(80):
            await lab.mine()
            await life.settled()
        await life.recorded()
        await lab.node.rpc("anvil_rollback", [70])
        await lab.catch_up()
        await lab.mine(75)
        await life.settled()
        await life.recorded()
        for row in await rows(place):
            block = await lab.node.rpc("eth_getBlockByNumber", [hex(row.block), False])
            assert block["hash"] == row.hash


async def test_without_a_restart_s_help_a_file_is_only_read_when_it_is_proved(lab: Lab, tmp_path: Path) -> None:
    market = Market(lab, seed=5)
    await market.steps(5)
    async with open_life(lab, tmp_path / "store", kept=KEPT) as life:
        await life.open(*(owner_channel(owner) for owner in lab.owners[:1]))
        await life.recorded()
        assert life.history is not None
        assert life.history.writer.report() == {"state": "writing", "queued": 0, "dropped": 0}
