"""Sending to the local chain and seeing what became of it: transactions in, mined blocks out.

Keeps the labels of what it sent, so that a failure names the action and the contract's own reason. Decides
nothing about what to send.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from eth_abi.abi import decode

from .actions import Tx
from .book import Book
from .contracts import Contract
from .node import AnvilNode
from .rpc import RpcError

__all__ = ["FailedTx", "MinedBlock", "Session", "TxFailed"]

_ERROR_SELECTOR: Final = "08c379a0"
_PANIC_SELECTOR: Final = "4e487b71"
# After a longer pause, reading everything anew is cheaper than folding every block in between.
_MAX_CATCH_UP_BLOCKS: Final = 256


@dataclass(frozen=True, slots=True)
class FailedTx:
    """A mined transaction that reverted, and the contract's reason."""

    label: str
    tx_hash: str
    reason: str


@dataclass(frozen=True, slots=True)
class MinedBlock:
    """A block and what our transactions did in it. `timestamp` is in Unix seconds."""

    number: int
    hash: str
    parent_hash: str
    timestamp: int
    receipts: tuple[Mapping[str, Any], ...]
    failed: tuple[FailedTx, ...]


class TxFailed(Exception):
    """Transactions that had to succeed reverted."""

    def __init__(self, failed: Sequence[FailedTx]) -> None:
        super().__init__("; ".join(f"{one.label}: {one.reason}" for one in failed))
        self.failed = tuple(failed)


class Session:
    """Sends from unlocked accounts to one node and folds mined blocks into `book`."""

    def __init__(self, node: AnvilNode, book: Book) -> None:
        self.node = node
        self.book = book
        self._labels: dict[str, str] = {}
        self._head: MinedBlock | None = None

    @property
    def head(self) -> MinedBlock:
        """The newest block that the book includes; LookupError before the first `catch_up`."""
        if self._head is None:
            raise LookupError("nothing was read yet")
        return self._head

    async def send(self, tx: Tx) -> str:
        """Put a transaction into the mempool and return its hash; it mines in the order of sending."""
        request = {
            "from": tx.sender,
            "data": "0x" + tx.data.hex(),
            "gas": hex(tx.gas),
            "gasPrice": "0x0",
            "value": hex(tx.value),
        }
        if tx.to is not None:
            request["to"] = tx.to
        tx_hash: str = await self.node.rpc("eth_sendTransaction", [request])
        self._labels[tx_hash] = tx.label
        return tx_hash

    async def mine(self, blocks: int = 1, *, allow_failures: bool = False, timestamp: int | None = None) -> MinedBlock:
        """Mine everything sent so far into the first of `blocks` new blocks and return the last block.

        Args:
            blocks: How many; those after the first are empty.
            allow_failures: Return reverted transactions in `failed` instead of raising.
            timestamp: Unix seconds of the first block; None takes the node's clock.

        Raises:
            TxFailed: A transaction of ours reverted. The blocks are mined and folded all the same.
        """
        await self.catch_up()
        for index in range(blocks):
            await self.node.rpc("evm_mine", [] if timestamp is None or index else [hex(timestamp)])
        mined = await self.catch_up()
        failed = [one for block in mined for one in block.failed]
        if failed and not allow_failures:
            raise TxFailed(failed)
        return mined[-1]

    async def catch_up(self) -> list[MinedBlock]:
        """Fold every block mined since the last call and return them, oldest first.

        After a reorg or a long pause the book is read anew from the chain instead, and the answer holds the
        newest block only, without receipts.
        """
        latest = await self._latest()
        if self._head is None:
            await self.reload(latest)
            return [latest]
        number, parent = self._head.number, self._head.hash
        if latest.hash == parent:
            return []
        if not number < latest.number <= number + _MAX_CATCH_UP_BLOCKS:
            await self.reload(latest)
            return [latest]
        blocks: list[MinedBlock] = []
        for height in range(number + 1, latest.number + 1):
            block = await self._block(hex(height), with_receipts=True)
            if block is None or block.parent_hash != parent:
                latest = await self._latest()
                await self.reload(latest)
                return [latest]
            self.book.apply(block.receipts)
            self._head = block
            parent = block.hash
            blocks.append(block)
        return blocks

    async def reload(self, at: MinedBlock) -> None:
        """Take a block as the new head without folding it; a subclass reads its book anew."""
        self._labels.clear()
        self._head = at

    async def call(
        self,
        contract: Contract,
        address: str,
        function: str,
        *args: object,
        block: str | None = None,
        sender: str | None = None,
    ) -> tuple[Any, ...]:
        """Return the values of a static call.

        Args:
            block: A block hash to pin; the newest block if None.
            sender: The account that asks, which matters to `collect` and `decreaseLiquidity`.

        Raises:
            RpcError: The call reverted; its `message` has the reason.
        """
        coder = contract.functions[function]
        request = {"to": address, "data": "0x" + coder.encode(*args).hex()}
        if sender is not None:
            request["from"] = sender
        where: object = "latest" if block is None else {"blockHash": block}
        answer: str = await self.node.rpc("eth_call", [request, where])
        return coder.decode(bytes.fromhex(answer[2:]))

    async def _latest(self) -> MinedBlock:
        block = await self._block("latest")
        if block is None:
            raise LookupError("a chain without a latest block")
        return block

    async def _block(self, which: str, *, with_receipts: bool = False) -> MinedBlock | None:
        """Return a block; None if a reorg took it away between our looking and our asking."""
        calls: list[tuple[str, Sequence[object]]] = [("eth_getBlockByNumber", [which, False])]
        if with_receipts:
            calls.append(("eth_getBlockReceipts", [which]))
        header, *rest = await self.node.client.batch(calls)
        receipts: tuple[Mapping[str, Any], ...] = tuple(rest[0] or ()) if rest else ()
        if header is None or any(receipt["blockHash"] != header["hash"] for receipt in receipts):
            return None
        failed = []
        for receipt in receipts:
            tx_hash = receipt["transactionHash"]
            label = self._labels.pop(tx_hash, None)
            if label is not None and receipt["status"] == "0x0":
                failed.append(FailedTx(label, tx_hash, await self._reason(tx_hash)))
        return MinedBlock(
            number=int(header["number"], 16),
            hash=header["hash"],
            parent_hash=header["parentHash"],
            timestamp=int(header["timestamp"], 16),
            receipts=receipts,
            failed=tuple(failed),
        )

    async def _reason(self, tx_hash: str) -> str:
        try:
            trace = await self.node.rpc("debug_traceTransaction", [tx_hash, {"tracer": "callTracer"}])
        except RpcError as error:
            return f"reverted, no trace: {error}"
        return _decoded_reason(trace.get("output") or "0x") or trace.get("error") or "reverted"


def _decoded_reason(output: str) -> str:
    """Return what a revert said, or an empty string if it said nothing readable."""
    selector, payload = output[2:10], bytes.fromhex(output[10:]) if len(output) > 10 else b""
    if selector == _ERROR_SELECTOR:
        return str(decode(["string"], payload)[0])
    if selector == _PANIC_SELECTOR:
        return f"panic {decode(['uint256'], payload)[0]:#x}"
    return output if selector else ""
