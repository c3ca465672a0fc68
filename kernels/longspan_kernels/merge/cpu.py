"""The native merge of partial attentions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.dispatch import native, not_plain, thread_count
from longspan_kernels.types import Partial

if TYPE_CHECKING:
    from collections.abc import Sequence


def obstacle(partials: Sequence[Partial]) -> str | None:
    """Why the native merge cannot take these; None if it can."""
    for partial in partials:
        for tensor in partial:
            if tensor.dtype != torch.float32 or not tensor.is_contiguous():
                return f"a partial is {tensor.dtype} with strides {tensor.stride()}"
    return not_plain(tensor for partial in partials for tensor in partial)


def merge(partials: Sequence[Partial], *, threads: int | None, isa: str) -> Partial:
    """As the reference."""
    out, lse = torch.empty_like(partials[0].out), torch.empty_like(partials[0].lse)
    outs, lses = [p.out.detach() for p in partials], [p.lse.detach() for p in partials]
    native.merge(outs, lses, out, lse, thread_count(threads), isa)
    return Partial(out, lse)
