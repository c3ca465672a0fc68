"""What each option beyond the paper does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from tests.methods.cases import assert_close, layer, sealed

from longspan.methods.retroinfer import RetroInfer

if TYPE_CHECKING:
    from longspan.indexes.wave_options import Tail


def test_gaussian_estimation_corrects_the_bias_of_gaussian_clusters() -> None:
    rng = torch.Generator().manual_seed(0)
    given = layer(2100, size=32)
    centre_GCD = 2 * torch.randn(2, 132, 32, generator=rng)
    noise_GTD = 0.7 * torch.randn(2, 2100, 32, generator=rng)
    given = replace(given, k_GTD=centre_GCD.repeat_interleave(16, 1)[:, :2100] + noise_GTD)
    bias = {}
    for name in ("clusters", "gaussian"):
        method = RetroInfer(retrieval_budget=0.001, estimation_budget=1.0, estimation=name)
        state = sealed(given, method, 2090)
        steps = range(2090, 2100)
        bias[name] = sum(
            float((given.step(state, t).lse - given.oracle(t).lse).mean()) for t in steps
        )
    assert bias["clusters"] < 0
    assert abs(bias["gaussian"]) < abs(bias["clusters"]) / 3


@pytest.mark.parametrize("options", [
    {"vote": "max"}, {"vote": "sized"}, {"vote": "mass"}, {"vote": "unmet"},
    {"tail": "segment_mean"},
    {"estimation": "none"}, {"estimation": "clusters"}, {"tolerance": 0.01},
    {"final_assignment": "global", "outlier_budget": 0}, {"outlier_budget": 0.2},
    {"clusters_per_group": 8}, {"seeding": "farthest"}, {"seeding": "even"},
    {"tolerance": 0.01, "tail": "segment_mean"},
])  # fmt: skip
def test_every_ablation_comes_near_full_attention(options: dict[str, str | float]) -> None:
    given = layer(3000, seed=3)
    method = RetroInfer(retrieval_budget=0.3, segment_tokens=1000, **options)  # type: ignore[arg-type]
    state = sealed(given, method, 2990)
    for position in range(2990, 3000):
        found, right = given.step(state, position), given.oracle(position)
        error = (found.out - right.out).norm() / right.out.norm()
        assert float(error) < 0.6
    assert state.work().exact_tokens < 2900


def test_the_tail_lets_everything_count() -> None:
    given = layer(3000)
    without, within = (
        RetroInfer(tail=tail, estimation="gaussian") for tail in ("none", "segment_mean")
    )
    gaps: list[float] = []
    for method in (without, within):
        state = sealed(given, method, 2999)
        gaps.append(float((given.oracle(2999).lse - given.step(state, 2999).lse).abs().mean()))
    assert gaps[1] < gaps[0] / 2


def test_a_tolerance_reads_what_an_estimate_would_get_wrong() -> None:
    given = layer(3000, seed=5)
    errors: list[float] = []
    read: list[float] = []
    for tolerance in (0.0, 0.1, 0.01, 0.003):
        state = sealed(given, RetroInfer(estimation_budget=0.5, tolerance=tolerance), 2999)
        found, right = given.step(state, 2999), given.oracle(2999)
        errors.append(float((found.out - right.out).norm() / right.out.norm()))
        read.append(state.work().exact_tokens)
    assert read == sorted(read)
    assert errors[1:] == sorted(errors[1:], reverse=True)
    assert errors[-1] < errors[0] / 2
    assert read[-1] < 2000


@pytest.mark.parametrize("tail", ["none", "segment_mean"])  # in one call, and by its parts
def test_a_least_number_of_clusters_is_read(tail: Tail) -> None:
    for tokens, least, right in ((3000, 9, 9), (200, 7, 7), (200, 99, 8), (3000, 1, 2)):
        given = layer(tokens, seed=7)
        method = RetroInfer(
            retrieval_budget=0.01, min_clusters=least, tolerance=0.0, tail=tail,
            outlier_budget=0.0, update_tokens=100,
        )  # fmt: skip
        state = sealed(given, method, tokens - 1)
        given.step(state, tokens - 1)
        assert state.selection.retrieved is not None
        assert set(state.selection.retrieved.count_N.tolist()) == {right}


def test_single_keys_are_estimated_exactly_and_not_read() -> None:
    given = layer(3000, seed=6)
    method = RetroInfer(
        tokens_per_cluster=1, retrieval_budget=0.001, estimation_budget=0.999, tolerance=1e-9
    )
    state = sealed(given, method, 2999)
    assert_close(given.step(state, 2999), given.oracle(2999))
    assert state.work().exact_tokens < 200  # clusters of two, and the steady zone


def test_without_estimates_there_is_nothing_to_tolerate() -> None:
    without, other = (
        RetroInfer(estimation="none", tolerance=tolerance).clusters(None) for tolerance in (0, 0.5)
    )
    assert without == other


def test_outliers_are_of_segments() -> None:
    with pytest.raises(ValueError, match=r"outlier_budget is 0\.02 with final_assignment=global"):
        RetroInfer(final_assignment="global")
