"""Prefill attention by PyTorch's flash kernels, which say how much they attended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.dense_prefill import reference
from longspan_kernels.merge import merge
from longspan_kernels.types import Partial

if TYPE_CHECKING:
    from torch import Tensor

AMPERE = (8, 0)
"""Older GPUs have no flash kernel."""
WIDEST = 256
"""Largest head size of the kernel for CUDA."""


def serves(q_HQD: Tensor, keys_GTD: Tensor) -> bool:
    """Whether there is a flash kernel for these tensors: on CUDA for 16-bit ones alone."""
    if q_HQD.device.type == "cpu":
        return True
    alike = q_HQD.dtype == keys_GTD.dtype and q_HQD.dtype in (torch.bfloat16, torch.float16)
    size = q_HQD.shape[-1]
    if q_HQD.device.type != "cuda" or not alike or size % 8 or size > WIDEST:
        return False
    return torch.cuda.get_device_capability(q_HQD.device) >= AMPERE


def flash(q_HQD: Tensor, k_HTD: Tensor, v_HTD: Tensor, scale: float, causal: bool) -> Partial:
    """One call of the kernel; as many query heads as key heads, and Q = T where `causal`."""
    inputs = q_HQD[None], k_HTD[None], v_HTD[None]
    if q_HQD.device.type == "cpu":
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            *inputs, 0.0, causal, scale=scale
        )
    else:
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention(
            *inputs, 0.0, causal, False, scale=scale
        )[:2]
    return Partial(out[0].float(), lse[0].float())


def dense_prefill(
    q_HQD: Tensor, keys_GTD: Tensor, values_GTD: Tensor, *, scale: float, causal: bool
) -> Partial:
    """As the reference, without soft cap; nothing of size Q x T is held."""
    groups, entries, size = keys_GTD.shape
    heads, positions, _ = q_HQD.shape
    if not positions or not entries:  # the kernels divide by them
        return reference.dense_prefill(q_HQD, keys_GTD, values_GTD, scale=scale, causal=causal)
    past = entries - positions if causal else entries
    partials = []
    if past:
        # every entry serves every position, so the heads of a group become rows of one head
        q_GXD = q_HQD.reshape(groups, -1, size)
        past_part = flash(q_GXD, keys_GTD[:, :past], values_GTD[:, :past], scale, causal=False)
        out_HQD = past_part.out.reshape(heads, positions, size)
        partials.append(Partial(out_HQD, past_part.lse.reshape(heads, positions)))
    if causal:
        spread = (groups, heads // groups, positions, size)
        k_HQD = keys_GTD[:, past:, :][:, None].expand(spread).reshape(heads, positions, size)
        v_HQD = values_GTD[:, past:, :][:, None].expand(spread).reshape(heads, positions, size)
        partials.append(flash(q_HQD, k_HQD, v_HQD, scale, causal=True))
    return merge(partials) if len(partials) > 1 else partials[0]
