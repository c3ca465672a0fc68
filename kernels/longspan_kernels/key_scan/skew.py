"""Columns as InfiniGen has them (Lee et al., OSDI 2024, arXiv 2406.19707, section 4.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.attention_graph.maps import COLUMNS, Maps

if TYPE_CHECKING:
    from torch import Tensor


SHARE = 1e-9
"""Of the keys' second moment in that of the queries: it turns the axes that no query has, of which
rounding would choose else, and no other by more than that.
"""


def skewed_maps(keys_TD: Tensor, queries_SD: Tensor, rank: int) -> Maps:
    """Keys and queries are turned by the right singular vectors of the queries; kept are the `rank`
    columns with the largest sums of absolute values, of queries and of keys, here a mean each, as
    the queries are a sample. Zeros fill up at the end.

    Keys lose their mean, which changes all scores of a query alike.
    """
    size = keys_TD.shape[1]
    axes_DD, moment_DD = torch.eye(size), _second_moment(queries_SD)
    if moment_DD.any():
        moment_DD += SHARE * _second_moment(keys_TD - keys_TD.mean(0))
        # singular vectors of the queries are eigenvectors of their second moment
        axes_DD = torch.linalg.eigh(moment_DD).eigenvectors.flip(1).float()
    weight_D = (keys_TD @ axes_DD).abs().mean(0)
    if len(queries_SD):
        weight_D = weight_D + (queries_SD @ axes_DD).abs().mean(0)
    kept_DW = axes_DD[:, weight_D.topk(rank).indices]
    kept_DW = torch.nn.functional.pad(kept_DW, (0, -rank % COLUMNS)).contiguous()
    return Maps(keys_TD.mean(0), kept_DW, kept_DW)


def _second_moment(rows_ND: Tensor) -> Tensor:
    """[D, D] float64, a mean, of the rows by the largest element."""
    largest = rows_ND.abs().max() if len(rows_ND) else rows_ND.new_zeros(())
    unit_ND = (rows_ND / largest if largest > 0 else rows_ND).double()
    return unit_ND.T @ unit_ND / max(1, len(unit_ND))
