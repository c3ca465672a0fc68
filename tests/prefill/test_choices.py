"""What the patterns choose, against their definitions written out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from tests.methods.cases import layer
from torch import Tensor

from longspan.placement.part import Part
from longspan.prefill import patterns
from longspan.prefill.full import FullPrefill
from longspan.prefill.minference import MInference
from longspan.prefill.sampled import SLAB_BYTES, Sampled
from longspan.prefill.sparse import Grid
from longspan.prefill.xattention import XAttention, enough

if TYPE_CHECKING:
    from longspan.types import LayerGeometry

TOKENS, FIRST = 500, 180
GIVEN = layer(TOKENS, groups=1, heads=2, size=16)


def parts(k_GTD: Tensor = GIVEN.k_GTD, v_GTD: Tensor = GIVEN.v_GTD) -> list[Part]:
    """Two parts of the past and the chunk, none of whole blocks."""
    cuts = ((0, 75), (75, FIRST), (FIRST, TOKENS))
    return [Part(a, k_GTD[:, a:b], v_GTD[:, a:b]) for a, b in cuts]


def geometry() -> LayerGeometry:
    return GIVEN.geometry


@pytest.mark.parametrize("name", ["vertical_slash", "a_shape", "block_sparse", "online"])
def test_what_a_choice_recovers_is_what_the_attention_says(name: str) -> None:
    prefill = MInference(
        vertical_tokens=31, slash_tokens=110, init_tokens=5, local_tokens=70, blocks=2,
        pattern=name,  # type: ignore[arg-type]
    )  # fmt: skip
    grid = Grid(parts(), 64)
    q_HQD = GIVEN.q_HTD[:, FIRST:]
    choice = prefill.choose(geometry(), q_HQD, grid)
    assert choice is not None
    sampled = Sampled.of(geometry(), grid, 0, q_HQD, torch.arange(TOKENS - FIRST))
    *past, chunk = parts()
    sparse = prefill.attend(geometry(), q_HQD, chunk, past)
    dense = FullPrefill().attend(geometry(), q_HQD, chunk, past)
    mass_R = (sparse.lse - dense.lse).exp().mean(1)
    torch.testing.assert_close(sampled.total_RS1[..., 0], dense.lse)
    found_R = sampled.recovered(choice)
    torch.testing.assert_close(found_R, mass_R, atol=1e-5, rtol=1e-5)
    assert (patterns.cost(choice, grid) < TOKENS).all()


@pytest.mark.parametrize("rows", [1, 5, TOKENS - FIRST])
def test_what_rows_attend_is_summed_by_column_and_distance(
    monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setitem(SLAB_BYTES, "cpu", 4 * 2 * rows * 40)
    grid, at_S = Grid(parts(), 64), torch.arange(TOKENS - FIRST - rows, TOKENS - FIRST)
    q_HQD = GIVEN.q_HTD[:, FIRST:]
    column_RP, distance_RP = Sampled.of(geometry(), grid, 0, q_HQD, at_S).lines()
    score_RSP = q_HQD[:, at_S] @ GIVEN.k_GTD[0].T * geometry().scale
    future_SP = torch.arange(TOKENS) > at_S[:, None] + FIRST
    weight_RSP = score_RSP.masked_fill(future_SP, -torch.inf).softmax(-1)
    torch.testing.assert_close(column_RP, weight_RSP.sum(1), atol=1e-5, rtol=1e-5)
    right_RP = torch.zeros_like(distance_RP)
    for number, row in enumerate((at_S + FIRST).tolist()):
        right_RP[:, : row + 1] += weight_RSP[:, number, : row + 1].flip(-1)
    torch.testing.assert_close(distance_RP, right_RP, atol=1e-5, rtol=1e-5)


def test_the_best_columns_and_distances_are_chosen() -> None:
    column_RP, distance_RP = torch.full((2, 1, TOKENS), 1e-6)
    column_RP[0, 77] = 0.5
    distance_RP[0, 300] = 0.4
    grid = Grid(parts(), 64)
    choice = patterns.vertical_slash(column_RP, distance_RP, grid, 31, 101)
    assert choice.columns_HP is not None
    assert choice.columns_HP[0].nonzero()[:, 0].tolist() == [*range(30), 77]
    for x, row in enumerate(grid.row_X.tolist()):
        for y, begin in enumerate(grid.begin_Y.tolist()):
            away = [i - t for i in range(row, row + 64) for t in range(begin, begin + 64)]
            held = any(distance in (*range(100), 300) for distance in away)
            assert bool(choice.blocks_HXY[0, x, y]) == held, (row, begin)


def test_mean_blocks_and_bands() -> None:
    grid = Grid(parts(), 64)
    q_HQD = GIVEN.q_HTD[:, FIRST:]
    chosen = patterns.block_sparse(geometry(), q_HQD, grid, 0, 3).blocks_HXY
    means = [part.keys_GTD[0, t : t + 64].mean(0)
             for part in grid.parts for t in range(0, part.stop - part.first, 64)]  # fmt: skip
    for x, row in enumerate(grid.row_X.tolist()):
        past = [y for y, begin in enumerate(grid.begin_Y.tolist()) if begin < row]
        q_D = GIVEN.q_HTD[0, row : row + 64].mean(0)
        best = sorted(past, key=lambda y: float(means[y] @ q_D), reverse=True)[:2]
        diagonal = grid.begin_Y.tolist().index(row)
        assert set(chosen[0, x].nonzero()[:, 0].tolist()) == {*best, diagonal}
    band = patterns.a_shape(2, grid, 5, 70).blocks_HXY
    for x, row in enumerate(grid.row_X.tolist()):
        for y, begin in enumerate(grid.begin_Y.tolist()):
            near = begin <= row + 63 and row - (begin + 63) < 70
            assert bool(band[1, x, y]) == (begin < 5 or near), (row, begin)


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_antidiagonals_are_summed_and_weighed(softcap: float | None) -> None:
    given = layer(TOKENS, groups=1, heads=2, size=16, softcap=softcap)
    prefill, stride, cells = XAttention(block=64, stride=8), 8, 8
    grid = Grid(parts(given.k_GTD, given.v_GTD), 64)
    q_HQD = given.q_HTD[:, FIRST:]
    found = prefill._scores(given.geometry, q_HQD, grid)
    right = torch.zeros_like(found)
    for cell in range((TOKENS - FIRST) // stride):
        z, where = [], []
        for y, begin in enumerate(grid.begin_Y.tolist()):
            part = next(p for p in grid.parts if p.first <= begin < p.stop)
            for t in range(begin, min(begin + 64, part.stop), stride):
                if t > FIRST + cell * stride:
                    continue
                total = torch.zeros(2)
                for s in range(stride):
                    if t + s < part.stop:
                        q_RD = q_HQD[:, cell * stride + stride - 1 - s]
                        total += q_RD @ given.k_GTD[0, t + s]
                score = total / stride * given.geometry.scale
                z.append(score if softcap is None else softcap * (score / softcap).tanh())
                where.append(y)
        share = torch.stack(z).softmax(0)
        for y, value_R in zip(where, share, strict=True):
            right[:, cell // cells, y] += value_R
    torch.testing.assert_close(found, right, atol=1e-5, rtol=1e-5)


def test_blocks_are_taken_until_they_hold_the_share() -> None:
    score_RXY = torch.tensor([[[0.1, 0.5, 0.05, 0.3, 0.05]]])
    forced_XY = torch.tensor([[True, False, False, False, False]])

    def taken(share: float) -> list[int]:
        return enough(score_RXY, forced_XY, share)[0, 0].nonzero()[:, 0].tolist()

    assert taken(0.05) == [0]
    assert taken(0.55) == [0, 1]
    assert taken(0.85) == [0, 1, 3]
    assert taken(1.0) == [0, 1, 2, 3, 4]
