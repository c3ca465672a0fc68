"""Random layers and an oracle that shares no code with the package."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from longspan.types import LayerGeometry, Partial

if TYPE_CHECKING:
    from longspan.methods.base import LayerState
    from longspan.methods.retrieval import RetrievalState
    from longspan.methods.retroinfer import RetroInfer


@dataclass(frozen=True)
class Layer:
    """Queries, keys and values of one layer of one sequence."""

    geometry: LayerGeometry
    q_HTD: Tensor
    k_GTD: Tensor
    v_GTD: Tensor

    def scores(self, position: int, tokens: int) -> Tensor:
        """float64 [H, T]: the scores of the query at `position` with the first tokens."""
        groups, _, size = self.k_GTD.shape
        q_GRD = self.q_HTD[:, position].double().reshape(groups, -1, size)
        z_GRT = q_GRD @ self.k_GTD[:, :tokens].double().mT * self.geometry.scale
        if self.geometry.softcap is not None:
            z_GRT = (z_GRT / self.geometry.softcap).tanh() * self.geometry.softcap
        return z_GRT.flatten(0, 1)

    def oracle(self, position: int, tokens: int | None = None) -> Partial:
        """Softmax attention of one position over the first tokens (default: up to itself)."""
        z_HT = self.scores(position, position + 1 if tokens is None else tokens)
        heads = self.q_HTD.shape[0] // self.k_GTD.shape[0]
        v_HTD = self.v_GTD[:, : z_HT.shape[1]].double().repeat_interleave(heads, 0)
        weight_HT = z_HT.softmax(-1)
        return Partial((weight_HT[:, None] @ v_HTD)[:, 0].float(), z_HT.logsumexp(-1).float())

    def prefill(self, state: LayerState, *bounds: int) -> list[Partial]:
        """Prefill the chunks [bounds[i], bounds[i + 1])."""
        spans = [slice(a, b) for a, b in itertools.pairwise(bounds)]
        return [state.prefill(self.q_HTD[:, s], self.k_GTD[:, s], self.v_GTD[:, s]) for s in spans]

    def step(self, state: LayerState, position: int) -> Partial:
        """Append and decode one position."""
        state.append(self.k_GTD[:, position], self.v_GTD[:, position])
        return state.decode(self.q_HTD[:, position])


def layer(
    tokens: int,
    *,
    groups: int = 2,
    heads: int = 2,
    size: int = 8,
    dtype: torch.dtype = torch.float32,
    softcap: float | None = None,
    seed: int = 0,
) -> Layer:
    """A layer with keys that share a mean and drift, as real ones do; `heads` per group."""
    rng = torch.Generator().manual_seed(seed)
    q_HTD = torch.randn(groups * heads, tokens, size, generator=rng)
    k_GTD = torch.randn(groups, tokens, size, generator=rng)
    drift_GTD = torch.randn(groups, tokens // 8 + 1, size, generator=rng).repeat_interleave(8, 1)
    k_GTD = k_GTD + 2 * drift_GTD[:, :tokens] + torch.randn(groups, 1, size, generator=rng)
    v_GTD = torch.randn(groups, tokens, size, generator=rng)
    geometry = LayerGeometry(
        layer=0,
        query_heads=groups * heads,
        kv_heads=groups,
        head_size=size,
        scale=size**-0.5,
        dtype=dtype,
        device=torch.device("cpu"),
        softcap=softcap,
    )
    return Layer(geometry, q_HTD.to(dtype), k_GTD.to(dtype), v_GTD.to(dtype))


def assert_close(found: Partial, right: Partial, tolerance: float = 1e-5) -> None:
    """Both out and lse agree."""
    torch.testing.assert_close(found.out, right.out, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(found.lse, right.lse, atol=tolerance, rtol=tolerance)


def sealed(given: Layer, method: RetroInfer, prompt: int) -> RetrievalState:
    """A state that has read the first `prompt` tokens."""
    state = method.layer(given.geometry)
    given.prefill(state, 0, prompt)
    state.seal()
    return state
