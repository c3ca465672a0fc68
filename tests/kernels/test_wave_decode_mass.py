"""The native step by mass (tolerance, gaussian estimation) against the operations that it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kernel_cases import STORAGE, assert_same
from wave_cases import LOCAL, Part, both, runs_of, step

from longspan_kernels.wave_decode import wave_decode
from longspan_kernels.wave_decode.mass import estimate_errors

SHAPES = ((1, 1, 8, ()), (2, 3, 80, (3, 7)), (3, 4, 128, (9,)))


def by_mass(given: dict[str, Any], **options: Any) -> dict[str, Any]:
    """A step whose clusters have spreads from nothing to where masses freeze."""
    spread_GC = 3 * torch.rand(given["size_GC"].shape) ** 2
    retrieve = min(given["size_GC"].shape[1] // 3, 40)
    return {**given, "spread_GC": spread_GC, "retrieve": retrieve, **options}


@pytest.mark.parametrize("dtype", STORAGE[:3], ids=str)
@pytest.mark.parametrize("gaussian", [False, True])
@pytest.mark.parametrize(("clusters", "estimate"), [(1, 0), (7, 7), (65, 9), (2600, 600)])
def test_sizes(isa: str, dtype: torch.dtype, gaussian: bool, clusters: int, estimate: int) -> None:
    for shape in SHAPES:
        given = step(*shape[:3], clusters, dtype, shape[3])
        retrieve = min(clusters // 3, 40)
        most = min(estimate, clusters - retrieve) or 1 - min(retrieve, 1)
        both(by_mass(given, estimate=most, tolerance=0.002, gaussian=gaussian), isa)
        both(by_mass(given, estimate=most, gaussian=True), isa)


@pytest.mark.parametrize("dtype", STORAGE[:3], ids=str)
@pytest.mark.parametrize("gaussian", [False, True])
@pytest.mark.parametrize(("clusters", "estimate"), [(7, 0), (65, 9), (2600, 600)])
def test_clusters_ranked_by_mass(
    isa: str, dtype: torch.dtype, gaussian: bool, clusters: int, estimate: int
) -> None:
    for shape in SHAPES:
        given = by_mass(step(*shape[:3], clusters, dtype, shape[3]), vote="mass", gaussian=gaussian)
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
            both(by_mass(many, estimate=70, tolerance=0.001), isa)


@pytest.mark.parametrize("times", [30, 300])
def test_the_widest_clusters_are_read(isa: str, times: float) -> None:
    """Whatever their spread: what an estimate may err by is beyond the largest float."""
    given = by_mass(step(2, 3, 64, 300, torch.bfloat16, (5,)), estimate=70, vote="mass")
    spread_GC = times * given["spread_GC"]
    found = both({**given, "spread_GC": spread_GC, "tolerance": 0.5}, isa)
    assert (found.retrieved.count_N > 40).any()


@pytest.mark.parametrize("tolerance", [1e-12, 0.001, 0.02, 1.0])
def test_tolerance_from_all_to_nothing(isa: str, tolerance: float) -> None:
    given = by_mass(step(2, 3, 64, 300, torch.bfloat16, (5,)), estimate=200)
    given["spread_GC"][:, ::5] = 0  # what is estimated exactly
    exact = (given["size_GC"] == 1) | (given["spread_GC"] == 0)
    before = wave_decode(**given, backend="reference")
    after = both({**given, "tolerance": tolerance}, isa)
    for g in range(2):
        best = runs_of(before.retrieved, g, int(before.retrieved.count_N[g]))
        read = runs_of(after.retrieved, g, int(after.retrieved.count_N[g]))
        first, last = (
            set(each.estimated.start_NK[g, : int(each.estimated.count_N[g])].tolist())
            for each in (before, after)
        )
        assert read[: len(best)] == best  # whatever an estimate would be
        lies = list(zip(given["start_GC"][g].tolist(), given["size_GC"][g].tolist(), strict=True))
        more = {c for c in first if lies[c] in read}
        assert len(read) == len(best) + len(more)
        assert last == first - more
        if tolerance == 1:
            assert not more
        elif tolerance < 1e-9:
            assert not any(exact[g, c] for c in more)
            inexact = {c for c in first if not exact[g, c]}
            assert len(more) > 0.98 * len(inexact)  # some weigh less than that
            assert inexact < first
        else:
            assert 0 < len(more) < len(first)


def test_what_an_estimate_may_err_by() -> None:
    # two heads of a group, two clusters of four keys: heads' shares by hand, the other one exact
    mass_GRC = torch.tensor([[[0.7, 0.3], [0.2, 0.8]]]).log()
    log_size_GC, factor_GC = torch.full((1, 2), 4.0).log(), torch.tensor([[2.0, 1.0]])
    error_GC = estimate_errors(mass_GRC, log_size_GC + factor_GC.log(), log_size_GC, None)
    torch.testing.assert_close(error_GC, torch.tensor([[0.7 * 3**0.5, 0.0]]))
    exact_lse_H = torch.tensor([3.0, 1.0]).log()  # beside clusters that weigh 1
    error_GC = estimate_errors(mass_GRC, log_size_GC + factor_GC.log(), log_size_GC, exact_lse_H)
    torch.testing.assert_close(error_GC, torch.tensor([[0.7 / 4 * 3**0.5, 0.0]]))


def test_the_steady_zone_counts(isa: str) -> None:
    given = by_mass(step(2, 1, 64, 90, torch.float32, (5,)), estimate=60, tolerance=0.01)
    given["stored"][-1].keys_GTD[:, -LOCAL:] = given["q_HD"][:, None] / 2
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
        both(by_mass({**given, **extra}, estimate=70, tolerance=0.001), isa)
        both(by_mass({**given, **extra}, estimate=70, tolerance=0.001, gaussian=True), isa)


def test_empty_clusters_have_no_mass(isa: str) -> None:
    given = step(3, 2, 16, 90, torch.float32, ())
    given["size_GC"][0, 5:] = 0
    given["size_GC"][1, 40:] = 0
    given["size_GC"][2] = 0
    for tolerance in (1e-12, 0.001, 1.0):
        right = both(by_mass(given, estimate=60, tolerance=tolerance, gaussian=True), isa)
        assert right.retrieved.count_N[0] + right.estimated.count_N[0] <= 5
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
    given = by_mass(step(3, 4, 128, 5000, torch.bfloat16, (4,)), estimate=600, tolerance=0.002)
    one, three = (wave_decode(**given, backend=isa, threads=n) for n in (1, 3))  # type: ignore[arg-type]
    assert_same(one.partial, three.partial, 0.0, 0.0)


def test_bad_input_is_named() -> None:
    given = by_mass(step(2, 2, 16, 30, torch.float32, ()), estimate=4)
    small = torch.ones(2, 29)
    for change, what in (
        ({"tolerance": -0.1}, r"tolerance is -0\.1; it should be in \[0, 1\]"),
        ({"tolerance": 1.5}, "tolerance is 1.5"),
        ({"tolerance": torch.nan}, "tolerance is nan"),
        ({"tolerance": 0.5, "estimate": 31}, "estimate=31"),
        (
            {"tolerance": 0.5, "spread_GC": None},
            "spread is None with vote=sum, gaussian=False and tolerance=0.5",
        ),
        ({"gaussian": True, "spread_GC": None}, "spread is None with vote=sum, gaussian=True"),
        ({"vote": "mass", "spread_GC": None}, "spread is None with vote=mass, gaussian=False"),
        ({"gaussian": True, "spread_GC": small}, r"spread has shape \[2, 29\]"),
        ({"tolerance": 0.5, "stored": [Part(0, torch.ones(1, 9, 16), torch.ones(1, 9, 16))]}, "KV"),
    ):
        with pytest.raises(ValueError, match=what):
            wave_decode(**{**given, **change})
