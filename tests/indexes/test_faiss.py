from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from longspan.indexes.base import Budget, Segment
from longspan.indexes.faiss_flat import FaissFlatIndex
from longspan.indexes.faiss_hnsw import FaissHnswIndex
from longspan.indexes.faiss_ivf import FaissIvfIndex

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from longspan.indexes.faiss_base import FaissIndex

pytest.importorskip("faiss", reason="the faiss extra is not installed")
GROUPS, HEADS, SIZE = 2, 3, 24
KINDS: dict[str, Callable[[], FaissIndex]] = {
    "flat": FaissFlatIndex,
    "ivf": FaissIvfIndex,
    "hnsw, raw": lambda: FaissHnswIndex(16, 80, 300, "raw"),
    "hnsw, centred": lambda: FaissHnswIndex(16, 80, 300, "centred"),
    "hnsw, augmented": lambda: FaissHnswIndex(16, 80, 300, "augmented"),
}


def segment(tokens: int, first: int = 0, seed: int = 0) -> Segment:
    rng = torch.Generator().manual_seed(seed)
    keys_GTD = torch.randn(GROUPS, tokens, SIZE, generator=rng) + torch.arange(SIZE) / SIZE
    return Segment(keys_GTD.bfloat16(), keys_GTD.bfloat16(), first)


def queries(seed: int = 50) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(GROUPS * HEADS, SIZE, generator=rng)


def exact(keys_GTD: Tensor, q_HD: Tensor, k: int) -> Tensor:
    score_GRT = q_HD.reshape(GROUPS, HEADS, SIZE) @ keys_GTD.float().mT
    return score_GRT.flatten(0, 1).topk(k).indices


def recall(index: FaissIndex, keys_GTD: Tensor, first: int, effort: int | None = None) -> float:
    q_HD, k = queries(), 15
    runs = index.search(q_HD, Budget(k, effort=effort), 1.0).retrieved
    hits = 0
    for head, right in enumerate(exact(keys_GTD, q_HD, k) + first):
        row = runs.start_NK[head, : runs.count_N[head]].tolist()
        assert len(set(row)) == len(row)
        hits += len(set(row) & set(right.tolist()))
    return hits / (GROUPS * HEADS * k)


@pytest.mark.parametrize("kind", KINDS)
def test_recall_over_stretches(kind: str) -> None:
    index = KINDS[kind]()
    parts = [segment(1200, 4), segment(100, 1204, 1), segment(1, 1304, 2), segment(30, 1305, 3)]
    assert index.build(parts[0]) is None
    least = {"flat": 1.0, "ivf": 0.6}.get(kind, 0.9)
    assert recall(index, parts[0].keys_GTD, 4) >= least
    for part in parts[1:]:
        index.append(part)
    assert index.tokens == 1331
    keys_GTD = torch.cat([part.keys_GTD for part in parts], dim=1)
    assert recall(index, keys_GTD, 4) >= least
    if kind == "ivf":
        assert recall(index, keys_GTD, 4, effort=1000) == 1.0
    assert index.nbytes > keys_GTD.numel() * 4


def test_work_is_what_was_scored() -> None:
    given, q_HD = segment(900), queries()
    flat, inverted, graph = FaissFlatIndex(), FaissIvfIndex(lists=30), FaissHnswIndex(16, 80, 20)
    for index in (flat, inverted, graph):
        index.build(given)
    budget = Budget(10)
    assert flat.search(q_HD, budget, 1.0).distances == 900
    found = inverted.search(q_HD, budget, 1.0)
    assert 30 + 0.15 * 900 < found.distances < 30 + 0.6 * 900
    assert inverted.search(q_HD, Budget(10, effort=30), 1.0).distances == 930
    few = graph.search(q_HD, budget, 1.0).distances
    assert inverted.search(q_HD, budget, 1.0).hops == 9
    assert 0 < graph.search(q_HD, budget, 1.0).hops <= few
    assert 20 < few < graph.search(q_HD, Budget(10, effort=200), 1.0).distances
    assert few * q_HD.numel() * 4 == graph.search(q_HD, budget, 1.0).bytes


@pytest.mark.parametrize("kind", KINDS)
def test_everything_in_the_budget(kind: str) -> None:
    index = KINDS[kind]()
    index.build(segment(200, 7))
    runs = index.search(queries(), Budget(200), 1.0).retrieved
    assert (runs.start_NK.sort().values == torch.arange(7, 207)).all()
    assert (runs.count_N == 200).all()


