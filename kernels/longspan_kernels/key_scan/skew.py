"""Columns as InfiniGen has them (Lee et al., OSDI 2024, arXiv 2406.19707, section 4.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.attention_graph.maps import COLUMNS, Maps

if TYPE_CHECKING:
    from torch import Tensor


def skewed_maps(keys_TD: Tensor, queries_SD: Tensor, rank: int) -> Maps:
    """Keys and queries are turned by the right singular vectors of the queries; kept are the `rank`
    columns with the largest sums of absolute values, of queries and of keys, here a mean each, as
    the queries are a sample. Zeros fill up at the end.

    Keys lose their mean, which changes all scores of a query alike.
    """
    size = keys_TD.shape[1]
    largest = queries_SD.abs().max() if len(queries_SD) else queries_SD.new_zeros(())
    axes_DD = torch.eye(size)
    if largest > 0:
        unit_SD = (queries_SD / largest).double()
        # singular vectors of the queries are eigenvectors of their second moment
        axes_DD = torch.linalg.eigh(unit_SD.T @ unit_SD).eigenvectors.flip(1).float()
    weight_D = (keys_TD @ axes_DD).abs().mean(0)
    if len(queries_SD):
        weight_D = weight_D + (queries_SD @ axes_DD).abs().mean(0)
    kept_DW = axes_DD[:, weight_D.topk(rank).indices]
    kept_DW = torch.nn.functional.pad(kept_DW, (0, -rank % COLUMNS)).contiguous()
    return Maps(keys_TD.mean(0), kept_DW, kept_DW)
