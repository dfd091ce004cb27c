"""What the chain calls safe and finalized, asked for beside the blocks.

Its calls are no part of a block's: one round trip of two calls (`eth_getBlockByNumber` with "safe" and with
"finalized"; purpose "finality" in the metrics) at the start, so that the first state has them, and then at most every
`every_blocks` blocks and every five seconds, so an eighth of a call a block. What was not answered is asked again after
five seconds; a node that knows no such tags is asked a hundred times less often.
"""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from ..domain.chain import Header
from ..domain.errors import BlockGone, PermanentError, RetryableError
from ..obs.metrics import Metrics
from .decode import header_of
from .reader import ChainReader

__all__ = ["Finality"]

log = structlog.get_logger(__name__)

_TAGS: Final = ("safe", "finalized")
_AT_MOST_EVERY_S: Final = 5.0
_UNKNOWN_FACTOR: Final = 100


class Finality:
    """The newest blocks that won't be reorganised, as far as the nodes say.

    Args:
        name: The chain's name in logs.
        reader: Where they are asked for.
        every_blocks: After how many blocks they are asked for again; 0 never asks.
        metrics: Where their heights are shown.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        *,
        name: str,
        reader: ChainReader,
        every_blocks: int,
        metrics: Metrics,
        at_most_every_s: float = _AT_MOST_EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._reader = reader
        self._every_blocks = every_blocks
        self._at_most_every_s = at_most_every_s
        self._clock = clock
        # The head when it was last answered; None while it has to be asked again.
        self._asked_number: int | None = None
        self._asked_at = float("-inf")
        self._factor = 1
        self.tags: dict[str, Header] = {}
        for tag in _TAGS:
            metrics.tagged.labels(name, tag).set_function(partial(self._number, tag))

    def _number(self, tag: str) -> float:
        block = self.tags.get(tag)
        return math.nan if block is None else block.number

    def is_due(self, head: Header) -> bool:
        """Return whether it is time to ask."""
        if not self._every_blocks:
            return False
        if self._clock() - self._asked_at < self._at_most_every_s * self._factor:
            return False
        # A chain that went back may have undone what was asked for.
        moved = None if self._asked_number is None else abs(head.number - self._asked_number)
        return moved is None or moved >= self._every_blocks * self._factor

    async def ask(self, head: Header, is_ours: Callable[[Header], bool]) -> None:
        """Ask once. A failure leaves what was known; finality never goes back, whoever answers.

        May be cancelled: it is then asked again as after a failure.

        Args:
            head: Our head.
            is_ours: Whether a block may be of the chain that we follow: the node that answers may lag or be elsewhere.
        """
        self._asked_number, self._asked_at = None, self._clock()
        try:
            answers = await self._reader.request([("eth_getBlockByNumber", [tag, False]) for tag in _TAGS], "finality")
            blocks = [None if answer is None else header_of(answer) for answer in answers]
        except (BlockGone, PermanentError) as error:
            self._asked_number, self._factor = head.number, _UNKNOWN_FACTOR
            log.info("no finality from this node", chain=self._name, error=str(error))
            return
        except RetryableError as error:
            log.debug("finality not readable", chain=self._name, error=str(error))
            return
        self._asked_number, self._factor = head.number, 1
        for tag, block in zip(_TAGS, blocks, strict=True):
            known = self.tags.get(tag)
            if block is not None and is_ours(block) and (known is None or block.number >= known.number):
                self.tags[tag] = block

    def unwind(self, ancestor: int | None) -> None:
        """Forget what a reorganisation undid; None stands for everything."""
        for tag, known in list(self.tags.items()):
            if ancestor is None or known.number > ancestor:
                del self.tags[tag]
                self._asked_number, self._asked_at = None, float("-inf")
