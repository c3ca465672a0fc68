"""A decode step of one layer in parts, which are attended one after another or at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from longspan_kernels.dense_decode import dense_decode
from longspan_kernels.merge import merge
from longspan_kernels.sparse_decode import sparse_decode
from longspan_kernels.types import Partial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import ThreadPoolExecutor

    from torch import Tensor

    from longspan.indexes.base import Budget, SearchResult
    from longspan.studies.search import Built


@dataclass(frozen=True)
class Step:
    """One decode step of one layer, in parts."""

    built: Built
    static_GTD: Tensor
    """On the accelerator, where there is one, else on the CPU; keys and values alike."""
    budget: Budget
    queries: Iterator[Tensor]

    @property
    def scale(self) -> float:
        """Of the scores."""
        return float(self.static_GTD.shape[2] ** -0.5)

    def static(self, q_HD: Tensor, threads: int) -> Partial:
        """Attend the static tokens; on an accelerator this only starts it."""
        q_HD = q_HD.to(self.static_GTD.device)
        keys_GTD = self.static_GTD
        return dense_decode(q_HD, keys_GTD, keys_GTD, scale=self.scale, threads=threads)

    def search(self, q_HD: Tensor) -> SearchResult:
        """Find the others."""
        return self.built.index.search(q_HD, self.budget, self.scale)

    def retrieved(self, q_HD: Tensor, found: SearchResult) -> Partial:
        """Attend them."""
        keys_GTD = self.built.keys_GTD
        return sparse_decode(q_HD, keys_GTD, keys_GTD, found.retrieved, scale=self.scale)

    def merged(self, parts: Sequence[Partial]) -> Partial:
        """One attention; waits for the accelerator."""
        return merge([Partial(part.out.cpu(), part.lse.cpu()) for part in parts])

    def sequential(self, threads: int) -> Partial:
        """One after the other, each with all threads."""
        torch.set_num_threads(threads)
        q_HD = next(self.queries)
        static = self.static(q_HD, threads)
        wait()
        return self.merged([static, self.retrieved(q_HD, self.search(q_HD))])

    def together(self, threads: int, pool: ThreadPoolExecutor) -> Partial:
        """At once: the accelerator and all threads, or half of the threads for each."""
        half = 0 if self.static_GTD.device.type == "cuda" else max(1, threads // 2)
        torch.set_num_threads(max(1, threads - half))
        q_HD = next(self.queries)
        running = pool.submit(self.static, q_HD, half or threads)
        retrieved = self.retrieved(q_HD, self.search(q_HD))
        return self.merged([running.result(), retrieved])

    def parts(self, threads: int) -> dict[str, Callable[[], object]]:
        """What a sequential step does, one by one."""
        q_HD = next(self.queries)
        found = self.search(q_HD)
        pair = [self.static(q_HD, threads), self.retrieved(q_HD, found)]

        def static() -> None:
            torch.set_num_threads(threads)
            self.static(next(self.queries), threads)
            wait()

        return {
            "static": static,
            "search": lambda: self.search(next(self.queries)),
            "retrieved": lambda: self.retrieved(next(self.queries), found),
            "merge": lambda: self.merged(pair),
        }


def wait() -> None:
    """Until the accelerator, where there is one, has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
