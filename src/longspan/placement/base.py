"""What a placement is: where K and V of a layer live, and where a query reads them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import torch
    from torch import Tensor

    from longspan.placement.store import KVStore, Part
    from longspan.types import LayerGeometry, Partial, Runs

OnePlace = Literal["cpu", "gpu"]
"""`cpu`: host memory, whatever the model's device. `gpu`: where the model is, GPU or not."""

PlacementName = Literal["cpu", "gpu", "wave_buffer"]
"""`wave_buffer`: what an index covers in host memory, with a cache of blocks where the model is."""

CachePolicy = Literal["lru", "tinylfu", "lfu"]
"""See longspan_kernels.block_cache."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where keys and values go; the rest concerns `wave_buffer`."""

    placement: PlacementName = "cpu"
    cache_budget: float = 0.05
    """Share of the keys and values in host memory that the cache holds, all layers together."""
    cache_policy: CachePolicy = "tinylfu"


@dataclass(slots=True)
class Traffic:
    """What a cache of blocks did: sums over steps. Entries are tokens of one KV head, or of one
    query head where the index selects so.
    """

    hit_entries: int = 0
    miss_entries: int = 0
    bus_bytes: int = 0
    """Keys and values that came from host memory."""
    wait_s: float = 0.0
    """How long steps waited for the cache's table after their own work."""
    overflows: int = 0
    """Steps for which the buffer had to grow; nothing was left out."""
    prefetch_bytes: int = 0
    """Keys and values that came from host memory before a first step."""

    def add(self, other: Traffic) -> None:
        """Sum up."""
        for name in Traffic.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Placement(ABC):
    """Keys and values of one layer of one sequence, and the attention that reads them.

    Queries, indexes and the partial attentions returned here live on `device`.
    """

    store: KVStore
    traffic: Traffic | None = None
    """All steps so far; None without a cache."""
    last: Traffic | None = None
    """The last step."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where a decode step is computed."""

    @abstractmethod
    def attend_ranges(self, q_HD: Tensor, ranges: Iterable[tuple[int, int]]) -> list[Partial]:
        """Exact attention over slot ranges [start, stop), in disjoint parts still to be merged."""

    @abstractmethod
    def attend_runs(
        self, q_HD: Tensor, runs: Runs, within: tuple[int, int] | None = None
    ) -> list[Partial]:
        """Exact attention over the slots that `runs` names, in parts still to be merged.

        `within` promises that all of them lie in [start, stop).
        """

    @abstractmethod
    def blocks(self, device: torch.device) -> Iterator[Part]:
        """Everything stored, brought to `device` piece by piece, for the next chunk's prefill."""

    @abstractmethod
    def fork(self) -> Placement:
        """A second placement that goes on from here."""

    def join(self, below: Placement) -> None:
        """Share with the placement of the layer below what layers of one sequence may share; before
        anything is read.
        """
        del below

    def prefetch(self, runs: Runs, within: tuple[int, int]) -> None:
        """Bring near what `attend_runs` is likely to be asked for next."""
        del runs, within

    @property
    def nbytes(self) -> int:
        """Memory of keys and values, copies included."""
        return self.store.nbytes


def place(where: Place | PlacementName, geometry: LayerGeometry) -> Placement:
    """An empty placement for one layer. Raises ValueError for an unknown name."""
    import torch

    from longspan.placement.memory import Memory
    from longspan.placement.wave_buffer import WaveBuffer

    if not isinstance(where, Place):
        where = Place(where)
    if where.placement == "cpu":
        return Memory(geometry, torch.device("cpu"))
    if where.placement == "gpu":
        return Memory(geometry, geometry.device)
    if where.placement == "wave_buffer":
        return WaveBuffer(geometry, where)
    raise ValueError(
        f"placement is {where.placement!r}; it should be 'cpu', 'gpu' or 'wave_buffer'"
    )
