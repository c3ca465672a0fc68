"""Coordinates in which a graph holds its keys: those in which distance is difference of scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.attention_graph.options import Metric

COLUMNS = 32
"""Widths are multiples of this."""
SHRINKAGE = 1e-3
"""Share of a plain Euclidean metric mixed into that of the queries, for directions in which few of
them were seen."""

LEAST_SPREAD = 1e-30
"""Keys nearer than this are one: their codes would not fit into float32."""


class Maps(NamedTuple):
    """x = (key - mean) @ to_codes_DW and y = query @ to_queries_DW: y.x = query.(key - mean)."""

    mean_D: Tensor
    to_codes_DW: Tensor
    to_queries_DW: Tensor


def score_maps(keys_TD: Tensor, queries_SD: Tensor, width: int | None, metric: Metric) -> Maps:
    """Float32 maps in which |x - x'|^2 is the mean of (q.k - q.k')^2 over the queries (`queries`),
    or |k - k'|^2 (`keys`), up to one factor; columns in falling order of spread, zeros at the end.
    """
    size = keys_TD.shape[1]
    mean_D = keys_TD.mean(0)
    root_DD, inverse_DD = roots(queries_SD, size, metric)
    centred_TD = keys_TD - mean_D
    scale = centred_TD.abs().max().double().clamp(min=LEAST_SPREAD)
    unit_TD = (centred_TD / scale.float()).float()
    covariance_DD = (unit_TD.T @ unit_TD).double() / len(unit_TD)
    spread_D, axes_DD = torch.linalg.eigh(root_DD @ covariance_DD @ root_DD)
    axes_DD = axes_DD.flip(1)[:, : size if width is None else min(width, size)]
    factor = scale * spread_D.clamp(min=0).sum().sqrt().clamp(min=1e-6)
    padding = (0, -axes_DD.shape[1] % COLUMNS)
    to_codes_DW = torch.nn.functional.pad(root_DD @ axes_DD / factor, padding)
    to_queries_DW = torch.nn.functional.pad(inverse_DD @ axes_DD * factor, padding)
    return Maps(mean_D, to_codes_DW.float().contiguous(), to_queries_DW.float().contiguous())


def roots(queries_SD: Tensor, size: int, metric: Metric) -> tuple[Tensor, Tensor]:
    """The symmetric root of the queries' second moment and its inverse, float64 [D, D], scaled to a
    mean eigenvalue of 1; the identity where there are no queries or the metric is that of keys.
    """
    eye_DD = torch.eye(size, dtype=torch.float64)
    largest = queries_SD.abs().max() if len(queries_SD) else queries_SD.new_zeros(())
    if metric == "keys" or largest == 0:
        return eye_DD, eye_DD
    unit_SD = queries_SD / largest
    moment_DD = (unit_SD.T @ unit_SD).double()
    moment_DD = moment_DD / moment_DD.diagonal().mean() + SHRINKAGE * eye_DD
    value_D, vector_DD = torch.linalg.eigh(moment_DD)
    value_D = value_D.clamp(min=SHRINKAGE / 2).sqrt()
    return vector_DD * value_D @ vector_DD.T, vector_DD / value_D @ vector_DD.T
