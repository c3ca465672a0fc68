"""MInference: a pattern a head, its blocks found anew for every chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from longspan.options import Count, Fraction, settings
from longspan.prefill import patterns
from longspan.prefill.sampled import Sampled
from longspan.prefill.sparse import Choice, SparsePrefill

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.prefill.sparse import Grid
    from longspan.types import LayerGeometry

SAMPLED = 64
"""Last rows that show columns and distances, and rows spread over the chunk that judge patterns."""


@settings
class MInference(SparsePrefill):
    """Jiang et al., "MInference 1.0: Accelerating Pre-filling for Long-Context LLMs via Dynamic
    Sparse Attention", arXiv 2407.02490.

    vertical_tokens, slash_tokens: columns and distances of the vertical-slash pattern, those that
    the chunk's last 64 rows attend most. init_tokens, local_tokens: the A-shape. blocks: blocks of
    64 tokens of the block-sparse pattern. pattern: one of them for every head, or `online`: for
    each head and chunk the cheapest that recovers `enough` of the attention of 64 rows spread over
    the chunk, or else the one that recovers most.

    Deviations: the paper assigns patterns offline, by a search on one long prompt a model; `online`
    needs none. Columns and distances come from the last rows of each chunk, not of the prompt,
    which is not known yet when its first chunks are read.
    """

    name: ClassVar[str] = "minference"

    vertical_tokens: Count = 1000
    slash_tokens: Count = 6096
    init_tokens: Count = 128
    local_tokens: Count = 3968
    blocks: Count = 100
    pattern: Literal["online", "vertical_slash", "a_shape", "block_sparse"] = "online"
    enough: Fraction = 0.95

    @property
    def block_tokens(self) -> int:
        """See SparsePrefill."""
        return 64

    def choose(self, geometry: LayerGeometry, q_HQD: Tensor, grid: Grid) -> Choice | None:
        """See SparsePrefill. A context that the smallest pattern covers is read in
        full."""
        sizes = {
            "vertical_slash": self.vertical_tokens + self.slash_tokens,
            "a_shape": self.init_tokens + self.local_tokens,
            "block_sparse": self.blocks * self.block_tokens,
        }
        if grid.parts[-1].stop <= sizes.get(self.pattern, min(sizes.values())):
            return None
        groups = q_HQD.reshape(geometry.kv_heads, -1, *q_HQD.shape[1:])
        found = [self._of_group(geometry, q_RQD, grid, g) for g, q_RQD in enumerate(groups)]
        blocks_HXY = torch.cat([choice.blocks_HXY for choice in found])
        columns = [choice.columns_HP for choice in found if choice.columns_HP is not None]
        return Choice(blocks_HXY, torch.cat(columns) if columns else None)

    def _of_group(self, geometry: LayerGeometry, q_RQD: Tensor, grid: Grid, group: int) -> Choice:
        heads, positions, _ = q_RQD.shape
        choices = []
        if self.pattern in ("online", "vertical_slash"):
            last_S = torch.arange(max(0, positions - SAMPLED), positions, device=grid.device)
            lines = Sampled.of(geometry, grid, group, q_RQD, last_S).lines()
            sizes = self.vertical_tokens, self.slash_tokens
            choices.append(patterns.vertical_slash(*lines, grid, *sizes))
        if self.pattern in ("online", "a_shape"):
            choices.append(patterns.a_shape(heads, grid, self.init_tokens, self.local_tokens))
        if self.pattern in ("online", "block_sparse"):
            choices.append(patterns.block_sparse(geometry, q_RQD, grid, group, self.blocks))
        if len(choices) == 1:
            return choices[0]
        spread_S = torch.linspace(0, positions - 1, SAMPLED, device=grid.device).long()
        return self._best(choices, Sampled.of(geometry, grid, group, q_RQD, spread_S))

    def _best(self, choices: list[Choice], sampled: Sampled) -> Choice:
        """Head by head one of the choices."""
        grid, heads = sampled.grid, len(sampled.q_RSD)
        mass_NR = torch.stack([sampled.recovered(each) for each in choices])
        cost_NR = torch.stack([patterns.cost(each, grid) for each in choices])
        enough_NR = mass_NR >= self.enough
        cheapest_R = cost_NR.masked_fill(~enough_NR, torch.inf).argmin(0)
        best_R = torch.where(enough_NR.any(0), cheapest_R, mass_NR.argmax(0))
        blocks_NRXY = torch.stack([each.blocks_HXY for each in choices])
        shape = heads, grid.parts[-1].stop
        none_RP = torch.zeros(shape, dtype=torch.bool, device=grid.device)
        columns_NRP = torch.stack(
            [none_RP if each.columns_HP is None else each.columns_HP for each in choices]
        )
        heads_R = torch.arange(len(best_R), device=grid.device)
        return Choice(blocks_NRXY[best_R, heads_R], columns_NRP[best_R, heads_R])
