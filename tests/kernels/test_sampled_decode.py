"""Attention over sampled entries: every path against the reference, and that against a loop."""

from __future__ import annotations

from math import acos, comb, pi
from typing import Any

import pytest
import torch

from longspan_kernels.sampled_decode import sampled_decode
from longspan_kernels.sampled_decode.reference import probability
from longspan_kernels.types import Runs, Sampling

CASES: dict[str, dict[str, Any]] = {
    "small": {},
    "soft cap": {"softcap": 5.0},
    "R=1": {"groups": 3, "heads": 1},
    "R=71": {"groups": 1, "heads": 71, "width": 64},
    "D=80, bfloat16": {"width": 80, "dtype": torch.bfloat16},
    "float16": {"dtype": torch.float16, "width": 256},
    "more than a piece": {"tokens": 6000, "most": 5000, "groups": 1, "heads": 2},
    "the paper's larger": {"bits": 11, "tables": 300},
}


def inputs(
    groups: int = 2, heads: int = 4, tokens: int = 500, width: int = 32, most: int = 200,
    dtype: torch.dtype = torch.float32, softcap: float | None = None, bits: int = 4,
    tables: int = 30,
) -> tuple[tuple[Any, ...], dict[str, Any]]:  # fmt: skip
    """Arguments; counts are ragged, and the first head sampled nothing."""
    keys_GTD = (torch.randn(groups, tokens, width) + torch.randn(groups, 1, width)).to(dtype)
    values_GTD = torch.randn(groups, tokens, width).to(dtype)
    q_HD = torch.randn(groups * heads, width).to(dtype)
    slot_HK = torch.rand(len(q_HD), tokens).argsort(1)[:, :most].sort(1).values.int()
    count_H = torch.randint(1, most + 1, (len(q_HD),), dtype=torch.int32)
    count_H[0] = 0
    mean_GD = keys_GTD.mean(1, dtype=torch.float32)
    norm_GT = (keys_GTD.float() - mean_GD[:, None]).norm(dim=-1)
    runs = Runs(slot_HK + 7, None, count_H)
    given = q_HD, keys_GTD, values_GTD, runs, Sampling(mean_GD, norm_GT, bits, tables)
    return given, {"first": 7, "scale": width**-0.5, "softcap": softcap}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_paths_agree(case: str, threads: int, isa: Any) -> None:
    given, options = inputs(**CASES[case])
    found = sampled_decode(*given, **options, backend=isa, threads=threads)
    right = sampled_decode(*given, **options, backend="reference")
    torch.testing.assert_close(found.out, right.out, atol=2e-4, rtol=2e-4)
    torch.testing.assert_close(found.lse, right.lse, atol=2e-4, rtol=1e-5)
    assert found.lse[0] == -float("inf")
    assert not found.out[0].any()


def test_a_part_of_the_entries_is_attended(isa: Any) -> None:
    (q_HD, keys_GTD, values_GTD, runs, sampling), options = inputs()
    cut = 200
    parts = []
    for first, rows in ((7, slice(None, cut)), (7 + cut, slice(cut, None))):
        some = sampling._replace(norm_GT=sampling.norm_GT[:, rows])
        given = q_HD, keys_GTD[:, rows], values_GTD[:, rows], runs, some
        found, right = (
            sampled_decode(*given, **options | {"first": first}, backend=backend)
            for backend in (isa, "reference")
        )
        torch.testing.assert_close(found.lse, right.lse, atol=2e-4, rtol=1e-5)
        parts.append(found.lse)
    whole = sampled_decode(q_HD, keys_GTD, values_GTD, runs, sampling, **options, backend=isa)
    torch.testing.assert_close(torch.stack(parts).logsumexp(0)[1:], whole.lse[1:])


