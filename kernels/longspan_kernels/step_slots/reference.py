"""The slow, obvious places of a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.types import Runs

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.types import Chosen


def append_token(
    keys_NCD: Tensor,
    values_NCD: Tensor,
    k_BGD: Tensor,
    v_BGD: Tensor,
    at_B: Tensor,
    skipped_B: Tensor | None,
) -> None:
    """Write a token; see the package."""
    heads = keys_NCD.shape[0]
    slot_B = at_B if skipped_B is None else at_B - skipped_B
    place = (torch.arange(heads, device=at_B.device), _spread(slot_B, heads))
    keys_NCD.index_put_(place, k_BGD.flatten(0, 1).to(keys_NCD.dtype))
    values_NCD.index_put_(place, v_BGD.flatten(0, 1).to(values_NCD.dtype))


def zone_runs(at_B: Tensor, heads: int, chosen: Chosen | None, zones: bool) -> Runs:
    """The runs of a step; see the package."""
    length_N = _spread(at_B + 1, heads).int()
    none_N = torch.zeros_like(length_N)
    if chosen is None:
        return Runs(
            torch.stack([none_N, none_N], 1), torch.stack([none_N, length_N], 1), none_N + 2
        )
    live_NK = torch.arange(chosen.id_NK.shape[1], device=at_B.device) < chosen.count_N[:, None]
    id_NK = torch.where(live_NK, chosen.id_NK, 0)
    if chosen.start_NC is None or chosen.size_NC is None:
        start_NK, size_NK = id_NK, torch.ones_like(id_NK)
    else:
        start_NK, size_NK = (x.gather(1, id_NK.long()) for x in (chosen.start_NC, chosen.size_NC))
    if not zones:
        return Runs(start_NK, size_NK, chosen.count_N)
    first_N, stop_N = (_spread(each_B, heads).int() for each_B in chosen.indexed_2B)
    return Runs(
        torch.cat([torch.stack([none_N, stop_N], 1), start_NK], 1),
        torch.cat([torch.stack([first_N, length_N - stop_N], 1), size_NK], 1),
        chosen.count_N + 2,
    )


def _spread(number_B: Tensor, heads: int) -> Tensor:
    return number_B.repeat_interleave(heads // len(number_B), output_size=heads)
