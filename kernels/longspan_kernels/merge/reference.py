"""The slow, obvious merge of partial attentions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.types import Partial

if TYPE_CHECKING:
    from collections.abc import Sequence


def merge(partials: Sequence[Partial]) -> Partial:
    """Attention over the union of disjoint parts: lse = logsumexp, out = sum of exp(lse_i - lse)
    out_i.
    """
    if not partials:
        raise ValueError("partials is empty; merging needs at least one partial attention")
    lse_P = torch.stack([part.lse for part in partials])
    lse = torch.logsumexp(lse_P, dim=0)
    weight_P = torch.exp(lse_P - lse).nan_to_num(0.0)  # every part empty: -inf - -inf
    out = sum(weight[..., None] * part.out for weight, part in zip(weight_P, partials, strict=True))
    return Partial(torch.as_tensor(out), lse)
