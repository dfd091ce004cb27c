"""What one chain's engine remembers over a restart: resuming at the start, keeping from then on."""

from collections.abc import Callable

import structlog

from ..domain.chain import Header
from ..domain.errors import PermanentError, RetryableError
from ..domain.ids import ChainId
from ..store.values import ALONE, Checkpoint
from .keeping import Keeper
from .resuming import Loader, Resuming

__all__ = ["Memory"]

log = structlog.get_logger(__name__)


class Memory:
    """One chain's memory.

    Args:
        chain_id: The chain.
        name: Its name in logs.
        identity: What the facts depend on.
        loader: Where the last checkpoint is.
        resuming: How to go on from it.
        keeper: Who keeps the next ones.
        charge: As the keeper's.
    """

    def __init__(
        self,
        *,
        chain_id: ChainId,
        name: str,
        identity: str,
        loader: Loader,
        resuming: Resuming,
        keeper: Keeper,
        charge: Callable[[], str | None] = lambda: ALONE,
    ) -> None:
        self._chain_id = chain_id
        self._name = name
        self._identity = identity
        self._loader = loader
        self._resuming = resuming
        self._keeper = keeper
        self._charge = charge
        self._is_loaded = False
        self._checkpoint: Checkpoint | None = None

    async def resume(self, head: Header) -> bool:
        """Bring the engine from the last checkpoint to the head; return False where it has to begin cold.

        Raises:
            RetryableError: The chain can't be read now; nothing was touched, and another head may be tried.
        """
        if not self._is_loaded:
            self._checkpoint = await self._load()
            self._is_loaded = True
        checkpoint = self._checkpoint
        if checkpoint is None:
            return False
        resumed = await self._resuming.resume(checkpoint, head)
        self._checkpoint = None
        return resumed

    async def _load(self) -> Checkpoint | None:
        try:
            takes_over = self._charge() == ALONE
            return await self._loader.load(self._chain_id, self._identity, takes_over=takes_over)
        except RetryableError as error:
            log.warning("no kept state", chain=self._name, error=str(error))
        except PermanentError as error:
            self._keeper.stop(str(error))
        return None

    def published(self, head: Header) -> None:
        """Note that everything is settled at a head, and told."""
        self._keeper.published(head)
