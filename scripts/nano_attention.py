"""A training forward of the embedded model: virtual length, and keys that some do not see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from nano_model import HEAD

if TYPE_CHECKING:
    from nano_clusters import Probe
    from torch import Tensor

EXTRA = 8
"""Dimensions added to a head to carry biases through a fused attention kernel."""
UNSEEN = -1e4
"""Bias of a key that the queries of the tail do not see."""


def virtual_length(
    haystack_BT: Tensor, wanted: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Positions and key bias that make short rows behave like rows of `wanted` tokens.

    A haystack run of c tokens with multiplicity m stands for m copies of itself: its keys weigh m
    times as much (bias ln m) and what follows is (m - 1) * c positions further on, part of the jump
    lying before the run. Returns positions_BT (int64) and bias_BT (float32).
    """
    rows, length = haystack_BT.shape
    positions_BT = torch.arange(length).repeat(rows, 1)
    bias_BT = torch.zeros(rows, length)
    for row in range(rows):
        counts_R = torch.bincount(haystack_BT[row])
        counts_R[0] = 0
        missing = wanted - length
        runs = counts_R.nonzero().flatten()
        if missing <= 0 or not len(runs):
            continue
        weights = torch.rand(len(runs), generator=generator).pow(2) * counts_R[runs] + 1e-3
        extra = missing * weights / weights.sum()
        before = torch.rand(len(runs), generator=generator) * extra
        gaps_T = torch.zeros(length)
        for index, run in enumerate(runs):
            where = (haystack_BT[row] == run).nonzero().flatten()
            bias_BT[row, where] = torch.log1p(extra[index] / counts_R[run])
            gaps_T[where[0]] += before[index]
            if where[-1] + 1 < length:
                gaps_T[where[-1] + 1] += extra[index] - before[index]
        positions_BT[row] += gaps_T.cumsum(0).long()
    return positions_BT, bias_BT


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


@dataclass(frozen=True)
class Biases:
    """What is added to the scores of a key, (B, T) each: for every query, and for those of the tail
    alone, layer by layer.
    """

    every_BT: Tensor
    tail_BT: Tensor
    """1.0 where the query belongs to the tail."""
    unseen_NBT: Tensor
    """1.0 where layer n hides a key from the tail."""

    def attach(self, layer: int, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys with EXTRA dimensions whose products are the biases."""
        heads, groups = q.shape[1], k.shape[1]
        on_q = torch.stack((torch.ones_like(self.tail_BT), self.tail_BT), dim=-1)
        on_k = torch.stack((self.every_BT, UNSEEN * self.unseen_NBT[layer]), dim=-1)
        on_q, on_k = (F.pad(x, (0, EXTRA - 2)).to(q.dtype)[:, None] for x in (on_q, on_k))
        q = torch.cat((q, on_q.expand(-1, heads, -1, -1)), dim=-1)
        return q, torch.cat((k, on_k.expand(-1, groups, -1, -1)), dim=-1)


def unseen_haystack(haystack_BT: Tensor, layers: int, generator: torch.Generator) -> Tensor:
    """Hide parts of the haystack, (N, B, T) float: in each layer and row none, all, or a share.

    What a head returns to a question must not hang on the average of what it does not look for, as
    it does not in large models, whose heads rest on a sink.
    """
    rows, length = haystack_BT.shape
    rate_NB1 = torch.rand(layers, rows, 1, generator=generator) * 2 - 0.5
    drawn_NBT = torch.rand(layers, rows, length, generator=generator)
    return ((drawn_NBT < rate_NB1) & (haystack_BT > 0)).float()


def after_haystack(haystack_BT: Tensor) -> Tensor:
    """1.0 for the tokens behind the last haystack: the questions and answers."""
    later_BT = haystack_BT.flip(1).cummax(1).values.flip(1)
    return (later_BT == 0).float()


def _fused(q: Tensor, k: Tensor, v: Tensor, biased: tuple[Biases, int] | None) -> Tensor:
    """Causal attention [B, H, T, D] of scaled queries, with the biases of a layer."""
    if biased is not None:
        q, k = biased[0].attach(biased[1], q, k)
        v = F.pad(v, (0, EXTRA))
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    out = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True, scale=1.0)
    return out[..., :HEAD]


def _attention(
    mixer: Any,
    x_BTC: Tensor,
    rotation: tuple[Tensor, Tensor],
    biases: Biases | None,
    probe: Probe | None,
    layer: int,
) -> Tensor:
    rows, length, _ = x_BTC.shape
    q = mixer.q_proj(x_BTC).view(rows, length, -1, HEAD).transpose(1, 2)
    k = mixer.k_proj(x_BTC).view(rows, length, -1, HEAD).transpose(1, 2)
    v = mixer.v_proj(x_BTC).view(rows, length, -1, HEAD).transpose(1, 2)
    q, k = _rotate(q, *rotation) * HEAD**-0.5, _rotate(k, *rotation)
    if probe is not None:
        probe.note(layer, q, k)
    out = _fused(q, k, v, None if biases is None else (biases, layer))
    if probe is not None:
        out = probe.attended(layer, q, k, v, out)
    mixed: Tensor = mixer.o_proj(out.transpose(1, 2).reshape(rows, length, -1))
    return mixed


def hidden_states(
    model: Any,
    ids_BT: Tensor,
    positions_BT: Tensor,
    biases: Biases | None,
    probe: Probe | None = None,
) -> Tensor:
    """Last hidden states after the final norm, (B, T, C); equals Hugging Face's without biases."""
    body = model.model
    x = body.embed_tokens(ids_BT)
    cos, sin = body.rotary_emb(x, positions_BT)
    cos, sin = cos[:, None].to(torch.float32), sin[:, None].to(torch.float32)
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        cos, sin = cos.to(dtype), sin.to(dtype)
    for index, layer in enumerate(body.layers):
        normed = layer.input_layernorm(x)
        x = x + _attention(layer.self_attn, normed, (cos, sin), biases, probe, index)
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    out: Tensor = body.norm(x)
    return out
