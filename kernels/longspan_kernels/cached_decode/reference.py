"""The slow, obvious attention over near, cached and distant keys and values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.cached_decode.store import LAYER_BITS
from longspan_kernels.dense_decode.reference import dense_decode
from longspan_kernels.types import Partial

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.cached_decode.store import CachedStore
    from longspan_kernels.types import Runs


def cached_decode(
    q_XD: Tensor, store: CachedStore, runs: Runs, *, scale: float, softcap: float | None
) -> Partial:
    """Attend each head's runs; see the package."""
    assert runs.size_NK is not None
    rows = len(runs.count_N)
    parts = []
    for n, q_RD in enumerate(q_XD.view(rows, -1, q_XD.shape[1])):
        live = int(runs.count_N[n])
        pairs = zip(runs.start_NK[n, :live], runs.size_NK[n, :live], strict=True)
        found = [fetched(store, n, int(start), int(size)) for start, size in pairs]
        keys_TD = torch.cat([store.near_keys_NCD[n, :0], *(keys for keys, _ in found)])
        values_TD = torch.cat([store.near_values_NCD[n, :0], *(values for _, values in found)])
        parts.append(
            dense_decode(q_RD, keys_TD[None], values_TD[None], scale=scale, softcap=softcap)
        )
    return Partial(torch.cat([p.out for p in parts]), torch.cat([p.lse for p in parts]))


def fetched(store: CachedStore, n: int, start: int, size: int) -> tuple[Tensor, Tensor]:
    """Keys and values of a run, from wherever they are, [size, D] on the near device."""
    low, high = store.gap_2N[:, n].tolist()
    slot_T = torch.arange(start, start + size, device=store.near_keys_NCD.device)
    home_T = (slot_T >= low) & (slot_T < high)
    slots = store.row_of_NT.shape[1]
    page = store.pool.page
    page_T = torch.where(home_T, start + (slot_T - start) // page * page, 0)
    row_T = store.row_of_NT[n, page_T].long()
    owner_T = store.pool.owner_P[(row_T // page).clamp(min=0)]
    name_T = (store.layer << LAYER_BITS) + n * slots + page_T
    hit_T = home_T & (row_T >= 0) & (owner_T == name_T)
    near_T = torch.where(slot_T < low, slot_T, slot_T - (high - low))
    both = []
    for near_CD, pool_VD, name in (
        (store.near_keys_NCD[n], store.pool.keys_VD, "keys_GTD"),
        (store.near_values_NCD[n], store.pool.values_VD, "values_GTD"),
    ):
        rows_TD = near_CD[torch.where(home_T, 0, near_T)].clone()
        rows_TD[hit_T] = pool_VD[(row_T + slot_T - page_T)[hit_T]]
        missed_T = home_T & ~hit_T
        rows_TD[missed_T] = at_home(store, n, name, slot_T[missed_T])
        both.append(rows_TD)
    return both[0], both[1]


def at_home(store: CachedStore, n: int, name: str, slot_T: Tensor) -> Tensor:
    """Slots of a head as its row's parts have them."""
    a_row = len(store.gap_2N[0]) // len(store.homes)
    rows_TD = store.near_keys_NCD.new_empty(len(slot_T), store.near_keys_NCD.shape[2])
    for part in store.homes[n // a_row]:
        source_TD = getattr(part, name)[n % a_row]
        at_T = slot_T - part.first
        here_T = (at_T >= 0) & (at_T < len(source_TD))
        rows_TD[here_T] = source_TD[at_T[here_T].to(source_TD.device)].to(rows_TD)
    return rows_TD


def admit_pages(store: CachedStore, admitted_BA4: Tensor, count_B: Tensor) -> None:
    """Copy pages from home into the pool; see the package."""
    pool, slots = store.pool, store.row_of_NT.shape[1]
    for listed_A4, count in zip(admitted_BA4.tolist(), count_B.tolist(), strict=True):
        for n, first, size, row in listed_A4[:count]:
            slot_T = torch.arange(first, first + size, device=store.near_keys_NCD.device)
            pool.keys_VD[row : row + size] = at_home(store, n, "keys_GTD", slot_T)
            pool.values_VD[row : row + size] = at_home(store, n, "values_GTD", slot_T)
            store.row_of_NT[n, first] = row
            pool.owner_P[row // pool.page] = (store.layer << LAYER_BITS) + n * slots + first
