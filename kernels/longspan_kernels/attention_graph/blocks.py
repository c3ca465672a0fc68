"""The exact nearest keys of many queries, on any device, in blocks that fit it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

QUERIES, KEYS = 1024, 65_536
"""A block: 256 MiB of products."""


def nearest(queries_SW: Tensor, rows_NW: Tensor, k: int, device: torch.device) -> Tensor:
    """As the reference, found on `device`; the result is where the queries are."""
    found_SK = torch.full((len(queries_SW), k), -1, dtype=torch.int32)
    queries_SW = queries_SW.to(device)
    best = queries_SW.new_full((len(queries_SW), 0), 0.0)
    ids = torch.zeros(len(queries_SW), 0, dtype=torch.int64, device=device)
    for begin in range(0, len(rows_NW), KEYS):
        rows_BW = rows_NW[begin : begin + KEYS].to(device)
        parts = [
            (query_QW @ rows_BW.T).topk(min(k, len(rows_BW)), dim=1)
            for query_QW in torch.split(queries_SW, QUERIES)
        ]
        best = torch.cat([best, torch.cat([part.values for part in parts])], dim=1)
        ids = torch.cat([ids, torch.cat([part.indices for part in parts]) + begin], dim=1)
        best, order = best.topk(min(k, best.shape[1]), dim=1)
        ids = ids.gather(1, order)
    found_SK[:, : ids.shape[1]] = ids.int().to(found_SK.device)
    return found_SK
