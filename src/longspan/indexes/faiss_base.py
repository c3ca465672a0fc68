"""What the FAISS indexes share: one index a KV head and stretch, searched by each query head."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from longspan.indexes import faiss_files
from longspan.indexes.base import KeyIndex, SearchResult
from longspan.indexes.faiss_files import (
    MOST_ON_GPU,
    FaissDevice,
    Stretch,
    check_device,
    placed,
    written_size,
)
from longspan.types import Runs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from longspan.indexes.base import Budget, Segment


@dataclass(frozen=True, slots=True)
class Found:
    """What one search of one stretch gave for the R query heads of a group."""

    score_RK: Tensor
    id_RK: Tensor
    """int64 within the stretch, -1 where there is none."""
    distances: float
    """Products, all heads together."""
    hops: float = 0.0
    """Nodes expanded or lists opened, all heads together."""


class FaissIndex(KeyIndex):
    """FAISS indexes over float32 copies of the keys of one layer of one sequence; immutable
    stretches.
    """

    kind: ClassVar[str]

    def __init__(self, device: FaissDevice = "cpu") -> None:
        check_device(device)
        self.device: FaissDevice = device
        self._stretches_NG: tuple[tuple[Stretch, ...], ...] = ()
        self._first_slot = 0

    @abstractmethod
    def make(self, keys_TD: Tensor) -> Stretch:
        """An index over keys of one KV head."""

    @abstractmethod
    def probe(self, stretch: Stretch, q_RD: Tensor, k: int, effort: int | None) -> Found:
        """Search it."""

    @property
    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """The constructor's arguments."""

    @property
    def wants_queries(self) -> bool:
        """Keys alone are indexed."""
        return False

    def build(self, segment: Segment) -> None:
        """Index a stretch by itself. Raises ValueError on NaN or infinity."""
        if self._stretches_NG and segment.first_slot != self._first_slot + self.tokens:
            raise ValueError(
                f"segment begins at slot {segment.first_slot}; it should begin at"
                f" {self._first_slot + self.tokens}, where the last one ended"
            )
        keys_GTD = segment.keys_GTD.detach().float().cpu()
        if not bool(keys_GTD.isfinite().all()):
            raise ValueError("keys holds NaN or infinity; every value must be finite")
        if not self._stretches_NG:
            self._first_slot = segment.first_slot
        made = tuple(placed(self.make(keys_TD.contiguous()), self.device) for keys_TD in keys_GTD)
        self._stretches_NG = (*self._stretches_NG, made)

    def append(self, segment: Segment) -> None:
        """As `build`."""
        self.build(segment)

    def search(self, q_HD: Tensor, budget: Budget, scale: float) -> SearchResult:
        """The `retrieve_tokens` best slots found, per query head; `effort` is the index's own."""
        wanted = budget.retrieve_tokens
        if not 0 < wanted <= self.tokens:
            raise ValueError(
                f"retrieve_tokens is {wanted}; it should be 1 to {self.tokens}, the keys indexed"
            )
        if self.device == "gpu" and MOST_ON_GPU < wanted < self.tokens:
            raise ValueError(
                f"retrieve_tokens is {wanted}; on a GPU FAISS finds {MOST_ON_GPU} at most: use"
                " device=cpu"
            )
        q_GRD = q_HD.detach().float().cpu().reshape(len(self._stretches_NG[0]), -1, q_HD.shape[1])
        if not bool(q_GRD.isfinite().all()):
            raise ValueError("q holds NaN or infinity; every value must be finite")
        if wanted == self.tokens:  # nothing to choose
            id_HK, distances, hops = torch.arange(wanted).expand(len(q_HD), -1), 0.0, 0.0
        else:
            groups = [self._group(g, q_RD, budget) for g, q_RD in enumerate(q_GRD)]
            id_HK = torch.cat([id_RK for id_RK, _, _ in groups])
            distances = sum(products for _, products, _ in groups) / len(q_HD)
            hops = sum(opened for _, _, opened in groups) / len(q_HD)
        slot_HK = torch.where(id_HK >= 0, id_HK + self._first_slot, -1).int()
        count_H = (slot_HK >= 0).sum(1, dtype=torch.int32)
        return SearchResult(
            retrieved=Runs(slot_HK.to(q_HD.device), None, count_H.to(q_HD.device)),
            estimated=None,
            distances=distances,
            bytes=distances * q_HD.numel() * 4,
            hops=hops,
        )

    def fork(self) -> FaissIndex:
        """Stretches are never changed, so they are shared."""
        twin = type(self)(**self.facts)
        twin._stretches_NG, twin._first_slot = self._stretches_NG, self._first_slot
        return twin

    @property
    def tokens(self) -> int:
        """See KeyIndex."""
        return sum(made[0].tokens for made in self._stretches_NG)

    @property
    def nbytes(self) -> int:
        """Size of the indexes as FAISS would write them."""
        return sum(written_size(stretch) for made in self._stretches_NG for stretch in made)

    def save(self, folder: Path) -> None:
        """Write FAISS's own files and one about them all."""
        if not self._stretches_NG:
            raise ValueError("nothing is indexed; build a segment before saving")
        faiss_files.write(folder, self._stretches_NG, self.kind, self._first_slot, self.facts)

    @classmethod
    def load(cls, folder: Path) -> FaissIndex:
        """The index that `save` wrote. Raises ValueError naming a file that is not what it should
        be.
        """
        stretches_NG, first_slot, facts = faiss_files.read(folder, cls.kind)
        index = cls(**facts)
        index._first_slot = first_slot
        index._stretches_NG = tuple(
            tuple(placed(stretch, index.device) for stretch in made) for made in stretches_NG
        )
        return index

    def _group(self, group: int, q_RD: Tensor, budget: Budget) -> tuple[Tensor, float, float]:
        """The best ids of all stretches, -1 where there are fewer; products and hops it took."""
        found, offset = [], 0
        for made in self._stretches_NG:
            stretch = made[group]
            k = min(budget.retrieve_tokens, stretch.tokens)
            hit = self.probe(stretch, q_RD.contiguous(), k, budget.effort)
            id_RK = torch.where(hit.id_RK >= 0, hit.id_RK + offset, -1)
            score_RK = product_scores(stretch, q_RD, hit)
            found.append(replace(hit, score_RK=score_RK, id_RK=id_RK))
            offset += stretch.tokens
        distances, hops = sum(hit.distances for hit in found), sum(hit.hops for hit in found)
        return best(found, budget.retrieve_tokens), distances, hops


def product_scores(stretch: Stretch, q_RD: Tensor, hit: Found) -> Tensor:
    """Inner products with the keys themselves, -inf where nothing was found."""
    score_RK = hit.score_RK
    if stretch.mean_D is not None:
        score_RK = score_RK + (q_RD @ stretch.mean_D)[:, None]
    if stretch.square_radius is not None:
        square_R1 = q_RD.square().sum(1, keepdim=True)
        score_RK = (square_R1 + stretch.square_radius - score_RK) / 2
    return score_RK.masked_fill(hit.id_RK < 0, float("-inf"))


def best(found: Sequence[Found], k: int) -> Tensor:
    """int64 [R, k]: the ids of the best scores, best first."""
    if len(found) == 1:
        return found[0].id_RK
    score_RN = torch.cat([hit.score_RK for hit in found], dim=1)
    place_RK = score_RN.topk(k, dim=1).indices
    return torch.cat([hit.id_RK for hit in found], dim=1).gather(1, place_RK)
