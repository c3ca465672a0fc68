"""What a placement is: where K and V of a layer live, and where a query reads them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import torch
    from torch import Tensor

    from longspan.placement.store import KVStore, Part
    from longspan.types import LayerGeometry, Partial, Runs

PlacementName = Literal["cpu", "device"]
"""`cpu`: host memory, whatever the model's device. `device`: where the model is."""


class Placement(ABC):
    """Keys and values of one layer of one sequence, and the attention that reads them.

    Queries, indexes and the partial attentions returned here live on `device`.
    """

    store: KVStore

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


def place(name: PlacementName, geometry: LayerGeometry) -> Placement:
    """An empty placement of that name for one layer. Raises ValueError for an unknown name."""
    import torch

    from longspan.placement.memory import Memory

    if name == "cpu":
        return Memory(geometry, torch.device("cpu"))
    if name == "device":
        return Memory(geometry, geometry.device)
    raise ValueError(f"placement is {name!r}; it should be 'cpu' or 'device'")
