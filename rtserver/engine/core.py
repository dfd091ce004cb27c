"""One chain's books and channels: wishes in, what to read out; events and answers in, changes out. Pure.

Decides which channels a changed position belongs to. Never reads and never delivers.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, assert_never

from ..domain.chain import Header, Log, Rollback
from ..domain.diff import Change, JsonObject, State, diff
from ..domain.errors import ClientError
from ..domain.ids import Address, BlockHash, ChainId, TokenId
from ..domain.update import BlockUpdate, LonePatches
from ..protocols.addresses import checksum
from ..protocols.base import Book, Evaluation, HistoryQuery, LogFilter, PastQuery, Plan
from ..protocols.channels import (
    Channel,
    HeadChannel,
    OwnerChannel,
    PoolChannel,
    PositionChannel,
    PricesChannel,
    RewardsChannel,
)
from .ports import Pricer

__all__ = ["EngineCore", "head_object"]

_HEAD_KEY: Final = "head"
_NO_TAGS: Final[Mapping[str, Header]] = {}


def head_object(header: Header) -> JsonObject:
    """Return what the `head:` channel shows of a block; the timestamp is in seconds."""
    return {
        "number": header.number,
        "hash": header.hash,
        "parentHash": header.parent_hash,
        "timestamp": header.timestamp,
    }


class EngineCore:
    """The state of one chain."""

    def __init__(self, chain_id: ChainId, books: Mapping[str, Book], pricer: Pricer) -> None:
        self._chain_id = chain_id
        self._books = dict(books)
        self._pricer = pricer
        self._open: dict[str, Channel] = {}
        self._opening: dict[str, Channel] = {}
        self._open_positions: dict[str, dict[TokenId, str]] = {kind: {} for kind in self._books}
        self._open_owners: dict[Address, str] = {}
        # What was told of claims, by channel: books tell them whole, channels change.
        self._claims: dict[str, State] = {}
        # What the `head:` channel shows.
        self._heads: State = {}

    # --- wishes ---------------------------------------------------------------------------------------

    def want(self, channel: Channel) -> None:
        """Open a channel as soon as its state has been read. Wanting twice changes nothing."""
        if channel.name in self._open or channel.name in self._opening:
            return
        self._opening[channel.name] = channel
        match channel:
            case PositionChannel():
                self._books[channel.protocol].want_position(channel.token_id)
            case OwnerChannel() | RewardsChannel():
                for book in self._books.values():
                    book.want_owner(channel.owner)
            case PoolChannel():
                for book in self._books.values():
                    book.want_pool(channel.pool)
            case HeadChannel() | PricesChannel():
                pass
            case _:
                assert_never(channel)

    def unwant(self, channel: Channel) -> None:
        """Close a channel and stop tracking what only it needed."""
        opened = self._open.pop(channel.name, None) or self._opening.pop(channel.name, None)
        if opened is None:
            return
        match channel:
            case PositionChannel():
                self._open_positions[channel.protocol].pop(channel.token_id, None)
                self._books[channel.protocol].unwant_position(channel.token_id)
            case OwnerChannel() | RewardsChannel():
                if isinstance(channel, OwnerChannel):
                    self._open_owners.pop(channel.owner, None)
                self._claims.pop(channel.name, None)
                for book in self._books.values():
                    book.unwant_owner(channel.owner)
            case PoolChannel():
                for book in self._books.values():
                    book.unwant_pool(channel.pool)
            case HeadChannel() | PricesChannel():
                pass
            case _:
                assert_never(channel)

    @property
    def is_opening(self) -> bool:
        """Return whether a channel waits for its state."""
        return bool(self._opening)

    @property
    def channels(self) -> list[str]:
        """Return the names of all channels that are wanted."""
        return [*self._open, *self._opening]

    def tracked(self) -> dict[str, int]:
        """Return how much is tracked, by kind."""
        totals: dict[str, int] = {"channels": len(self._open)}
        for book in self._books.values():
            for kind, count in book.tracked.items():
                totals[kind] = totals.get(kind, 0) + count
        return totals

    def events(self) -> int:
        """Return how many events of positions are kept; for when someone looks at the metrics."""
        return sum(book.events for book in self._books.values())

    # --- the chain ------------------------------------------------------------------------------------

    def log_filter(self) -> LogFilter:
        """Return which logs the next block's query must hold."""
        filters = [book.log_filter() for book in self._books.values()]
        if (feeds := self._pricer.log_filter()).addresses:
            filters.append(feeds)
        if len(filters) == 1:
            return filters[0]
        return LogFilter(
            frozenset().union(*(f.addresses for f in filters)), frozenset().union(*(f.topics for f in filters))
        )

    def fold(self, block_hash: BlockHash, logs: Sequence[Log]) -> None:
        """Take a block's logs."""
        feeds = self._pricer.log_filter().addresses
        self._pricer.fold([log for log in logs if log.address in feeds] if feeds else ())
        is_all_mine = len(self._books) == 1 and not feeds
        for book in self._books.values():
            wanted = book.log_filter().addresses
            mine = logs if is_all_mine else [log for log in logs if log.address in wanted]
            book.fold(block_hash, mine)

    def unwind(self, block_hashes: Sequence[BlockHash]) -> None:
        """Undo blocks, newest first."""
        self._pricer.mark_all()
        for book in self._books.values():
            book.unwind(block_hashes)

    def forget(self, headers: Iterable[Header]) -> None:
        """Drop the memory of blocks that are too deep to be undone."""
        for header in headers:
            for book in self._books.values():
                book.forget(header.hash)

    def mark_all(self) -> None:
        """Mark everything as stale."""
        self._pricer.mark_all()
        for book in self._books.values():
            book.mark_all()

    def is_settled(self) -> bool:
        """Return whether everything that blocks touched has been read."""
        return self._pricer.is_settled() and all(book.is_settled() for book in self._books.values())

    def plan(self, load_budget: int) -> Plan:
        """Return the next reads over all books and the price feeds."""
        plan = Plan()
        if not self._pricer.is_settled():
            part = self._pricer.plan()
            plan.calls += part.calls
            plan.keys.append((self._pricer, part))
        for book in self._books.values():
            part = book.plan(max(load_budget - len(plan.calls), 0))
            plan.calls += part.calls
            plan.keys.append((book, part))
        return plan

    def absorb(self, plan: Plan, results: Sequence[bytes | None]) -> None:
        """Take the answers to a plan."""
        start = 0
        for reader, part in plan.keys:
            reader.absorb(part, results[start : start + len(part.calls)])
            start += len(part.calls)

    def history_query(self, *, is_late: bool = False) -> tuple[Book, HistoryQuery] | None:
        """Return past logs that a book wants, or None; `is_late` asks for those that no channel waits for."""
        for book in self._books.values():
            query = book.history_query(is_late=is_late)
            if query is not None:
                return book, query
        return None

    def want_prices(self, kind: str, token_id: TokenId) -> bool:
        """Find out what a position's tokens were worth at its own events; return whether that is still being read."""
        return self._books[kind].want_prices(token_id)

    def past_query(self) -> tuple[Book, PastQuery] | None:
        """Return reads at an earlier block that a book wants, or None."""
        for book in self._books.values():
            query = book.past_query()
            if query is not None:
                return book, query
        return None

    # --- changes --------------------------------------------------------------------------------------

    def evaluate(
        self,
        header: Header,
        rollback: Rollback | None,
        *,
        is_new_head: bool,
        tags: Mapping[str, Header] = _NO_TAGS,
    ) -> BlockUpdate:
        """Return everything that changed since the last evaluation, and the channels that became ready.

        Args:
            header: The head.
            rollback: What is to be told of a reorganisation.
            is_new_head: Whether the head moved since the last evaluation.
            tags: The newest blocks that the nodes call "safe" and "finalized", where known.
        """
        update = BlockUpdate(chain_id=self._chain_id, header=header, rollback=rollback, is_new_head=is_new_head)
        repriced = self._pricer.update(self._books.values(), header)
        for kind, book in self._books.items():
            self._distribute(kind, book, book.evaluate(self._pricer.prices, repriced, header.timestamp), update)
        head_name = f"head:{self._chain_id}"
        heads = self._heads_at(header, tags)
        if (moved_heads := diff(self._heads, heads)) and head_name in self._open:
            update.changes[head_name] = moved_heads
        self._heads = heads
        prices_name = PricesChannel(self._chain_id).name
        moved = self._pricer.take_change()
        if moved and prices_name in self._open:
            update.changes[prices_name] = moved
        for name, channel in list(self._opening.items()):
            try:
                state = self._state(channel)
            except ClientError as error:
                self.unwant(channel)
                update.refused[name] = error
                continue
            if state is not None:
                del self._opening[name]
                self._open[name] = channel
                self._register(name, channel, state)
                update.opened[name] = state
        return update

    def _heads_at(self, header: Header, tags: Mapping[str, Header]) -> State:
        heads = {_HEAD_KEY: head_object(header)}
        for tag, block in tags.items():
            if block.number <= header.number:
                heads[tag] = head_object(block)
            elif tag in self._heads:
                # Of a head that is not told yet: nobody is shown what is above the head.
                heads[tag] = self._heads[tag]
        return heads

    def _register(self, name: str, channel: Channel, state: State) -> None:
        if isinstance(channel, PositionChannel):
            self._open_positions[channel.protocol][channel.token_id] = name
        elif isinstance(channel, OwnerChannel):
            self._open_owners[channel.owner] = name
        elif isinstance(channel, RewardsChannel):
            self._claims[name] = state

    def _state(self, channel: Channel) -> State | None:
        """Return a channel's whole state, None while something of it is unread."""
        match channel:
            case HeadChannel():
                return self._heads
            case PricesChannel():
                return self._pricer.state()
            case PositionChannel():
                book = self._books[channel.protocol]
                if not book.position_ready(channel.token_id):
                    return None
                view = book.position(channel.token_id)
                return {} if view is None else {str(channel.token_id): view}
            case OwnerChannel():
                if not all(book.owner_ready(channel.owner) for book in self._books.values()):
                    return None
                return {
                    f"{kind}:{token_id}": view
                    for kind, book in self._books.items()
                    for token_id, view in book.positions_of(channel.owner).items()
                }
            case RewardsChannel():
                claims = [book.claims_of(channel.owner) for book in self._books.values()]
                if any(claim is None for claim in claims):
                    return None
                return {key: value for claim in claims if claim is not None for key, value in claim.items()}
            case PoolChannel():
                if not all(book.pool_ready(channel.pool) for book in self._books.values()):
                    return None
                views = [view for book in self._books.values() if (view := book.pool(channel.pool)) is not None]
                if not views:
                    raise ClientError(
                        "bad_channel",
                        f"{channel.name} is not a pool of a protocol that is served on chain {channel.chain_id}",
                    )
                return {str(views[0]["pool"]): views[0]}

    def _distribute(self, kind: str, book: Book, result: Evaluation, update: BlockUpdate) -> None:
        positions, owners = self._open_positions[kind], self._open_owners
        changes, patched = update.changes, update.patched
        update.positions += len(result.sets) + len(result.removed)

        def change_of(name: str) -> Change:
            change = changes.get(name)
            if change is None:
                change = changes[name] = Change()
            return change

        for token_id, owner in result.removed.items():
            if (name := positions.get(token_id)) is not None:
                change_of(name).remove.append(str(token_id))
            if (name := owners.get(owner)) is not None:
                change_of(name).remove.append(f"{kind}:{token_id}")
        for token_id, (before, after) in result.moved.items():
            if before != after and (name := owners.get(before)) is not None:
                change_of(name).remove.append(f"{kind}:{token_id}")
        for token_id, view in result.sets.items():
            if (name := positions.get(token_id)) is not None:
                _set(change_of(name), str(token_id), view)
            if (name := owners.get(_owner(book, token_id))) is not None:
                _set(change_of(name), f"{kind}:{token_id}", view)
        prefix, moved = f"{kind}:", result.moved
        for fields, batch in result.patches.items():
            update.positions += len(batch.texts)
            if positions:
                _add_lone(update.lone, fields, [positions.get(held.token_id) for held in batch.positions], batch.texts)
            if not owners:
                continue
            for held, text in zip(batch.positions, batch.texts, strict=True):
                if (name := owners.get(held.owner)) is None:
                    continue
                token_id = held.token_id
                key = f"{prefix}{token_id}"
                if moved and token_id in moved:
                    whole = book.position(token_id)
                    assert whole is not None
                    _set(change_of(name), key, whole)
                elif (mine := patched.get(name)) is None:
                    patched[name] = {key: (fields, text)}
                else:
                    mine[key] = (fields, text)
        for owner, claims in result.claims.items():
            name = RewardsChannel(self._chain_id, owner).name
            if (told := self._claims.get(name)) is not None:
                now = {key: value for key, value in told.items() if not key.startswith(f"{kind}:")} | claims
                self._claims[name] = now
                if change := diff(told, now):
                    changes[name] = change
        for pool, shown in result.pools.items():
            name = PoolChannel(self._chain_id, pool).name
            if name not in self._open:
                continue
            if shown is None:
                change_of(name).remove.append(checksum(pool))
            else:
                change_of(name).set[str(shown["pool"])] = shown


def _add_lone(lone: list[LonePatches], fields: int, channels: list[str | None], texts: list[str]) -> None:
    """Add the patches of those positions that have a channel of their own."""
    named = [channel for channel in channels if channel is not None]
    if len(named) < len(texts):
        texts = [text for channel, text in zip(channels, texts, strict=True) if channel is not None]
    if named:
        lone.append(LonePatches(fields, named, texts))


def _set(change: Change, key: str, view: JsonObject) -> None:
    change.set[key] = view
    if key in change.remove:  # burned or moved away and back within one step
        change.remove.remove(key)


def _owner(book: Book, token_id: TokenId) -> Address:
    owner = book.owner_of(token_id)
    assert owner is not None
    return owner
