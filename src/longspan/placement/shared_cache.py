"""The cache of blocks of one sequence, whose layers share the pages: what reads little leaves them
to what reads much.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import torch

from longspan_kernels.block_cache import BlockCache, StepCaches
from longspan_kernels.cached_decode import PagePool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.placement.base import Place
    from longspan.placement.store import KVStore
    from longspan.types import LayerGeometry
    from longspan_kernels.types import Pages

CLUSTER_PAGE = 8
"""Vectors a page where blocks are clusters; single tokens take pages of one."""
GROWTH = 5 / 4
"""The cache grows when the stores would allow it so much more."""


class SharedCache:
    """Of the layers on one device whose heads are alike; as large as its share of what these have
    frozen.
    """

    def __init__(self, geometry: LayerGeometry, where: Place) -> None:
        self.geometry, self.where = geometry, where
        self.pool: tuple[Tensor, Tensor] = self._rows(0)
        """Keys and values [V, D] of the pages."""
        self.stepped: weakref.ref[StepPages] | None = None
        """What stands in for it while steps have a fixed shape."""
        self._table: BlockCache | None = None
        self._stores: list[weakref.ref[KVStore]] = []

    def join(self, store: KVStore) -> int:
        """The number of the layer whose store this is. Before anything is read."""
        assert self._table is None
        self._stores.append(weakref.ref(store))
        return len(self._stores) - 1

    @property
    def layers(self) -> int:
        """How many have joined."""
        return len(self._stores)

    @property
    def nbytes(self) -> int:
        """Memory of the pages."""
        return sum(rows_VD.nbytes for rows_VD in self.pool)

    def entries(self, sink_tokens: int = 0) -> float:
        """What it may hold of the layers' frozen slots but the first `sink_tokens` of each."""
        stores = [store for each in self._stores if (store := each()) is not None]
        slots = sum(max(0, store.frozen - sink_tokens) for store in stores)
        return self.where.cache_budget * slots * self.geometry.kv_heads

    def fitted(self, page: int) -> BlockCache:
        """The table, in pages of so many vectors."""
        pages = round(self.entries() / page)
        if self._table is None or self._table.page != page:
            self._table = BlockCache(
                pages,
                page=page,
                groups=self.geometry.kv_heads,
                layers=self.layers,
                policy=self.where.cache_policy,
            )
            self.pool = self._rows(pages * page)
        elif pages > self._table.pages * GROWTH:
            more = self._rows((pages - self._table.pages) * page)
            keys_VD, values_VD = self.pool
            self.pool = torch.cat([keys_VD, more[0]]), torch.cat([values_VD, more[1]])
            self._table.grow(pages)
        return self._table

    def wait(self) -> Pages:
        """What the update under way lets in, once it is done."""
        assert self._table is not None
        return self._table.wait(self.geometry.device)

    def _rows(self, count: int) -> tuple[Tensor, Tensor]:
        shape = (count, self.geometry.head_size)
        keys_VD = torch.empty(shape, dtype=self.geometry.dtype, device=self.geometry.device)
        return keys_VD, torch.empty_like(keys_VD)


class StepPages:
    """The caches of several sequences in steps of fixed shape, empty at first; a layer after the
    other takes part.
    """

    def __init__(self, caches: Sequence[SharedCache], sink_tokens: int, page: int) -> None:
        """`page`: vectors of one."""
        self.caches, self.taken = list(caches), set[int]()
        first = caches[0]
        self.pages = [round(cache.entries(sink_tokens) / page) for cache in caches]
        """Of each sequence."""
        self.tables = StepCaches(
            self.pages,
            page=page,
            groups=first.geometry.kv_heads,
            layers=first.layers,
            policy=first.where.cache_policy,
        )
        self.pool = PagePool.of(sum(self.pages), page, first.pool[0])

    @classmethod
    def of(
        cls, caches: Sequence[SharedCache], layer: int, sink_tokens: int, page: int
    ) -> StepPages:
        """Those that the layers before took part in, or new ones."""
        known = None if caches[0].stepped is None else caches[0].stepped()
        if known is None or layer in known.taken or known.caches != list(caches):
            known = cls(caches, sink_tokens, page)
            caches[0].stepped = weakref.ref(known)
        known.taken.add(layer)
        return known

    def nbytes(self, number: int) -> int:
        """Of the pool, what one layer of a sequence answers for."""
        share = self.pages[number] / max(1, sum(self.pages))
        return round(share * self.pool.nbytes / self.caches[number].layers)
