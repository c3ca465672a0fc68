"""Indexes that are built while later layers read the prompt's last chunk."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

import torch

if TYPE_CHECKING:
    from concurrent.futures import Future
    from types import TracebackType

    from longspan.models.cache import RowState


class Sealer:
    """Seals states in a thread of its own, in the order given, one at a time: the caller waits
    where the one before is not done, so that one index at most is under way.

    What `seal` raises arrives at the next call, or at the end of the block. Ctrl-C waits for the
    index that is under way.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="longspan-seal")
        self._running: Future[None] | None = None

    def seal(self, state: RowState) -> None:
        """Begin to seal a state, which must not be touched before the end of the block."""
        self.wait()
        self._running = self._pool.submit(_seal, state)

    def wait(self) -> None:
        """Until what was begun is done. Raises what it raised."""
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown()
        if kind is None:
            self.wait()


@torch.inference_mode()  # of this thread, as of the one that reads
def _seal(state: RowState) -> None:
    state.seal()
