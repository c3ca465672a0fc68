"""FAISS's exact scan by inner product."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from longspan.indexes.faiss_base import FaissIndex, Found
from longspan.indexes.faiss_files import Stretch, import_faiss

if TYPE_CHECKING:
    from torch import Tensor


class FaissFlatIndex(FaissIndex):
    """Every key is scored."""

    kind: ClassVar[str] = "flat"

    def make(self, keys_TD: Tensor) -> Stretch:
        """See FaissIndex."""
        index = import_faiss().IndexFlatIP(keys_TD.shape[1])
        index.add(keys_TD.numpy())
        return Stretch(index, len(keys_TD))

    def probe(self, stretch: Stretch, q_RD: Tensor, k: int, effort: int | None) -> Found:
        """See FaissIndex."""
        score_RK, id_RK = (stretch.on_gpu or stretch.index).search(q_RD.numpy(), k)
        work = float(len(q_RD) * stretch.tokens)
        return Found(torch.from_numpy(score_RK), torch.from_numpy(id_RK), work)

    @property
    def facts(self) -> dict[str, Any]:
        """See FaissIndex."""
        return {"device": self.device}
