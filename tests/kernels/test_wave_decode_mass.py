"""The native step by mass (coverage, gaussian estimation) against the operations that it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kernel_cases import STORAGE, assert_same
from wave_cases import Part, both, step

from longspan_kernels.wave_decode import wave_decode

SHAPES = ((1, 1, 8, ()), (2, 3, 80, (3, 7)), (3, 4, 128, (9,)))


def by_mass(given: dict[str, Any], **options: Any) -> dict[str, Any]:
    """A step whose clusters have spreads from nothing to where masses freeze."""
    spread_GC = 3 * torch.rand(given["size_GC"].shape) ** 2
    return {**given, "spread_GC": spread_GC, "retrieve": 0, **options}


@pytest.mark.parametrize("dtype", STORAGE[:3], ids=str)
@pytest.mark.parametrize("gaussian", [False, True])
@pytest.mark.parametrize(("clusters", "estimate"), [(1, 0), (7, 7), (65, 9), (2600, 600)])
def test_sizes(isa: str, dtype: torch.dtype, gaussian: bool, clusters: int, estimate: int) -> None:
    for shape in SHAPES:
        given = step(*shape[:3], clusters, dtype, shape[3])
        both(by_mass(given, estimate=estimate, coverage=0.6, gaussian=gaussian), isa)
        retrieve = min(clusters // 3, 40)
        estimate = min(estimate, clusters - retrieve) or 1 - retrieve
        both(by_mass(given, retrieve=retrieve, estimate=estimate, gaussian=True), isa)


@pytest.mark.parametrize("dtype", STORAGE[:3], ids=str)
@pytest.mark.parametrize("gaussian", [False, True])
@pytest.mark.parametrize(("clusters", "estimate"), [(7, 0), (65, 9), (2600, 600)])
def test_clusters_ranked_by_mass(
    isa: str, dtype: torch.dtype, gaussian: bool, clusters: int, estimate: int
) -> None:
    for shape in SHAPES:
        given = by_mass(step(*shape[:3], clusters, dtype, shape[3]), vote="mass", gaussian=gaussian)
        given["retrieve"] = min(clusters // 3, 40)
        found = both({**given, "estimate": estimate}, isa)
        plain = wave_decode(**{**given, "estimate": estimate, "vote": "sum"}, backend="reference")
        if clusters > 7:  # it is another choice
            assert not torch.equal(found.retrieved.start_NK, plain.retrieved.start_NK)


def test_everything_at_once_ranked_by_mass(isa: str) -> None:
    given = step(2, 3, 64, 300, torch.bfloat16, (5,))
    for extra in ({}, {"softcap": 2.0}, {"scale": 1.0}):
        wide = by_mass({**given, **extra, "vote": "mass"}, retrieve=9, estimate=70)
        both({**wide, "spread_GC": 30 * wide["spread_GC"]}, isa)  # what is estimated still counts
        for gaussian in (False, True):
            many = {**given, **extra, "vote": "mass", "gaussian": gaussian}
            both(by_mass(many, estimate=70, coverage=0.9), isa)


@pytest.mark.parametrize("coverage", [1e-9, 0.2, 0.9, 0.999, 1.0])
def test_coverage_from_nothing_to_all(isa: str, coverage: float) -> None:
    given = step(2, 3, 64, 300, torch.bfloat16, (5,))
    scale = 0.1 if coverage < 0.1 else 0.5  # so that rounding decides nothing
    right = both(by_mass(given, estimate=70, coverage=coverage, scale=scale), isa)
    live_G = (given["size_GC"] > 0).sum(1)
    if coverage == 1:
        assert torch.equal(right.retrieved.count_N, live_G.int())
        assert not right.estimated.count_N.any()
    elif coverage < 0.1:  # the steady zone has more
        assert not right.retrieved.count_N.any()
        assert (right.estimated.count_N == 70).all()
    else:
        assert (right.retrieved.count_N > 0).all()
        assert (right.retrieved.count_N < live_G).all()


def test_the_steady_zone_counts(isa: str) -> None:
    given = by_mass(step(2, 3, 64, 30, torch.float32, (5,)), estimate=7, coverage=0.3)
    with_it, without = (
        both({**given, "steady": steady}, isa).retrieved.count_N for steady in (given["steady"], ())
    )
    assert (with_it < without).all()


def test_votes_softcap_and_wide_scores(isa: str) -> None:
    given = step(2, 3, 64, 300, torch.bfloat16, (5,))
    for extra in (
        {"vote": "max"},
        {"softcap": 2.0},
        {"scale": 1.0},
        {"scale": 1.0, "softcap": 9.0},
    ):
        both(by_mass({**given, **extra}, estimate=70, coverage=0.9), isa)
        both(by_mass({**given, **extra}, estimate=70, coverage=0.9, gaussian=True), isa)


def test_empty_clusters_have_no_mass(isa: str) -> None:
    given = step(3, 2, 16, 90, torch.float32, ())
    given["size_GC"][0, 5:] = 0
    given["size_GC"][1, 40:] = 0
    given["size_GC"][2] = 0
    for coverage in (0.5, 0.95, 1.0):
        right = both(by_mass(given, estimate=60, coverage=coverage, gaussian=True), isa)
        assert right.retrieved.count_N[0] <= 5
        assert right.retrieved.count_N[2] == right.estimated.count_N[2] == 0


def test_the_bias_is_told(isa: str) -> None:
    given = by_mass(step(2, 3, 64, 300, torch.float32, ()), retrieve=9, estimate=40)
    given["size_GC"][0, :3] = torch.tensor([255, 256, 70_000])
    found, right = (
        wave_decode(**given, gaussian=True, backend=backend) for backend in (isa, "reference")
    )
    assert found.bias_GC is not None
    torch.testing.assert_close(found.bias_GC, right.bias_GC, rtol=1e-5, atol=1e-5)
    assert wave_decode(**given, backend=isa).bias_GC is None  # type: ignore[arg-type]


def test_threads_change_nothing(isa: str) -> None:
    given = by_mass(step(3, 4, 128, 5000, torch.bfloat16, (4,)), estimate=600, coverage=0.7)
    one, three = (wave_decode(**given, backend=isa, threads=n) for n in (1, 3))  # type: ignore[arg-type]
    assert_same(one.partial, three.partial, 0.0, 0.0)


def test_bad_input_is_named() -> None:
    given = by_mass(step(2, 2, 16, 30, torch.float32, ()), estimate=4)
    small = torch.ones(2, 29)
    for change, what in (
        ({"coverage": 0.0}, "coverage is 0.0; it should be in"),
        ({"coverage": 1.5}, "coverage is 1.5"),
        ({"coverage": torch.nan}, "coverage is nan"),
        ({"coverage": 0.5, "retrieve": 3}, "retrieve is 3 with coverage=0.5"),
        ({"coverage": 0.5, "estimate": 31}, "estimate=31"),
        (
            {"coverage": 0.5, "spread_GC": None},
            "spread is None with vote=sum, gaussian=False and coverage=0.5",
        ),
        ({"gaussian": True, "spread_GC": None}, "spread is None with vote=sum, gaussian=True"),
        ({"vote": "mass", "spread_GC": None}, "spread is None with vote=mass, gaussian=False"),
        ({"gaussian": True, "spread_GC": small}, r"spread has shape \[2, 29\]"),
        ({"coverage": 0.5, "stored": [Part(0, torch.ones(1, 9, 16), torch.ones(1, 9, 16))]}, "KV"),
    ):
        with pytest.raises(ValueError, match=what):
            wave_decode(**{**given, **change})
