"""The attention graph against brute force, its slow twin, and data that breaks graphs."""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from longspan_kernels.attention_graph import AttentionGraph, GraphOptions, build, reference, search
from longspan_kernels.attention_graph.maps import score_maps
from longspan_kernels.dispatch import build_info, native

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(native is None, reason="the native extension is not built")
ISAS = [isa for isa in build_info()["isas"] if isa != "amx"]
STORAGES = ("int8", "bfloat16", "float16", "float32")
SMALL = GraphOptions(degree=12, list_tokens=40, candidates=48, neighbours=8, cluster_tokens=64)


def attention_like(
    tokens: int, size: int = 32, queries: int = 256, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Keys, sampled queries and unseen ones, in directions in which the keys hardly spread."""
    rng = torch.Generator().manual_seed(seed)
    keys_TD = torch.randn(tokens, size, generator=rng) + 2
    keys_TD[:, : size // 2] *= 0.1
    query_ND = torch.randn(queries + 32, size, generator=rng)
    query_ND[:, : size // 2] *= 3 / torch.arange(1.0, size // 2 + 1)
    query_ND[:, size // 2 :] *= 0.01
    return keys_TD, query_ND[:queries], query_ND[queries:]


def exact(keys_TD: Tensor, q_HD: Tensor, k: int) -> Tensor:
    return (q_HD.double() @ keys_TD.double().T).topk(k, dim=1).indices


def recall(ids_HK: Tensor, right_HK: Tensor) -> float:
    hits = [len(set(a.tolist()) & set(b.tolist())) for a, b in zip(ids_HK, right_HK, strict=True)]
    return sum(hits) / right_HK.numel()


def edges_of(graph: AttentionGraph) -> Tensor:
    return graph.arrays["edges"].clone()


def check_invariants(graph: AttentionGraph) -> None:
    edges_TM, tokens = edges_of(graph), graph.tokens
    assert edges_TM.shape == (tokens, graph.options.degree)
    assert int(edges_TM.max()) < tokens
    for node, row in enumerate(edges_TM.tolist()):
        live = [other for other in row if other >= 0]
        assert row[: len(live)] == live, "edges come first in a row"
        assert len(set(live)) == len(live)
        assert node not in live
    entries = graph.arrays["entries"].tolist()
    assert len(set(entries)) == len(entries) > 0
    assert len(reference.reachable(edges_TM.tolist(), entries)) == tokens


@pytest.mark.parametrize("tokens", [1, 2, 63, 700])
@pytest.mark.parametrize("size", [8, 24, 40])
def test_maps_keep_products(tokens: int, size: int) -> None:
    keys_TD, queries_SD, q_HD = attention_like(tokens, size)
    for metric in ("queries", "keys"):
        maps = score_maps(keys_TD, queries_SD, None, metric)
        product = (q_HD @ maps.to_queries_DW) @ ((keys_TD - maps.mean_D) @ maps.to_codes_DW).T
        torch.testing.assert_close(product, q_HD @ (keys_TD - maps.mean_D).T, atol=1e-3, rtol=1e-3)
    assert maps.to_codes_DW.shape[1] % 32 == 0


def test_distance_between_codes_is_difference_of_scores() -> None:
    keys_TD, queries_SD, _ = attention_like(50)
    score_TS = keys_TD @ queries_SD.T
    differ_TT = torch.cdist(score_TS, score_TS).square()
    upper = torch.triu_indices(50, 50, 1)
    uneven = {}
    for metric in ("queries", "keys"):
        maps = score_maps(keys_TD, queries_SD, None, metric)
        rows_TW = (keys_TD - maps.mean_D) @ maps.to_codes_DW
        apart_TT = torch.cdist(rows_TW, rows_TW).square()
        ratio = apart_TT[upper[0], upper[1]] / differ_TT[upper[0], upper[1]]
        uneven[metric] = float(ratio.std() / ratio.mean())
    assert uneven["queries"] < 0.15  # not 0: a little of the plain metric is mixed in
    assert uneven["keys"] > 0.5


@pytest.mark.parametrize("path", ISAS)
@pytest.mark.parametrize(("queries", "rows", "k"), [(1, 1, 1), (37, 1001, 10), (130, 65, 100)])
def test_nearest_is_exact(path: str, queries: int, rows: int, k: int) -> None:
    rng = torch.Generator().manual_seed(1)
    query_SW = torch.randn(queries, 64, generator=rng)
    row_NW = torch.randn(rows, 64, generator=rng)
    found = torch.full((queries, k), 12345, dtype=torch.int32)
    native.graph_nearest(query_SW, row_NW, found, 2, path)
    right = reference.nearest(query_SW, row_NW, k)
    assert (found == right).float().mean() > 0.999  # sums may round to another order
    assert ((found >= 0) == (right >= 0)).all()


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("path", ISAS)
def test_recall(path: str, storage: str) -> None:
    keys_TD, queries_SD, q_HD = attention_like(3001, 40)
    options = dataclasses.replace(SMALL, storage=storage)
    graph = build(keys_TD, queries_SD, options, backend=path, threads=2)
    check_invariants(graph)
    hits = search([graph] * len(q_HD), q_HD, 20, beam=100, keys_GTDs=[keys_TD[None]])
    assert recall(hits.ids_HK, exact(keys_TD, q_HD, 20)) > 0.97
    assert float(hits.distances_H.float().mean()) < 0.4 * len(keys_TD)


def test_what_queries_read_makes_the_better_graph() -> None:
    keys_TD, queries_SD, q_HD = attention_like(4000, 64, queries=512)
    right = exact(keys_TD, q_HD, 50)
    found = {}
    for metric in ("queries", "keys"):
        graph = build(keys_TD, queries_SD, dataclasses.replace(SMALL, metric=metric))
        hits = search([graph] * len(q_HD), q_HD, 50, beam=60, keys_GTDs=[keys_TD[None]])
        found[metric] = recall(hits.ids_HK, right), float(hits.distances_H.float().mean())
    assert found["queries"][0] > found["keys"][0] + 0.05
    assert found["queries"][1] < found["keys"][1]


@pytest.mark.parametrize("inserted", [False, True])
def test_a_few_keys_apart_from_all_others_are_found(inserted: bool) -> None:
    """As a needle's are: linked to keys that score low, where no walk passes."""
    rng = torch.Generator().manual_seed(0)
    keys_TD = torch.randn(4096, 32, generator=rng)
    keys_TD[:, :2] *= 0.1
    keys_TD[:, 0] += torch.where(torch.arange(4096) < 1024, 4.0, -4.0)
    island = [1500, 2500, 3500]
    keys_TD[island] *= 0.3
    keys_TD[island, :2] = torch.tensor([-4.0, 6.0])
    queries_SD = torch.randn(256, 32, generator=rng) + torch.eye(32)[0] * 2
    q_HD = 0.3 * torch.randn(8, 32, generator=rng)
    q_HD[:, :2] = torch.tensor([1.0, 3.0])
    options = dataclasses.replace(SMALL, storage="float32")
    if inserted:
        graph = build(keys_TD[:1400], queries_SD, options)
        graph.insert(keys_TD[1400:], queries_SD[:32])
        check_invariants(graph)
    else:
        graph = build(keys_TD, queries_SD, options)
    assert set(exact(keys_TD, q_HD, 3).flatten().tolist()) == set(island)
    hits = search([graph] * len(q_HD), q_HD, 40, beam=96)
    assert recall(hits.ids_HK, exact(keys_TD, q_HD, 3)) == 1.0


@pytest.mark.parametrize("path", ISAS)
def test_entries_are_the_reference_entries(path: str) -> None:
    keys_TD, queries_SD, _ = attention_like(4096, 40)
    keys_TD[100:200] = keys_TD[:100]
    options = dataclasses.replace(SMALL, storage="float32")
    arrays = build(keys_TD, queries_SD, options, backend=path).arrays
    found = arrays["token_of"][arrays["entries"].long()].tolist()
    maps = score_maps(keys_TD, queries_SD, None, "queries")
    right = reference.far_apart((keys_TD - maps.mean_D) @ maps.to_codes_DW, 64)
    assert len(found) == 64
    assert len(set(found) & set(right)) >= 60  # of two about as far one may be the other


@pytest.mark.parametrize("rerank", [True, False])
def test_native_walk_is_the_reference_walk(rerank: bool) -> None:
    keys_TD, queries_SD, q_HD = attention_like(600)
    options = dataclasses.replace(SMALL, storage="float32")
    graph = build(keys_TD, queries_SD, options)
    arrays = {name: part.clone() for name, part in graph.arrays.items()}
    arrays["codes"] = arrays["codes"].view(torch.float32)
    seeds_HS = torch.tensor([[5, -1, 300]] * len(q_HD), dtype=torch.int32)
    keys = [keys_TD[None, :250], keys_TD[None, 250:]] if rerank else []
    given = {"beam": 32, "seeds_HS": seeds_HS, "keys_GTDs": keys, "rerank": 25}
    found = search([graph] * len(q_HD), q_HD, 10, **given)
    right = reference.search([arrays] * len(q_HD), q_HD, 10, **given)
    assert recall(found.ids_HK, right.ids_HK) > 0.99
    difference = (found.distances_H - right.distances_H).abs().float()
    assert float(difference.mean()) < 1  # sums may round to another order
    assert (found.hops_H - right.hops_H).abs().max() <= 2


def test_the_reference_serves_where_nothing_is_compiled() -> None:
    keys_TD, queries_SD, q_HD = attention_like(300)
    options = dataclasses.replace(SMALL, storage="float32")
    graph = build(keys_TD, queries_SD, options, backend="reference")
    check_invariants(graph)
    hits = search([graph] * len(q_HD), q_HD, 10, beam=50)
    assert recall(hits.ids_HK, exact(keys_TD, q_HD, 10)) > 0.95
    twin = build(keys_TD, queries_SD, options)
    token_of = twin.arrays["token_of"].tolist()
    same = total = 0
    for node, row in enumerate(edges_of(twin).tolist()):
        mine = {token_of[other] for other in row if other >= 0}
        right = {other for other in edges_of(graph)[token_of[node]].tolist() if other >= 0}
        same, total = same + len(mine & right), total + len(right)
    assert same / total > 0.8  # near neighbours are approximate in one of them


def awkward(name: str, tokens: int = 150, size: int = 16) -> Tensor:
    rng = torch.Generator().manual_seed(2)
    keys_TD = torch.randn(tokens, size, generator=rng)
    return {
        "all equal": torch.ones(tokens, size),
        "zeros": torch.zeros(tokens, size),
        "one key": keys_TD[:1],
        "two keys": keys_TD[:2],
        "duplicates": keys_TD[:5].repeat(tokens // 5, 1),
        "huge norms": keys_TD * torch.logspace(0, 6, tokens)[:, None],
        "tiny": keys_TD * 1e-20,
        "one direction": torch.linspace(-1, 1, tokens)[:, None] * keys_TD[:1],
    }[name]


@pytest.mark.parametrize("with_queries", [True, False])
@pytest.mark.parametrize(
    "name",
    [
        "all equal",
        "zeros",
        "one key",
        "two keys",
        "duplicates",
        "huge norms",
        "tiny",
        "one direction",
    ],
)
def test_awkward_keys(name: str, with_queries: bool) -> None:
    keys_TD = awkward(name)
    rng = torch.Generator().manual_seed(3)
    q_HD = torch.randn(6, 16, generator=rng)
    queries_SD = torch.randn(50, 16, generator=rng) if with_queries else None
    graph = build(keys_TD, queries_SD, SMALL)
    check_invariants(graph)
    k = min(10, len(keys_TD))
    hits = search([graph] * 6, q_HD, k, beam=200, keys_GTDs=[keys_TD[None]])
    assert (hits.ids_HK >= 0).all()
    assert all(len(set(row.tolist())) == k for row in hits.ids_HK)
    score_HT = q_HD @ keys_TD.T
    best = score_HT.topk(k, dim=1).values
    found = score_HT.gather(1, hits.ids_HK.long()).sort(dim=1, descending=True).values
    torch.testing.assert_close(found, best, rtol=1e-3, atol=1e-4 * float(best.abs().max()))
    grown = graph.copy()
    grown.insert(keys_TD[:7].clone(), q_HD)
    check_invariants(grown)
    assert grown.tokens == graph.tokens + len(keys_TD[:7])


def test_everything_is_found_when_everything_is_asked_for() -> None:
    keys_TD, queries_SD, q_HD = attention_like(500)
    graph = build(keys_TD, queries_SD, SMALL)
    graph.insert(attention_like(77, seed=5)[0], q_HD[:4])
    hits = search([graph] * 3, q_HD[:3], 577)
    assert all(sorted(row.tolist()) == list(range(577)) for row in hits.ids_HK)
    hits = search([graph] * 3, q_HD[:3], 576)  # the walk itself reaches all
    assert all(len(set(row.tolist())) == 576 for row in hits.ids_HK)
    assert (hits.distances_H == 577).all()


def test_work_is_counted() -> None:
    keys_TD, queries_SD, q_HD = attention_like(2000)
    graph = build(keys_TD, queries_SD, SMALL)
    graphs = [graph] * len(q_HD)
    narrow, wide = search(graphs, q_HD, 10, beam=16), search(graphs, q_HD, 10, beam=128)
    assert (narrow.distances_H < wide.distances_H).all()
    assert (narrow.hops_H >= 10).all()
    assert (wide.hops_H >= 128).all()
    assert (wide.distances_H <= wide.hops_H * SMALL.degree + len(graph.arrays["entries"])).all()
    patient = search(graphs, q_HD, 10, beam=128, patience=10)
    assert float(patient.hops_H.float().mean()) < float(wide.hops_H.float().mean())
    exactly = search(graphs, q_HD, 10, beam=128, keys_GTDs=[keys_TD[None]], rerank=30)
    assert (exactly.distances_H == wide.distances_H + 30).all()


def test_seeds_help() -> None:
    keys_TD, queries_SD, q_HD = attention_like(3000)
    graph = build(keys_TD, queries_SD, SMALL)
    graphs, right = [graph] * len(q_HD), exact(keys_TD, q_HD, 30)
    cold = search(graphs, q_HD, 30, beam=30)
    warm = search(graphs, q_HD, 30, beam=30, seeds_HS=right[:, :20].int().contiguous())
    assert recall(warm.ids_HK, right) > recall(cold.ids_HK, right)


def test_threads_and_shared_graphs_change_nothing() -> None:
    keys_TD, queries_SD, q_HD = attention_like(2500)
    graphs = [build(keys_TD, queries_SD, SMALL, threads=threads) for threads in (1, 2, 3)]
    for other in graphs[1:]:
        for name, part in graphs[0].arrays.items():
            assert torch.equal(part, other.arrays[name]), name
    found = [search([graphs[0]] * 32, q_HD, 10, threads=threads) for threads in (1, 2, 4)]
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_groups_find_their_own_keys() -> None:
    graphs, keys, queries, right = [], [], [], []
    for seed in range(2):
        keys_TD, queries_SD, q_HD = attention_like(800, seed=seed)
        graphs += [build(keys_TD, queries_SD, SMALL)] * 3
        keys.append(keys_TD.bfloat16())
        queries.append(q_HD[:3])
        right.append(exact(keys[-1], q_HD[:3], 10))
    hits = search(graphs, torch.cat(queries), 10, beam=150, keys_GTDs=[torch.stack(keys)])
    assert recall(hits.ids_HK, torch.cat(right)) > 0.97


@pytest.mark.parametrize("storage", ["int8", "bfloat16"])
def test_inserted_keys_are_found_as_if_built(storage: str) -> None:
    keys_TD, queries_SD, q_HD = attention_like(3000)
    options = dataclasses.replace(SMALL, storage=storage)
    grown = build(keys_TD[:2000], queries_SD, options)
    for first in range(2000, 3000, 250):
        grown.insert(keys_TD[first : first + 250], queries_SD[-32:])
    check_invariants(grown)
    whole = build(keys_TD, queries_SD, options)
    right = exact(keys_TD, q_HD, 20)
    found = {
        name: search([graph] * len(q_HD), q_HD, 20, beam=100, keys_GTDs=[keys_TD[None]])
        for name, graph in (("grown", grown), ("whole", whole))
    }
    built, inserted = recall(found["whole"].ids_HK, right), recall(found["grown"].ids_HK, right)
    assert built > 0.97
    assert inserted > built - 0.03
    late = right >= 2000
    share = torch.tensor(
        [
            float(torch.isin(row[mask], ids).float().mean())
            for row, mask, ids in zip(right, late, found["grown"].ids_HK.long(), strict=True)
        ]
    )
    assert share.nanmean() > 0.93


def test_a_copy_grows_alone() -> None:
    keys_TD, queries_SD, q_HD = attention_like(400)
    graph = build(keys_TD, queries_SD, SMALL)
    before = {name: part.clone() for name, part in graph.arrays.items()}
    twin = graph.copy()
    twin.insert(keys_TD[:10] + 1, q_HD)
    assert (graph.tokens, twin.tokens) == (400, 410)
    assert all(torch.equal(part, before[name]) for name, part in graph.arrays.items())


@pytest.mark.parametrize("storage", STORAGES)
def test_a_saved_graph_is_the_same(tmp_path: Path, storage: str) -> None:
    keys_TD, queries_SD, q_HD = attention_like(500)
    graph = build(keys_TD, queries_SD, dataclasses.replace(SMALL, storage=storage))
    graph.save(tmp_path / "graph.safetensors")
    again = AttentionGraph.load(tmp_path / "graph.safetensors")
    assert again.options == graph.options
    for name, part in graph.arrays.items():
        assert torch.equal(part, again.arrays[name]), name
    found = [search([g] * len(q_HD), q_HD, 10) for g in (graph, again)]
    assert torch.equal(found[0].ids_HK, found[1].ids_HK)
    again.insert(keys_TD[:5], q_HD)
    check_invariants(again)


def test_broken_files_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    keys_TD, queries_SD, _ = attention_like(100)
    path = tmp_path / "graph.safetensors"
    build(keys_TD, queries_SD, SMALL).save(path)
    whole = path.read_bytes()
    with pytest.raises(ValueError, match=r"missing\.safetensors"):
        AttentionGraph.load(tmp_path / "missing.safetensors")
    for size in (0, 5, 200, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"graph\.safetensors is no attention graph"):
            AttentionGraph.load(path)
    path.write_bytes(whole.replace(b'"version":"1"', b'"version":"0"'))
    with pytest.raises(ValueError, match="version '0'"):
        AttentionGraph.load(path)
    path.write_bytes(whole)
    from longspan_kernels.attention_graph import files

    _, options = files.read(path)
    parts = load_file(path)
    for name, wrong in (
        ("edges", parts["edges"] + 100),
        ("entries", parts["entries"] - 101),
        ("codes", parts["codes"][:50]),
        ("step", parts["step"][:5]),
    ):
        files.write(path, parts | {name: wrong.contiguous()}, options)
        with pytest.raises(ValueError, match="no attention graph"):
            AttentionGraph.load(path)
    save_file({"edges": parts["edges"]}, path)
    with pytest.raises(ValueError, match="format None"):
        AttentionGraph.load(path)


def test_wrong_arguments_are_named() -> None:
    keys_TD, queries_SD, q_HD = attention_like(100)
    graph = build(keys_TD, queries_SD, SMALL)
    for k in (0, 101):
        with pytest.raises(ValueError, match=f"k is {k}"):
            search([graph], q_HD[:1], k)
    for wrong in (float("nan"), float("inf"), -float("inf")):
        bad = keys_TD.clone()
        bad[3, 4] = wrong
        with pytest.raises(ValueError, match="keys holds NaN or infinity"):
            build(bad, queries_SD, SMALL)
        with pytest.raises(ValueError, match="queries holds NaN or infinity"):
            build(keys_TD, bad, SMALL)
        with pytest.raises(ValueError, match="keys holds NaN"):
            graph.insert(bad)
        with pytest.raises(ValueError, match="q holds NaN"):
            search([graph] * 100, bad, 5)
    with pytest.raises(ValueError, match="at least one key"):
        build(keys_TD[:0], queries_SD, SMALL)
    with pytest.raises(ValueError, match="queries has shape"):
        build(keys_TD, queries_SD[:, :8], SMALL)
    with pytest.raises(ValueError, match="q has shape"):
        search([graph], q_HD[:1, :8], 5)
    with pytest.raises(ValueError, match="int64"):
        build(keys_TD.long(), queries_SD, SMALL)
    with pytest.raises(ValueError, match="2 graphs for 1 queries"):
        search([graph] * 2, q_HD[:1], 5)
    with pytest.raises(ValueError, match="degree is 3"):
        GraphOptions(degree=3)
    with pytest.raises(ValueError, match="slack"):
        GraphOptions(slack=0.5)
    with pytest.raises(ValueError, match="seeds"):
        search([graph], q_HD[:1], 5, seeds_HS=torch.tensor([[100]], dtype=torch.int32))
    with pytest.raises(ValueError, match="keys"):
        search([graph], q_HD[:1], 5, keys_GTDs=[keys_TD[None, :50]])


@pytest.mark.usefixtures("hears_ctrl_c")
@pytest.mark.parametrize("seconds", [0.1, 0.25, 0.4, 0.7])
def test_ctrl_c_ends_a_build(seconds: float) -> None:
    keys_TD, queries_SD, _ = attention_like(60_000, 128, queries=2000)

    def repeat(times: int) -> None:
        for _ in range(times):
            build(keys_TD, queries_SD, threads=1)

    timer = threading.Timer(seconds, signal.raise_signal, (signal.SIGINT,))
    timer.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        repeat(20)
    timer.join()
    assert time.monotonic() - start < 10
