"""Dense decode attention: against torch, and against what its bytes need at read bandwidth."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from tables import Table, reader, time_together

from longspan_kernels.dense_decode import dense_decode

if TYPE_CHECKING:
    from collections.abc import Callable

    from tables import Settings
    from torch import Tensor

HEADS, GROUPS, WIDTH = 32, 8, 128


def grouped_matmul(q_HD: Tensor, keys_GTD: Tensor, values_GTD: Tensor) -> Tensor:
    """Attention in two batched matrix products, as one writes it in torch."""
    q_GRD = q_HD.reshape(keys_GTD.shape[0], -1, q_HD.shape[1])
    score_GRT = (q_GRD @ keys_GTD.mT) * WIDTH**-0.5
    return torch.softmax(score_GRT.float(), dim=-1).to(q_HD.dtype) @ values_GTD


def fused(q_HD: Tensor, keys_GTD: Tensor, values_GTD: Tensor) -> Tensor:
    """torch's own fused attention."""
    return F.scaled_dot_product_attention(
        q_HD[None, :, None], keys_GTD[None], values_GTD[None], enable_gqa=True
    )


def run(settings: Settings) -> list[Table]:
    """One row a storage type; int8 rows have a scale each, which torch has no answer to."""
    tokens = settings.tokens
    title = f"dense_decode: {HEADS} query / {GROUPS} KV heads, D = {WIDTH}, {tokens:,} tokens"
    head = (
        "storage", "dense_decode", "GB/s", "of read bandwidth", "torch fused", "torch matmul",
        "faster than the faster",
    )  # fmt: skip
    table = Table(title, head)
    read, size = reader()
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.int8):
        by_torch = dtype.is_floating_point
        q_HD = torch.randn(HEADS, WIDTH).to(dtype if by_torch else torch.float32)
        spread = 1 if by_torch else 40
        keys_GTD, values_GTD = (
            (spread * torch.randn(GROUPS, tokens, WIDTH)).to(dtype) for _ in "kv"
        )
        inputs = (q_HD, keys_GTD, values_GTD)
        unit_GT = None if by_torch else torch.full((GROUPS, tokens), 1 / spread)
        ours = partial(dense_decode, key_scale_GT=unit_GT, value_scale_GT=unit_GT)
        calls: dict[str, Callable[[], object]] = {
            "ours": partial(ours, *inputs, scale=WIDTH**-0.5),
            "read": read,
        }
        if by_torch:
            calls |= {"fused": partial(fused, *inputs), "matmul": partial(grouped_matmul, *inputs)}
        seconds = time_together(calls, settings)
        rate = (keys_GTD.nbytes + values_GTD.nbytes) / seconds["ours"] / 1e9
        bandwidth = size / seconds["read"] / 1e9
        torch_ms = [
            f"{seconds[name] * 1e3:.1f} ms" if by_torch else "-" for name in ("fused", "matmul")
        ]
        ratio = min(seconds.get(name, 0.0) for name in ("fused", "matmul")) / seconds["ours"]
        table.rows.append(
            (
                str(dtype).removeprefix("torch."),
                f"{seconds['ours'] * 1e3:.2f} ms",
                f"{rate:.1f}",
                f"{rate / bandwidth:.0%} of {bandwidth:.1f}",
                *torch_ms,
                f"{ratio:.1f}x" if by_torch else "-",
            )
        )
    return [table]


def cases(settings: Settings) -> dict[str, Callable[[], list[Table]]]:
    """See run.py."""
    return {"": partial(run, settings)}
