"""FAISS's inverted file: lists around spherical centroids, of which a share is scanned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from longspan.indexes.faiss_base import FaissIndex, Found
from longspan.indexes.faiss_files import Stretch, import_faiss

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.indexes.faiss_files import FaissDevice

LLOYD_ROUNDS, SAMPLED_A_LIST = 10, 256


class FaissIvfIndex(FaissIndex):
    """About sqrt(T) lists, or `lists`; `probe_share` of them are scanned."""

    kind: ClassVar[str] = "ivf"

    def __init__(
        self,
        lists: int | None = None,
        probe_share: float = 0.3,
        device: FaissDevice = "cpu",
    ) -> None:
        super().__init__(device)
        self.lists, self.probe_share = lists, probe_share

    def make(self, keys_TD: Tensor) -> Stretch:
        """See FaissIndex."""
        faiss = import_faiss()
        tokens, size = keys_TD.shape
        lists = min(round(tokens**0.5) if self.lists is None else self.lists, tokens)
        index = faiss.IndexIVFFlat(
            faiss.IndexFlatIP(size), size, max(1, lists), faiss.METRIC_INNER_PRODUCT
        )
        index.cp.spherical, index.cp.niter = True, LLOYD_ROUNDS
        index.cp.max_points_per_centroid, index.cp.min_points_per_centroid = SAMPLED_A_LIST, 1
        index.train(keys_TD.numpy())
        index.add(keys_TD.numpy())
        return Stretch(index, tokens)

    def probe(self, stretch: Stretch, q_RD: Tensor, k: int, effort: int | None) -> Found:
        """See FaissIndex. The work is the centroids and the keys of the probed lists."""
        index, q = stretch.index, q_RD.numpy()
        probed = max(1, round(self.probe_share * index.nlist)) if effort is None else effort
        index.nprobe = min(probed, index.nlist)
        near_RP, list_RP = index.quantizer.search(q, index.nprobe)
        if stretch.on_gpu is None:
            score_RK, id_RK = index.search_preassigned(q, k, list_RP, near_RP)
        else:
            stretch.on_gpu.nprobe = index.nprobe
            score_RK, id_RK = stretch.on_gpu.search(q, k)
        scanned = sum(
            index.invlists.list_size(int(entry)) for entry in list_RP.ravel() if entry >= 0
        )
        work = float(len(q) * index.nlist + scanned)
        opened = float(len(q) * index.nprobe)
        return Found(torch.from_numpy(score_RK), torch.from_numpy(id_RK), work, opened)

    @property
    def facts(self) -> dict[str, Any]:
        """See FaissIndex."""
        return {"lists": self.lists, "probe_share": self.probe_share, "device": self.device}
