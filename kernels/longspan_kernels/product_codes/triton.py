"""Product quantisation in Triton: the search. Scores of single heads are never stored."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
import triton

from longspan_kernels.jit import device_of, pow2
from longspan_kernels.product_codes.scores_triton import (
    store_lse,
    store_masses,
    store_scores,
    store_weights,
)
from longspan_kernels.product_codes.tables_triton import table_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan_kernels.types import Coded, CodedRows, Sharing

TILE, MOST_TOKENS, MOST_LANES, PART_BLOCK = 4096, 2048, 16, 256
"""Look-ups a program has at once, of how many tokens and heads at most; blocks whose masses it
adds at once."""


def best_tokens(
    q_HD: Tensor, coded: Sequence[Coded], wanted: int, scale: float, share: Sharing
) -> Tensor:
    """As the reference, but in no order. It does not look for queries that are not finite, nor for
    codes that name no centroid, which would stop the device: weights are NaN there.
    """
    heads, groups = len(q_HD), len(coded[0].code_GPT)
    alone = share == "query_head" or heads == groups  # then weights are ordered as scores are
    tokens = [each.code_GPT.shape[2] for each in coded]
    rows = heads if alone else groups
    score_NT = torch.empty(rows, sum(tokens), dtype=torch.float32, device=q_HD.device)
    with device_of(q_HD):
        stretches = [
            Stretch(each.code_GPT, table_of(q_HD, each.centroids_GPCE, scale), some_NT)
            for each, some_NT in zip(coded, score_NT.split(tokens, dim=1), strict=True)
        ]
        (write_scores if alone else write_weights)(stretches)
    return score_NT.topk(wanted, sorted=False).indices.int()


def step_tokens(q_XD: Tensor, coded: CodedRows, most: int, scale: float, share: Sharing) -> Tensor:
    """As the reference, with the launches of one stretch for all rows."""
    centroids_NPCE, code_NPT, stop_BS = coded
    heads, (groups, _, room) = len(q_XD), code_NPT.shape
    alone = share == "query_head" or heads == groups
    score_NT = torch.empty(
        heads if alone else groups, room, dtype=torch.float32, device=q_XD.device
    )
    with device_of(q_XD):
        table_NPRC = table_of(q_XD, centroids_NPCE, scale)
        rows = Stretch(code_NPT, table_NPRC, score_NT, stop_BS.contiguous())
        (write_scores if alone else write_weights)([rows])
    return score_NT.topk(most).indices.int()


class Stretch(NamedTuple):
    """Tokens of one codebook, or of rows with codebooks of their own, and where their scores or
    weights go.
    """

    code_GPT: Tensor
    table_GPRC: Tensor
    score_NT: Tensor
    stop_BS: Tensor | None = None
    """As CodedRows has it."""

    @property
    def read(self) -> tuple[Tensor, ...]:
        """What the kernels read of it."""
        stop_BS = self.code_GPT if self.stop_BS is None else self.stop_BS
        return self.code_GPT, self.table_GPRC, stop_BS

    @property
    def sizes(self) -> tuple[int, ...]:
        """As the kernels take them."""
        groups, _, a_group, clusters = self.table_GPRC.shape
        a_row = groups if self.stop_BS is None else groups // len(self.stop_BS)
        strides = self.code_GPT.stride()[:2]
        return (self.code_GPT.shape[2], groups, a_row, a_group, clusters, *strides)

    @property
    def tile(self) -> dict[str, int]:
        """Parts, codebooks of a row, heads and tokens that a program looks up at once, and its
        warps: look-ups wait.
        """
        _, parts, a_group, _ = self.table_GPRC.shape
        block_r = min(pow2(a_group), MOST_LANES)
        block_t = min(TILE // block_r, MOST_TOKENS)
        books = 0 if self.stop_BS is None else self.stop_BS.shape[1]
        return {
            "P": parts, "BOOKS": books, "BLOCK_R": block_r, "BLOCK_T": block_t, "num_warps": 8
        }  # fmt: skip

    @property
    def blocks(self) -> int:
        """Of tokens."""
        return int(triton.cdiv(self.code_GPT.shape[2], self.tile["BLOCK_T"]))

    @property
    def rows(self) -> int:
        """Blocks of heads, of all groups."""
        groups, _, a_group, _ = self.table_GPRC.shape
        return groups * int(triton.cdiv(a_group, self.tile["BLOCK_R"]))


def write_scores(stretches: Sequence[Stretch]) -> None:
    """The scores of every query head."""
    for each in stretches:
        store_scores[(each.blocks, each.rows)](
            *each.read, each.score_NT, each.score_NT.stride(0),
            *each.sizes, **each.tile,
        )  # fmt: skip


def write_weights(stretches: Sequence[Stretch]) -> None:
    """The logarithms of the weights of every group; all masses first."""
    blocks = [each.blocks for each in stretches]
    groups, _, a_group, _ = stretches[0].table_GPRC.shape
    floats = partial(torch.empty, dtype=torch.float32, device=stretches[0].score_NT.device)
    heads, number = groups * a_group, sum(blocks)
    top_HB, mass_HB, lse_H = floats(heads, number), floats(heads, number), floats(heads)
    some = zip(stretches, top_HB.split(blocks, dim=1), mass_HB.split(blocks, dim=1), strict=True)
    for each, *parts in some:
        store_masses[(each.blocks, each.rows)](*each.read, *parts, number, *each.sizes, **each.tile)
    store_lse[(heads,)](top_HB, mass_HB, lse_H, number, BLOCK_B=PART_BLOCK, num_warps=1)
    for each in stretches:
        store_weights[(each.blocks, groups)](
            *each.read, lse_H, each.score_NT, each.score_NT.stride(0),
            *each.sizes, **each.tile,
        )  # fmt: skip
