"""What the rows of a decode operation read, as Triton kernels take it, and what pieces come to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from longspan_kernels.jit import pow2, scan_runs
from longspan_kernels.merge.triton import merge_stacks
from longspan_kernels.types import Partial

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.types import Runs


def finished(pieces_PHD: Partial, stacked: bool) -> Partial:
    """The pieces, or what they are together."""
    if stacked:
        return pieces_PHD
    if len(pieces_PHD.out) == 1:
        return Partial(pieces_PHD.out[0], pieces_PHD.lse[0])
    return merge_stacks(pieces_PHD)


class Lists(NamedTuple):
    """What each row reads, as the kernel takes it; tensors without a use are any tensor."""

    start_NK: Tensor
    end_NK: Tensor
    stop_NK: Tensor
    counts: Tensor
    """Numbers of a list [N]; numbers of ranges, and of what they hold [2, N]."""
    width: int
    reads: Literal["all", "list", "ranges"]
    expected: int
    """About how many entries a row reads; only the host's guess."""


def read_lists(
    runs: Runs | None, entries: int, first: int, unused: Tensor, begins: bool = False
) -> Lists:
    """Scan the runs, where there are any with sizes, for the places of their entries; `begins`: and
    keep where those that have any start.
    """
    if runs is None:
        return Lists(unused, unused, unused, unused, 1, "all", entries)
    start_NK, count_N = runs.start_NK.contiguous(), runs.count_N.contiguous()
    rows, width = start_NK.shape
    if runs.size_NK is None:
        return Lists(start_NK, unused, unused, count_N, width, "list", width)
    end_NK, stop_NK = torch.empty_like(start_NK), torch.empty_like(start_NK)
    size_NK, kept_2N = runs.size_NK.contiguous(), torch.empty_like(count_N.expand(2, -1))
    begin_NK = torch.empty_like(start_NK) if begins else unused
    scan_runs[(rows,)](
        start_NK, size_NK, count_N, begin_NK, end_NK, stop_NK, kept_2N, entries, first, width,
        BEGINS=begins, BLOCK=min(pow2(width, 16), 1024), num_warps=1,
    )  # fmt: skip
    return Lists(begin_NK, end_NK, stop_NK, kept_2N, width, "ranges", min(16 * width, entries))
