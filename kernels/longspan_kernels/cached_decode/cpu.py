"""Attention over near and distant keys and values on the native kernels: what is at home is read
there, as a cache in the same memory would be a copy of it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

from longspan_kernels.dense_decode.cpu import rows_obstacle
from longspan_kernels.sparse_decode import sparse_decode
from longspan_kernels.types import Partial, Runs

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.cached_decode.store import CachedStore
    from longspan_kernels.dispatch import Backend


def obstacle(q_XD: Tensor, store: CachedStore) -> str | None:
    """Why the kernels cannot attend these; None if they can."""
    parts = [
        rows for row in store.homes for part in row for rows in (part.keys_GTD, part.values_GTD)
    ]
    return rows_obstacle(q_XD, store.near_keys_NCD, store.near_values_NCD, *parts)


def cached_decode(
    q_XD: Tensor,
    store: CachedStore,
    runs: Runs,
    *,
    scale: float,
    softcap: float | None,
    backend: Backend,
) -> Partial:
    """As the reference; parts over a first axis. Shapes depend on no number."""
    assert runs.size_NK is not None
    low_N1, high_N1 = store.gap_2N[..., None]
    at_home_NK = (runs.start_NK >= low_N1) & (runs.start_NK < high_N1)
    behind_NK = runs.start_NK >= high_N1
    near_NK = torch.where(behind_NK, runs.start_NK - (high_N1 - low_N1), runs.start_NK)
    near = Runs(near_NK, torch.where(at_home_NK, 0, runs.size_NK), runs.count_N)
    home_NK = torch.where(at_home_NK, runs.size_NK, 0)
    attend = partial(sparse_decode, scale=scale, softcap=softcap, backend=backend)
    keys_NCD, values_NCD = store.near_keys_NCD, store.near_values_NCD
    parts = [attend(q_XD, keys_NCD, values_NCD, near)]
    rows = len(store.homes)
    q_BRD = q_XD.view(rows, -1, q_XD.shape[1])
    lists = [x.chunk(rows) for x in (runs.start_NK, home_NK, runs.count_N)]
    for height in range(max(map(len, store.homes))):
        row_parts = []
        for row, (homes, q_RD) in enumerate(zip(store.homes, q_BRD, strict=True)):
            if height >= len(homes):
                lse_R = q_RD.new_full(q_RD.shape[:1], -torch.inf, dtype=torch.float32)
                row_parts.append(Partial(torch.zeros_like(q_RD, dtype=torch.float32), lse_R))
                continue
            part, mine = homes[height], Runs(*(each[row] for each in lists))
            stored = part.keys_GTD, part.values_GTD
            row_parts.append(attend(q_RD, *stored, mine, first=part.first))
        parts.append(Partial(*(torch.cat(each) for each in zip(*row_parts, strict=True))))
    return Partial(*(torch.stack(each) for each in zip(*parts, strict=True)))
