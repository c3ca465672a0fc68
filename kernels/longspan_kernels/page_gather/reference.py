"""The slow, obvious copies of pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.types import Pages


def entries(pages: Pages) -> tuple[Tensor, Tensor, Tensor]:
    """int64 [V] each: row of the buffer, entry in it, source; one an entry that the pages name."""
    width = pages.source_NP.shape[1]
    live_NP = torch.arange(width, device=pages.count_N.device) < pages.count_N[:, None]
    size_NP = torch.where(live_NP, pages.size_NP, 0)
    step_S = torch.arange(pages.page, device=size_NP.device)
    row_V, page_V, step_V = (step_S < size_NP[..., None]).nonzero(as_tuple=True)
    source_V = pages.source_NP[row_V, page_V].long()
    target_V = pages.target_NP[row_V, page_V].long() + step_V
    return row_V, target_V, torch.where(source_V < 0, source_V - step_V, source_V + step_V)


def page_gather(
    keys_GTD: Tensor,
    values_GTD: Tensor,
    cached_keys_VD: Tensor | None,
    cached_values_VD: Tensor | None,
    pages: Pages,
    out_keys_NED: Tensor,
    out_values_NED: Tensor,
    *,
    first: int = 0,
) -> None:
    """Fill a buffer from a store and a cache; see the package."""
    row_V, target_V, source_V = entries(pages)
    rows_a_group = out_keys_NED.shape[0] // keys_GTD.shape[0]
    slot_V = ~source_V - first
    stored_V = (source_V < 0) & (slot_V >= 0) & (slot_V < keys_GTD.shape[1])
    cached_V = source_V >= 0
    at, group, slot = (row_V[stored_V], target_V[stored_V]), row_V // rows_a_group, slot_V
    pick = (group[stored_V].to(keys_GTD.device), slot[stored_V].to(keys_GTD.device))
    for source, cache, out in (
        (keys_GTD, cached_keys_VD, out_keys_NED),
        (values_GTD, cached_values_VD, out_values_NED),
    ):
        out[at] = source[pick].to(out.device)
        if cache is not None:
            out[row_V[cached_V], target_V[cached_V]] = cache[source_V[cached_V]]


def page_admit(
    keys_NED: Tensor,
    values_NED: Tensor,
    pages: Pages,
    cached_keys_VD: Tensor,
    cached_values_VD: Tensor,
) -> None:
    """Copy pages of a buffer into a cache; see the package."""
    row_V, target_V, source_V = entries(pages)
    cached_V = source_V >= 0
    source_V, at = source_V[cached_V], (row_V[cached_V], target_V[cached_V])
    cached_keys_VD[source_V] = keys_NED[at]
    cached_values_VD[source_V] = values_NED[at]
