"""The wave index by itself: its slots, its budgets, its file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.indexes.base import Budget, Segment
from longspan.indexes.wave import WaveIndex
from longspan.indexes.wave_meta import FILE
from longspan.indexes.wave_options import WaveOptions
from longspan_kernels.segmented_kmeans import segmented_kmeans

if TYPE_CHECKING:
    from pathlib import Path


def segment(tokens: int, first: int, seed: int = 0) -> Segment:
    rng = torch.Generator().manual_seed(seed)
    keys = torch.randn(2, tokens, 8, generator=rng)
    return Segment(keys, torch.randn(2, tokens, 8, generator=rng), first)


def index(*lengths: int, **options: object) -> tuple[WaveIndex, torch.Tensor]:
    """An index over stretches of these lengths from slot 4 on, and its keys in slot order."""
    found, keys_GTD, _ = filled(*lengths, **options)
    return found, keys_GTD


def filled(*lengths: int, **options: object) -> tuple[WaveIndex, torch.Tensor, torch.Tensor]:
    """As `index`, with values too."""
    found = WaveIndex(WaveOptions(**options))  # type: ignore[arg-type]
    first, keys, values = 4, [], []
    for seed, length in enumerate(lengths):
        part = segment(length, first, seed)
        order_GTD = found.build(part)[..., None].expand(-1, -1, 8)
        keys.append(part.keys_GTD.gather(1, order_GTD))
        values.append(part.values_GTD.gather(1, order_GTD))
        first += length
    return found, torch.cat(keys, dim=1), torch.cat(values, dim=1)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=3),
    st.integers(1, 40),
    st.integers(10, 400),
    st.sampled_from(
        [("segment", 0.0), ("segment", 0.1), ("segment", 0.9), ("segment", 1.0), ("global", 0.0)]
    ),
)
def test_every_slot_is_in_one_cluster_and_centroids_are_means(
    lengths: list[int], per_cluster: int, segment_tokens: int, cut: tuple[str, float]
) -> None:
    found, keys_GTD, values_GTD = filled(
        *lengths,
        tokens_per_cluster=per_cluster,
        segment_tokens=segment_tokens,
        kmeans_rounds=3,
        final_assignment=cut[0],
        outlier_budget=cut[1],
    )
    meta = found.meta
    assert found.tokens == sum(lengths)
    assert (meta.size_GC.sum(1) == sum(lengths)).all()
    for g in range(2):
        covered: list[int] = []
        for c, (start, size) in enumerate(
            zip(meta.start_GC[g].tolist(), meta.size_GC[g].tolist(), strict=True)
        ):
            covered += range(start, start + size)
            if size:
                mine = slice(start - 4, start - 4 + size)
                key, value = keys_GTD[g, mine].mean(0), values_GTD[g, mine].mean(0)
                torch.testing.assert_close(meta.centroids_GCD[g, c], key, atol=1e-5, rtol=1e-4)
                torch.testing.assert_close(meta.values_GCD[g, c], value, atol=1e-5, rtol=1e-4)
                spread = keys_GTD[g, mine].var(0, correction=0).mean()
                torch.testing.assert_close(meta.spread_GC[g, c], spread, atol=1e-5, rtol=1e-4)
        assert sorted(covered) == list(range(4, 4 + sum(lengths)))
    assert int(meta.segment_C.max()) + 1 == meta.segment_values_GSD.shape[1]


def test_forks_grow_apart() -> None:
    found, _ = index(200)
    twin = found.fork()
    twin.append(segment(64, 204))
    assert (found.tokens, twin.tokens) == (200, 264)
    assert twin.nbytes > found.nbytes


def test_budgets_are_clamped_and_ranks_follow_one_another() -> None:
    found, _ = index(320)
    q_HD = torch.randn(4, 8)
    for retrieve, estimate in ((1, 0), (160, 160), (320, 320), (32, 10_000)):
        result = found.search(q_HD, Budget(retrieve, estimate), 0.3)
        ids = result.estimated.ids if result.estimated else None
        taken = int(result.retrieved.count_N[0])
        assert taken == max(1, round(retrieve / 16))
        left = 0 if ids is None else int(ids.count_N[0])
        assert left == min(round(estimate / 16), 20 - taken)
        assert result.distances == 20


def test_groups_of_short_stretches_are_opened_as_many_as_it_takes() -> None:
    found, _ = index(4096, *[256] * 20, clusters_per_group=64, group_slack=2.0)
    q_HD = torch.randn(4, 8)
    wanted = found.tokens // 5
    result = found.search(q_HD, Budget(wanted, wanted), 0.3)
    assert result.estimated is not None
    clusters = round(wanted / found.tokens * found.clusters)
    assert result.retrieved.count_N.tolist() == [clusters] * 2
    assert result.estimated.ids.count_N.tolist() == [clusters] * 2
    everything = found.search(q_HD, Budget(found.tokens), 0.3).retrieved
    assert everything.size_NK is not None
    assert everything.size_NK.sum(1).tolist() == [found.tokens] * 2


def test_groups_partition_the_clusters_and_find_what_all_clusters_would() -> None:
    plain, _ = index(2000, 64, 500, segment_tokens=500)
    found, _ = index(2000, 64, 500, segment_tokens=500, clusters_per_group=8, group_slack=2.0)
    groups = found.groups
    assert groups is not None
    for g in range(2):
        assert found.meta.start_GC[g].sort().values.tolist() == plain.meta.start_GC[g].tolist()
        ends = groups.first_GN[g] + groups.count_GN[g]
        assert (groups.first_GN[g, 1:] == ends[:-1]).all()
        assert (int(groups.first_GN[g, 0]), int(ends[-1])) == (0, found.clusters)
    share = []
    for seed in range(20):
        q_HD = 3 * torch.randn(4, 8, generator=torch.Generator().manual_seed(seed))
        near, right = (each.search(q_HD, Budget(160, 160), 0.3) for each in (found, plain))
        assert near.distances < right.distances / 2
        assert near.bytes < right.bytes
        share += [
            len(set(mine[:10].tolist()) & set(theirs[:10].tolist())) / 10
            for mine, theirs in zip(near.retrieved.start_NK, right.retrieved.start_NK, strict=True)
        ]
    assert sum(share) / len(share) > 0.5  # keys without structure; at random it would be 0.25
    everything = WaveIndex(replace(found.options, group_slack=1e6), found.meta, 2564, groups)
    near, right = (each.search(q_HD, Budget(160, 160), 0.3) for each in (everything, plain))
    assert torch.equal(near.retrieved.start_NK, right.retrieved.start_NK)


def test_groups_do_not_go_with_what_weighs_all_clusters() -> None:
    with pytest.raises(ValueError, match="clusters_per_group is 8 with"):
        WaveOptions(clusters_per_group=8, tail="segment_mean")


@pytest.mark.parametrize("seeding", ["even", "mixed", "farthest"])
def test_seeding_reaches_the_clustering(seeding: str) -> None:
    found, keys_GTD = index(400, seeding=seeding)
    expected = segmented_kmeans(*[segment(400, 4).keys_GTD] * 2, clusters=25, seeding=seeding)  # type: ignore[arg-type]
    assert torch.equal(found.meta.size_GC, expected.size_GC)
    assert keys_GTD.shape == (2, 400, 8)


def test_empty_clusters_are_never_read() -> None:
    # 12 different keys, 100 clusters
    keys = torch.randn(2, 12, 8)[:, torch.arange(200) % 12]
    found = WaveIndex(WaveOptions(tokens_per_cluster=2))
    found.build(Segment(keys, keys, 0))
    assert (found.meta.size_GC == 0).any()
    for options in ({}, {"tail": "segment_mean"}):
        again = WaveIndex(WaveOptions(**options), found.meta, 200)  # type: ignore[arg-type]
        result = again.search(torch.randn(4, 8), Budget(200, 200), 0.3)
        size_GK = result.retrieved.size_NK
        assert size_GK is not None
        for g in range(2):
            live = size_GK[g, : int(result.retrieved.count_N[g])]
            assert (live > 0).all()
            assert int(live.sum()) == 200
        assert result.estimated is None


def test_the_tail_of_an_index_that_is_not_read_is_its_whole_mass() -> None:
    found, _ = index(500, 100, tail="segment_mean", gaussian=False)
    q_HD = torch.randn(4, 8)
    result = found.search(q_HD, Budget(1, 0), 0.3)
    assert result.tail is not None
    meta, best_G = found.meta, result.retrieved.start_NK[:, 0]
    for h in range(4):
        g = h // 2
        mass_C = (meta.centroids_GCD[g] @ q_HD[h] * 0.3).exp() * meta.size_GC[g]
        mass_C[meta.start_GC[g] == best_G[g]] = 0
        torch.testing.assert_close(result.tail.lse[h], mass_C.sum().log())
        right = sum(
            mass * meta.segment_values_GSD[g, s]
            for mass, s in zip(mass_C, meta.segment_C, strict=True)
        )
        torch.testing.assert_close(result.tail.out[h], torch.as_tensor(right) / mass_C.sum())


@pytest.mark.parametrize("tolerance", [0.0, 0.04])
def test_estimates_and_tail_are_all_that_is_not_read(tolerance: float) -> None:
    found, _ = index(500, 100, tail="segment_mean", tolerance=tolerance)
    q_HD = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    result = found.search(q_HD, Budget(20, 200), 0.3)
    assert result.tail is not None
    assert result.estimated is not None
    read, ids, meta = result.retrieved, result.estimated.ids, found.meta
    assert (read.count_N.max() > 1) == (tolerance > 0)
    for h in range(4):
        g = h // 2
        mass_C = meta.centroids_GCD[g] @ q_HD[h] * 0.3 + meta.log_size_GC[g]
        estimated_C = mass_C[ids.start_NK[g, : int(ids.count_N[g])].long()]
        unread_C = ~torch.isin(meta.start_GC[g], read.start_NK[g, : int(read.count_N[g])])
        both_lse = torch.logaddexp(estimated_C.logsumexp(0), result.tail.lse[h])
        torch.testing.assert_close(both_lse, mass_C[unread_C].logsumexp(0))


def test_segment_values_are_means_over_tokens() -> None:
    part = segment(400, 4)
    found = WaveIndex(WaveOptions(segment_tokens=100))
    found.build(part)
    right = part.values_GTD.unflatten(1, (4, 100)).mean(2)
    torch.testing.assert_close(found.meta.segment_values_GSD, right, atol=1e-5, rtol=1e-4)


def test_a_steady_zone_that_holds_the_mass_saves_the_reading() -> None:
    found, _ = index(320, tolerance=0.001)
    q_HD = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    heavy = found.search(q_HD, Budget(20, 300, exact_lse_H=torch.full((4,), 50.0)), 0.3)
    light = found.search(q_HD, Budget(20, 300, exact_lse_H=torch.full((4,), -50.0)), 0.3)
    alone = found.search(q_HD, Budget(20, 300), 0.3)
    assert (heavy.retrieved.count_N == 1).all()
    assert (light.retrieved.count_N > 6).all()
    assert (alone.retrieved.count_N == light.retrieved.count_N).all()


@pytest.mark.parametrize(
    "options", [{"tail": "segment_mean", "tolerance": 0.01}, {"clusters_per_group": 4}]
)
def test_what_is_saved_comes_back(tmp_path: Path, options: dict[str, object]) -> None:
    found, _ = index(300, 64, vote="max", **options)
    found.save(tmp_path / "layer 0")
    again = WaveIndex.load(tmp_path / "layer 0")
    assert again.options == found.options
    assert again.tokens == found.tokens
    for name, tensor in found.meta.tensors.items():
        assert torch.equal(tensor, again.meta.tensors[name])
    q_HD = torch.randn(4, 8)
    budget = Budget(10, 50)
    left, right = found.search(q_HD, budget, 0.3), again.search(q_HD, budget, 0.3)
    assert torch.equal(left.retrieved.start_NK, right.retrieved.start_NK)
    again.append(segment(64, 368))
    assert again.tokens == 364 + 64


def test_other_files_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    found, _ = index(300)
    found.save(tmp_path)
    path = tmp_path / FILE
    whole = path.read_bytes()
    for damage in (whole[: len(whole) // 2], whole[:3], b"", b"not a tensor file at all"):
        path.write_bytes(damage)
        with pytest.raises(ValueError, match=r"wave\.safetensors is no wave index"):
            WaveIndex.load(tmp_path)
    head = {"format": "longspan.wave", "version": "0", "facts": "{}"}
    save_file(found.meta.tensors, path, metadata=head)
    with pytest.raises(ValueError, match=r"version '0'.*should be .* version '1'"):
        WaveIndex.load(tmp_path)
    for facts in ('{"options": {"no_such_option": 1}, "tokens": 300}', "{}"):
        save_file(found.meta.tensors, path, metadata=head | {"version": "1", "facts": facts})
        with pytest.raises(ValueError, match="build the index again"):
            WaveIndex.load(tmp_path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="build the index again"):
        WaveIndex.load(tmp_path)
    with pytest.raises(ValueError, match="no wave index"):
        WaveIndex.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="nothing is indexed"):
        WaveIndex(WaveOptions()).save(tmp_path)
