"""FAISS's navigable small-world graph, over the keys as they are or in a form that suits it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from longspan.indexes.faiss_base import FaissIndex, Found
from longspan.indexes.faiss_files import Stretch, import_faiss

if TYPE_CHECKING:
    from torch import Tensor

KeyForm = Literal["raw", "centred", "augmented"]
"""`raw` keys; `centred` by their mean, which changes no ranking; `augmented` by a coordinate that
gives all one norm, so that the nearest by distance is the largest product."""


class FaissHnswIndex(FaissIndex):
    """`links` edges a node (twice as many at the bottom), built with `build_beam`, searched with
    `beam`.
    """

    kind: ClassVar[str] = "hnsw"

    def __init__(
        self,
        links: int = 32,
        build_beam: int = 200,
        beam: int = 512,
        keys: KeyForm = "centred",
    ) -> None:
        super().__init__()
        self.links, self.build_beam, self.beam, self.keys = links, build_beam, beam, keys

    def make(self, keys_TD: Tensor) -> Stretch:
        """See FaissIndex."""
        faiss = import_faiss()
        mean_D = keys_TD.mean(0) if self.keys == "centred" else None
        square_radius = None
        metric = faiss.METRIC_INNER_PRODUCT
        if mean_D is not None:
            keys_TD = keys_TD - mean_D
        if self.keys == "augmented":
            square_T = keys_TD.square().sum(1)
            square_radius, metric = float(square_T.max()), faiss.METRIC_L2
            extra_T = (square_radius - square_T).clamp(min=0).sqrt()
            keys_TD = torch.cat([keys_TD, extra_T[:, None]], dim=1)
        index = faiss.IndexHNSWFlat(keys_TD.shape[1], self.links, metric)
        index.hnsw.efConstruction = self.build_beam
        index.add(keys_TD.contiguous().numpy())
        return Stretch(index, len(keys_TD), mean_D, square_radius)

    def probe(self, stretch: Stretch, q_RD: Tensor, k: int, effort: int | None) -> Found:
        """See FaissIndex. The work is FAISS's own count, which it keeps for the whole process."""
        faiss = import_faiss()
        if stretch.square_radius is not None:
            q_RD = torch.nn.functional.pad(q_RD, (0, 1))
        stretch.index.hnsw.efSearch = max(effort or self.beam, k)
        faiss.cvar.hnsw_stats.reset()
        score_RK, id_RK = stretch.index.search(q_RD.numpy(), k)
        work = (float(faiss.cvar.hnsw_stats.ndis), float(faiss.cvar.hnsw_stats.nhops))
        return Found(torch.from_numpy(score_RK), torch.from_numpy(id_RK), *work)

    @property
    def facts(self) -> dict[str, Any]:
        """See FaissIndex."""
        return {
            "links": self.links,
            "build_beam": self.build_beam,
            "beam": self.beam,
            "keys": self.keys,
        }
