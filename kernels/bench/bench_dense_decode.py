"""Dense decode attention: against torch, and against what its bytes need at read bandwidth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from report import Table, reader, time_together

from longspan_kernels.dense_decode import dense_decode

if TYPE_CHECKING:
    from report import Settings
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
    """One row a storage type."""
    tokens = 4096 if settings.quick else settings.tokens
    title = f"dense_decode: {HEADS} query / {GROUPS} KV heads, D = {WIDTH}, {tokens:,} tokens"
    head = (
        "storage", "dense_decode", "GB/s", "of read bandwidth", "torch fused", "torch matmul",
        "faster than the faster",
    )  # fmt: skip
    table = Table(title, head)
    read, size = reader()
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        q_HD = torch.randn(HEADS, WIDTH).to(dtype)
        keys_GTD, values_GTD = (torch.randn(GROUPS, tokens, WIDTH).to(dtype) for _ in "kv")
        inputs = (q_HD, keys_GTD, values_GTD)
        seconds = time_together(
            {
                "ours": lambda x=inputs: dense_decode(*x, scale=WIDTH**-0.5),
                "read": read,
                "fused": lambda x=inputs: fused(*x),
                "matmul": lambda x=inputs: grouped_matmul(*x),
            },
            settings,
        )
        rate = (keys_GTD.nbytes + values_GTD.nbytes) / seconds["ours"] / 1e9
        bandwidth = size / seconds["read"] / 1e9
        ratio = min(seconds["fused"], seconds["matmul"]) / seconds["ours"]
        table.rows.append(
            (
                str(dtype).removeprefix("torch."),
                f"{seconds['ours'] * 1e3:.2f} ms",
                f"{rate:.1f}",
                f"{rate / bandwidth:.0%} of {bandwidth:.1f}",
                f"{seconds['fused'] * 1e3:.1f} ms",
                f"{seconds['matmul'] * 1e3:.1f} ms",
                f"{ratio:.1f}x",
            )
        )
    return [table]
