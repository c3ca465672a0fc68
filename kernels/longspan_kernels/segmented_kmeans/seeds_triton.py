"""What clusters begin with, all segments of a length together, in Triton where it is one by one."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from longspan_kernels.jit import device_of, pow2
from longspan_kernels.segmented_kmeans import reference_seeds
from longspan_kernels.segmented_kmeans.reference import bounds

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.segmented_kmeans.reference_seeds import Seeding

HELD = 1 << 26
"""Numbers of keys that are held in float32 at once (256 MB; four times that with what is made of
them)."""


@triton.jit
def pick_row(near, alike, found, count, P, BLOCK: tl.constexpr):
    """The places of `count` of P tokens: again and again the least like, what is chosen included;
    ties go to the first.
    """
    row = tl.program_id(0).to(tl.int64)
    p = tl.arange(0, BLOCK)
    near_P = tl.load(near + row * P + p, p < P, float("inf"))
    for i in range(count):
        at = tl.argmin(near_P, 0, tie_break_left=True)
        tl.store(found + row * count + i, at)
        near_P = tl.maximum(near_P, tl.load(alike + (row * P + at) * P + p, p < P, float("inf")))


def picked(near_GP: Tensor, alike_GPP: Tensor, count: int) -> Tensor:
    """As the reference, in one launch."""
    groups, pool = near_GP.shape
    found_GC = torch.empty(groups, count, dtype=torch.int64, device=near_GP.device)
    with device_of(near_GP):
        pick_row[(groups,)](
            near_GP.contiguous(), alike_GPP.contiguous(), found_GC, count, pool,
            BLOCK=pow2(pool, 16), num_warps=1,
        )  # fmt: skip
    return found_GC


def seeds(
    keys_GTD: Tensor, mean_GD: Tensor, clusters: int, segments: int, seeding: Seeding
) -> Tensor:
    """float32 [G, C, D]: as the reference, segment by segment."""
    groups, tokens, width = keys_GTD.shape
    token_bounds, cluster_bounds = bounds(tokens, segments), bounds(clusters, segments)
    alike = defaultdict(list)
    for part in range(segments):
        size, count = (edge[part + 1] - edge[part] for edge in (token_bounds, cluster_bounds))
        alike[size, count].append(part)
    found_GCD = keys_GTD.new_empty(groups, clusters, width, dtype=torch.float32)
    make = partial(reference_seeds.seeds, seeding=seeding, pick=picked)
    for (size, count), parts in alike.items():
        together = max(1, HELD // (groups * size * width))
        for first in range(0, len(parts), together):
            some = parts[first : first + together]
            x_GSTD = torch.stack([keys_GTD[:, token_bounds[i] :][:, :size] for i in some], 1)
            x_XTD = (x_GSTD.float() - mean_GD[:, None, None]).flatten(0, 1)
            made_GSCD = make(x_XTD, count).unflatten(0, (groups, -1))
            for each, i in enumerate(some):
                found_GCD[:, cluster_bounds[i] :][:, :count] = made_GSCD[:, each]
    return found_GCD
