"""ShadowKV's index: chunks of consecutive tokens, known by the mean of their keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F

from longspan.indexes.paged import PagedIndex

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from longspan.indexes.base import Segment


BLOCK_PAGES = 1024
"""Looked at at once, in float32."""


class LandmarkIndex(PagedIndex):
    """The mean key of a chunk, its landmark, speaks for it (ShadowKV, arXiv 2410.21465, section
    4.2), but for `outliers` of the prompt's chunks: those that hold the key least like their
    landmark, by the cosine. These are always read.
    """

    kind: ClassVar[str] = "longspan.landmarks"

    def __init__(self, page_tokens: int = 8, outliers: float = 0.003) -> None:
        """`outliers`: a share of the chunks that `build` takes in."""
        super().__init__(page_tokens)
        self.outliers = outliers
        self._outlier_GO: Tensor | None = None  # int64

    def known(self, segment: Segment) -> Tensor:
        """Landmarks."""
        keys_GPTD = self.cut(segment.keys_GTD)
        return keys_GPTD.mean(2, dtype=torch.float32).to(keys_GPTD.dtype)

    def asked(self, q_HD: Tensor) -> Tensor:
        """The query itself."""
        return q_HD

    def build(self, segment: Segment) -> None:
        """See PagedIndex; outliers are chosen within the stretch."""
        before = self.pages
        super().build(segment)  # which looks at the keys
        blocks = torch.split(segment.keys_GTD, BLOCK_PAGES * self.page_tokens, dim=1)
        alike_GP = torch.cat([least_alike(each, self.page_tokens) for each in blocks], dim=1)
        count = round(self.outliers * alike_GP.shape[1])
        self._always(alike_GP.topk(count, dim=-1, largest=False).indices + before)

    def append(self, segment: Segment) -> None:
        """What is generated has no outliers."""
        super().build(segment)
        self._always(segment.keys_GTD.new_empty(len(segment.keys_GTD), 0, dtype=torch.int64))

    def voted(self, score_BHP: Tensor, always_BGP: Tensor) -> Tensor:
        """The outliers, then the others by the largest share that a query head of the group gives a
        landmark; logarithms, lest small shares be 0, as those of pages that are not there.
        """
        share_BHP = score_BHP.log_softmax(-1)
        share_BGRP = share_BHP.reshape(*always_BGP.shape[:2], -1, score_BHP.shape[-1])
        return share_BGRP.amax(2).masked_fill(always_BGP, 1.0)  # more than any share

    @property
    def always(self) -> int:
        """See PagedIndex."""
        return 0 if self._outlier_GO is None else self._outlier_GO.shape[1]

    @property
    def always_GP(self) -> Tensor:
        """See PagedIndex: the outliers."""
        assert self._outlier_GO is not None
        return super().always_GP.scatter(1, self._outlier_GO, True)

    def _always(self, page_GO: Tensor) -> None:
        kept = [] if self._outlier_GO is None else [self._outlier_GO]
        self._outlier_GO = torch.cat([*kept, page_GO], dim=-1)

    @property
    def facts(self) -> Mapping[str, Any]:
        """See PagedIndex."""
        return {**super().facts, "outliers": self.outliers}

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """See PagedIndex."""
        assert self._outlier_GO is not None
        return {**super().tensors, "outliers": self._outlier_GO}

    def adopt(self, tensors: Mapping[str, Tensor]) -> None:
        """See PagedIndex."""
        super().adopt(tensors)
        self._outlier_GO = tensors["outliers"]


def least_alike(keys_GTD: Tensor, page_tokens: int) -> Tensor:
    """float32 [G, P]: the least cosine between a key of a page and their mean."""
    groups, tokens, width = keys_GTD.shape
    keys_GPTD = keys_GTD.float().reshape(groups, tokens // page_tokens, page_tokens, width)
    return F.cosine_similarity(keys_GPTD, keys_GPTD.mean(2, keepdim=True), dim=-1).amin(-1)