@pytest.mark.parametrize("kind", KINDS)
def test_saved_indexes_answer_alike(kind: str, tmp_path: Path) -> None:
    index = KINDS[kind]()
    index.build(segment(400, 3))
    index.append(segment(50, 403, 1))
    index.save(tmp_path)
    again = type(index).load(tmp_path)
    assert again.facts == index.facts
    right, found = (one.search(queries(), Budget(9), 1.0) for one in (index, again))
    assert torch.equal(found.retrieved.start_NK, right.retrieved.start_NK)
    assert found.distances == right.distances
    file = tmp_path / "1_0.faiss"
    whole = file.read_bytes()
    for size in (0, 3, len(whole) // 2):
        file.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"1_0\.faiss"):
            type(index).load(tmp_path)
    file.write_bytes((tmp_path / "0_0.faiss").read_bytes())
    with pytest.raises(ValueError, match="holds 400 keys"):
        type(index).load(tmp_path)
    facts = (tmp_path / "index.json").read_text()
    (tmp_path / "index.json").write_text(facts.replace('"version": "1"', '"version": "2"'))
    with pytest.raises(ValueError, match="'2'"):
        type(index).load(tmp_path)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    monkeypatch.delattr(faiss, "StandardGpuResources", raising=False)
    with pytest.raises(ValueError, match="this faiss is built for CPUs"):
        FaissFlatIndex("gpu")
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0, raising=False)
    with pytest.raises(ValueError, match="faiss finds no GPU"):
        FaissIvfIndex(device="gpu")
    with pytest.raises(ValueError, match="device is 'tpu'"):
        FaissFlatIndex("tpu")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [FaissFlatIndex, FaissIvfIndex])
def test_searches_go_to_the_copy_on_the_gpu(
    kind: type[FaissFlatIndex | FaissIvfIndex], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A stand-in for FAISS's GPU build: its copies are on the CPU, too."""
    import faiss

    copies: list[object] = []

    def copy(resources: object, device: int, index: object) -> object:
        copies.append(faiss.clone_index(index))
        return copies[-1]

    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", copy, raising=False)
    here, there = kind(), kind(device="gpu")
    for index in (here, there):
        index.build(segment(2500, 3))
    there.save(tmp_path)
    for one in (there, there.fork(), kind.load(tmp_path)):
        right, found = (index.search(queries(), Budget(9), 1.0) for index in (here, one))
        assert torch.equal(found.retrieved.start_NK, right.retrieved.start_NK)
        assert found.distances == right.distances
    assert len(copies) == 2 * GROUPS
    for made in copies:
        made.reset()  # type: ignore[attr-defined]
    assert (there.search(queries(), Budget(9), 1.0).retrieved.count_N == 0).all()
    with pytest.raises(ValueError, match="on a GPU FAISS finds 2048 at most"):
        there.search(queries(), Budget(2400), 1.0)


def test_another_kind_of_index_is_refused(tmp_path: Path) -> None:
    index = FaissFlatIndex()
    index.build(segment(40))
    index.save(tmp_path)
    with pytest.raises(ValueError, match=r"longspan\.faiss\.flat"):
        FaissIvfIndex.load(tmp_path)
    with pytest.raises(ValueError, match=r"index\.json"):
        FaissFlatIndex.load(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", KINDS)
def test_forks_share_and_grow_alone(kind: str) -> None:
    index = KINDS[kind]()
    index.build(segment(120))
    twin = index.fork()
    twin.append(segment(30, 120, 1))
    assert (index.tokens, twin.tokens) == (120, 150)
    assert twin._stretches_NG[0] is index._stretches_NG[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keys", ["equal", "zeros", "one", "huge"])
def test_awkward_keys(kind: str, keys: str) -> None:
    given = segment(60).keys_GTD.float()
    given = {
        "equal": torch.ones_like(given),
        "zeros": torch.zeros_like(given),
        "one": given[:, :1],
        "huge": given * 1e8,
    }[keys]
    index = KINDS[kind]()
    index.build(Segment(given, given, 0))
    runs = index.search(queries(), Budget(min(5, given.shape[1])), 1.0).retrieved
    live = torch.arange(runs.start_NK.shape[1]) < runs.count_N[:, None]
    if kind != "ivf":  # whose lists may be empty where keys are equal
        assert (runs.count_N >= 1).all()
    assert (runs.start_NK[live] >= 0).all()
    assert (runs.start_NK[live] < given.shape[1]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_fit_is_named(kind: str) -> None:
    index = KINDS[kind]()
    given = segment(50)
    bad = given.keys_GTD.clone()
    bad[0, 3, 1] = float("inf")
    with pytest.raises(ValueError, match="keys holds NaN or infinity"):
        index.build(Segment(bad, bad, 0))
    index.build(given)
    for wrong in (0, 51):
        with pytest.raises(ValueError, match=f"retrieve_tokens is {wrong}"):
            index.search(queries(), Budget(wrong), 1.0)
    with pytest.raises(ValueError, match="q holds NaN"):
        index.search(queries() * float("nan"), Budget(5), 1.0)
    with pytest.raises(ValueError, match="begins at slot 60"):
        index.append(segment(10, 60))


def test_without_faiss_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ValueError, match=r"longspan\[faiss\]"):
        FaissFlatIndex()
