"""Attention over sampled entries in Triton against the reference, as in test_triton.py."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
import torch
from kernel_cases import assert_same, rows, runs
from triton_cases import DTYPES, TOLERANCE, both, moved

from longspan_kernels.merge import merge
from longspan_kernels.sampled_decode import sampled_decode
from longspan_kernels.sampled_decode.reference import LEAST_CHANCE, probability
from longspan_kernels.types import Partial, Runs, Sampling

pytestmark = pytest.mark.skipif(not find_spec("triton"), reason="Triton is not installed")
EMPTY = float("-inf")


def inputs(
    groups: int, a_group: int, entries: int, width: int, dtype: torch.dtype, bits: int, tables: int
) -> tuple[Any, ...]:
    """Keys around a mean in a longer store; counts are ragged, and the first head has none."""
    keys_GTD, values_GTD = (
        (rows(groups, entries, width, dtype, strided=True).data_GTD + shift) for shift in (2, 0)
    )
    mean_GD = keys_GTD.mean(1, dtype=torch.float32)
    norm_GT = (keys_GTD.float() - mean_GD[:, None]).norm(dim=-1)
    q_HD = torch.randn(groups * a_group, width).to(dtype)
    which = runs(len(q_HD), entries, entries * 2 // 3, sized=False)
    return q_HD, keys_GTD, values_GTD, which, Sampling(mean_GD, norm_GT, bits, tables)


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d is not torch.int8], ids=str)
@pytest.mark.parametrize(
    ("groups", "a_group", "entries", "width", "bits", "tables", "softcap"),
    [
        (1, 1, 1, 64, 4, 30, None),
        (2, 2, 333, 96, 10, 150, None),
        (1, 4, 150, 128, 11, 300, 5.0),
        (2, 7, 70, 192, 1, 2, None),
        (1, 8, 65, 256, 16, 5, 2.0),
        (1, 40, 33, 80, 8, 75, None),
    ],
)
def test_sampled_decode(
    dtype: torch.dtype,
    groups: int,
    a_group: int,
    entries: int,
    width: int,
    bits: int,
    tables: int,
    softcap: float | None,
) -> None:
    given = inputs(groups, a_group, entries, width, dtype, bits, tables)
    found, right = both(sampled_decode, *given, scale=width**-0.5, softcap=softcap)
    assert_same(found, right, TOLERANCE[dtype], TOLERANCE[dtype])
    assert found.lse[0] == EMPTY
    assert found.out[0].eq(0).all()


def test_keys_at_their_mean_are_at_a_right_angle() -> None:
    """But for rounding, which says nothing of an angle."""
    q_HD, keys_GTD, values_GTD, which, sampling = inputs(1, 2, 40, 64, torch.float32, 4, 30)
    noise_TD = 1e-6 * torch.randn(40, 64)
    keys_GTD = sampling.mean_GD[:, None] + noise_TD
    still = sampling._replace(norm_GT=noise_TD.norm(dim=-1)[None])
    found, right = both(sampled_decode, q_HD, keys_GTD, values_GTD, which, still, scale=0.1)
    assert_same(found, right, 1e-4, 1e-4)
    chance = probability(torch.zeros(()), 4, 30)
    score = 0.1 * q_HD[1] @ sampling.mean_GD[0] - (chance + 1e-4).log()
    assert float(found.lse[1]) == pytest.approx(float(score + which.count_N[1].log()), abs=1e-4)


def test_parts_of_a_store_make_the_whole() -> None:
    q_HD, keys_GTD, values_GTD, which, sampling = moved(
        list(inputs(2, 3, 200, 64, torch.float32, 4, 30))
    )
    cut, options = 77, {"scale": 0.2, "backend": "triton"}
    parts = []
    for first, part in ((5, slice(0, cut)), (5 + cut, slice(cut, None))):
        some = sampling._replace(norm_GT=sampling.norm_GT[:, part])
        at = Runs(which.start_NK + 5, None, which.count_N)
        parts.append(
            sampled_decode(
                q_HD, keys_GTD[:, part], values_GTD[:, part], at, some, first=first, **options
            )
        )
    whole = sampled_decode(q_HD, keys_GTD, values_GTD, which, sampling, **options)
    assert_same(merge(parts, backend="triton"), whole)


def test_the_pieces_are_as_many_as_are_expected_to_be_worth_it() -> None:
    given = inputs(1, 2, 300, 64, torch.float32, 4, 30)
    whole = sampled_decode(*given, scale=0.2, backend="reference")
    options = {"scale": 0.2, "stacked": True, "backend": "triton"}
    few, many = (
        sampled_decode(*moved(list(given)), **options, expected=most) for most in (1, 100_000)
    )
    assert len(few.out) == 1 < len(many.out)
    for found in (few, many):
        assert_same(moved_back(merge([found], stacked=True, backend="triton")), whole)


def moved_back(part: Partial) -> Partial:
    return Partial(part.out.cpu(), part.lse.cpu())


@pytest.mark.parametrize(("bits", "tables"), [(10, 150), (11, 300), (1, 2), (16, 3), (4, 1000)])
def test_chances_are_those_of_float64(bits: int, tables: int) -> None:
    """One entry a head, of which the angle is known. What float32 costs grows with the tables."""
    angle_H = torch.cat([torch.linspace(0, torch.pi, 60), torch.tensor([1e-4, 3e-3, 3.139])])
    cosine_H, heads = angle_H.cos(), len(angle_H)
    q_HD = torch.zeros(heads, 8)
    q_HD[:, 0] = 1
    keys_1TD = torch.zeros(1, heads, 8)
    keys_1TD[0, :, 0] = cosine_H
    which = Runs(torch.arange(heads)[:, None].int(), None, torch.ones(heads).int())
    sampling = Sampling(torch.zeros(1, 8), torch.ones(1, heads), bits, tables)
    found = sampled_decode(
        *moved([q_HD, keys_1TD, keys_1TD, which, sampling]), scale=0.0, backend="triton"
    )
    right_H = -(probability(cosine_H, bits, tables) + LEAST_CHANCE).log()
    torch.testing.assert_close(
        found.lse.cpu().double(), right_H, rtol=0, atol=1e-5 + tables * 2**-24
    )


def test_what_is_not_sampled_is_not_read() -> None:
    q_HD, keys_GTD, values_GTD, which, sampling = inputs(1, 2, 60, 64, torch.float32, 4, 30)
    named = set(which.start_NK[1, : int(which.count_N[1])].tolist())
    others = [t for t in range(60) if t not in named]
    for tensor in (keys_GTD, values_GTD, sampling.norm_GT):
        tensor[:, others] = float("nan")
    found, _ = both(sampled_decode, q_HD, keys_GTD, values_GTD, which, sampling, scale=0.2)
    assert found.out.isfinite().all()


def test_what_the_kernel_cannot_read_is_refused() -> None:
    q_HD, keys_GTD, values_GTD, which, sampling = inputs(1, 2, 60, 64, torch.float32, 4, 30)
    wide = sampling._replace(norm_GT=sampling.norm_GT.double())
    with pytest.raises(ValueError, match=r"numbers are torch.float64"):
        sampled_decode(q_HD, keys_GTD, values_GTD, which, wide, scale=0.2, backend="triton")
    with pytest.raises(ValueError, match=r"no Triton kernel reads torch.float64"):
        sampled_decode(
            q_HD.double(), keys_GTD, values_GTD, which, sampling, scale=0.2, backend="triton"
        )