def test_each_weighs_by_how_unlikely_it_was() -> None:
    given, options = inputs(bits=3, tables=6)
    q_HD, keys_GTD, values_GTD, runs, sampling = given
    found = sampled_decode(*given, **options, backend="reference")
    for head in range(1, len(q_HD)):
        weights, rows = [], []
        for slot in runs.start_NK[head, : int(runs.count_N[head])].tolist():
            key_D, q_D = keys_GTD[head // 4, slot - 7].double(), q_HD[head].double()
            centred_D = key_D - sampling.mean_GD[head // 4].double()
            same = 1 - acos(float(centred_D @ q_D / centred_D.norm() / q_D.norm())) / pi
            chance = sum(
                comb(6, n) * same ** (3 * n) * (1 - same**3) ** (6 - n) for n in range(2, 7)
            )
            weights.append(float((key_D @ q_D * options["scale"]).exp()) / (chance + 1e-4))
            rows.append(values_GTD[head // 4, slot - 7].double())
        weight_K = torch.tensor(weights, dtype=torch.float64)
        out_D = weight_K @ torch.stack(rows) / weight_K.sum()
        torch.testing.assert_close(found.out[head].double(), out_D, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            found.lse[head].double(), weight_K.sum().log(), atol=1e-4, rtol=0
        )


def test_keys_at_their_mean_are_at_a_right_angle(isa: Any) -> None:
    given, options = inputs()
    q_HD, keys_GTD, values_GTD, runs, sampling = given
    for rounding in (0.0, 1e-6):
        still = sampling._replace(norm_GT=torch.full_like(sampling.norm_GT, rounding))
        keys_GTD = sampling.mean_GD[:, None].expand_as(keys_GTD) + rounding * torch.randn(32)
        given = q_HD, keys_GTD.contiguous(), values_GTD, runs, still
        found, right = (sampled_decode(*given, **options, backend=b) for b in (isa, "reference"))
        torch.testing.assert_close(found.out, right.out, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.lse, right.lse, atol=1e-4, rtol=1e-5)
        weight = 1 / (float(probability(torch.zeros(()), 4, 30)) + 1e-4)
        score_H = (q_HD.view(2, 4, -1) @ sampling.mean_GD[..., None]).flatten() * options["scale"]
        lse_H = score_H + (runs.count_N * weight).log()
        torch.testing.assert_close(found.lse, lse_H, atol=1e-4, rtol=1e-5)


def test_what_is_not_sampled_is_not_read(isa: Any) -> None:
    """By any path, whatever lies there and behind the counts."""
    (q_HD, keys_GTD, values_GTD, runs, sampling), options = inputs(groups=1)
    beyond_HK = torch.arange(runs.start_NK.shape[1]) >= runs.count_N[:, None]
    slot_HK = runs.start_NK.masked_fill(beyond_HK, -(2**31))
    slot_HK[:, :-1] += 20  # the first entries are nobody's, and the last lie outside
    runs = Runs(slot_HK, None, runs.count_N)
    right = sampled_decode(q_HD, keys_GTD, values_GTD, runs, sampling, **options, backend=isa)
    for tensor in (keys_GTD, values_GTD, sampling.norm_GT):
        tensor[:, :20] = float("nan")
    for backend in (isa, "reference"):
        given = q_HD, keys_GTD, values_GTD, runs, sampling
        found = sampled_decode(*given, **options, backend=backend)
        torch.testing.assert_close(found.out, right.out, atol=2e-4, rtol=2e-4)
        torch.testing.assert_close(found.lse, right.lse, atol=2e-4, rtol=1e-5)
        one = sampled_decode(*given, **options, stacked=True, backend=backend)
        assert torch.equal(one.out, found.out[None])
        assert torch.equal(one.lse, found.lse[None])


def test_the_reference_asks_for_no_number() -> None:
    """There is none in these tensors, which have shapes alone."""
    (q_HD, keys_GTD, values_GTD, runs, sampling), options = inputs()
    there = Runs(runs.start_NK.to("meta"), None, runs.count_N.to("meta"))
    mean_GD, norm_GT = sampling.mean_GD.to("meta"), sampling.norm_GT.to("meta")
    found = sampled_decode(
        *(x.to("meta") for x in (q_HD, keys_GTD, values_GTD)), there,
        sampling._replace(mean_GD=mean_GD, norm_GT=norm_GT), **options, backend="reference",
    )  # fmt: skip
    assert found.out.shape == q_HD.shape


def test_no_entry_at_all() -> None:
    (q_HD, keys_GTD, values_GTD, runs, sampling), options = inputs()
    none = sampling._replace(norm_GT=sampling.norm_GT[:, :0])
    given = q_HD, keys_GTD[:, :0], values_GTD[:, :0], runs, none
    found = sampled_decode(*given, **options, backend="reference")
    assert not found.out.any()
    assert found.lse.isneginf().all()


def test_what_does_not_fit_is_refused() -> None:
    (q_HD, keys_GTD, values_GTD, runs, sampling), options = inputs()
    short = sampling._replace(norm_GT=sampling.norm_GT[:, 1:])
    with pytest.raises(ValueError, match=r"norm has shape \[2, 499\]"):
        sampled_decode(q_HD, keys_GTD, values_GTD, runs, short, **options)
    sized = Runs(runs.start_NK, torch.ones_like(runs.start_NK), runs.count_N)
    with pytest.raises(ValueError, match="runs have sizes"):
        sampled_decode(q_HD, keys_GTD, values_GTD, sized, sampling, **options)
    shared = Runs(runs.start_NK[:2], None, runs.count_N[:2])
    with pytest.raises(ValueError, match="runs have shape"):
        sampled_decode(q_HD, keys_GTD, values_GTD, shared, sampling, **options)
