"""What a gateway tells of the past: what the engines of all shards tell, unless one that may know more is silent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pytest
from store.records import CHAIN, HERE, KIND, record

from rtserver.domain.errors import ClientError
from rtserver.domain.ids import TokenId
from rtserver.history.apart import PastApart, past_answer
from rtserver.history.reading import Place, Unwritten
from rtserver.history.windows import recent_of
from rtserver.protocols.earning import PastSample
from rtserver.store.records import Bucket

ALL = 1 << 62
AWAY = object()


class Asked:
    """An engine that says this, or nothing."""

    def __init__(self, said: Any) -> None:
        self._said = said

    async def get(self, keys: Sequence[str]) -> Mapping[str, Any]:
        return {} if self._said is AWAY else dict.fromkeys(keys, orjson.loads(self._said))


class Shelf:
    """A database that holds nothing, and notes what is read."""

    def __init__(self) -> None:
        self.places: list[tuple[str, int]] = []

    async def window(
        self, place: Place, token_id: TokenId, *, start: int, end: int, step: int, below: int
    ) -> list[Bucket]:
        self.places.append((place[2], below))
        return []

    async def samples(self, *_: Any) -> dict[TokenId, list[PastSample]]:
        raise AssertionError


def unwritten(end: int, *numbers: int, below: int = ALL) -> bytes:
    recent = tuple(recent_of(record(number, 10 * number, active=10, covered=10)) for number in numbers)
    return past_answer(Unwritten(end, below, recent, 10), is_kept=True)


NOTHING = past_answer(None, is_kept=False)
UNPROVED = past_answer(None, is_kept=True)


async def told(*said: Any) -> tuple[list[int], int, list[tuple[str, int]]]:
    """Return blocks, seconds, and what was read of the database."""
    shelf = Shelf()
    past = PastApart(shelf, lambda _: [Asked(one) for one in said], lambda *_: HERE)
    answer: Any = await past.read(CHAIN, KIND, TokenId(7), 1000, 100)
    return [point["block"] for point in answer["points"]], answer["coveredSeconds"], shelf.places


async def refused(*said: Any) -> str:
    with pytest.raises(ClientError) as raised:
        await told(*said)
    return raised.value.code


async def test_one_engine() -> None:
    assert await told(unwritten(1000, 98, 99, below=98)) == ([98, 99], 20, [(HERE, 98)])
    assert await told(unwritten(1000)) == ([], 0, [(HERE, ALL)])
    assert await refused() == "history_unavailable"
    assert await refused(AWAY) == "history_unavailable"
    assert await refused(NOTHING) == "not_found"
    assert await refused(UNPROVED) == "chain_unavailable"
    assert await refused(b'{"kept":"yes"}') == "history_unavailable"


async def test_engines_that_share_a_chain() -> None:
    """The position is with one of them, or with several; one may be a block behind."""
    places = [(f"{HERE} 0/2", 97), (f"{HERE} 1/2", ALL)]
    assert await told(unwritten(990, 97, 98, below=97), unwritten(1000)) == ([97, 98], 20, places)
    both = await told(unwritten(990, 97, 98), unwritten(1000, 98, 99))
    assert both[:2] == ([97, 98, 99], 30)


async def test_engines_that_do_not_tell() -> None:
    here = unwritten(1000, 98, 99)
    for silent in (AWAY, UNPROVED, NOTHING):
        assert (await told(here, silent))[0] == [98, 99]
        assert (await told(silent, here))[2] == [(f"{HERE} 1/2", ALL)]
        # It may have been that one's.
        assert await refused(unwritten(1000), silent) == "history_unavailable"
    assert await refused(AWAY, NOTHING) == "chain_unavailable"
    assert await refused(NOTHING, NOTHING) == "not_found"
