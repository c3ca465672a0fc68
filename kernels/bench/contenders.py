"""Indexes that are searched with more or less effort: the attention graph and FAISS's."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from longspan_kernels.attention_graph import GraphOptions, build, search

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor

    from longspan_kernels.attention_graph.options import Storage

RECALL, TOP = 0.95, 100


@dataclass(frozen=True)
class Data:
    """One KV head: keys, the queries it was prefilled with, and N steps of R query heads."""

    title: str
    keys_TD: Tensor
    train_SD: Tensor
    test_NRD: Tensor

    @property
    def right_NRK(self) -> Tensor:
        """The exact best tokens."""
        return torch.stack([(q_RD @ self.keys_TD.T).topk(TOP).indices for q_RD in self.test_NRD])


@dataclass
class Contender:
    """An index that can be searched with more or less effort."""

    name: str
    find: Callable[[Tensor, int], Tensor]
    """Ids of the queries' best keys."""
    efforts: Iterable[int]
    scanned: Callable[[int], float]
    """Products a query, as counted in the last run."""
    build_seconds: float
    nbytes: int
    effort: int = 0
    recall: float = 0.0
    products: float = 0.0

    def settle(self, data: Data) -> None:
        """Take the least effort that reaches the recall."""
        right_NRK = data.right_NRK
        for effort in self.efforts:
            self.effort = effort
            found = [self.find(q_RD, self.effort) for q_RD in data.test_NRD]
            self.recall = recall(torch.stack(found), right_NRK)
            self.products = self.scanned(self.effort)
            if self.recall >= RECALL:
                return


def recall(found_NRK: Tensor, right_NRK: Tensor) -> float:
    """Share of the exact best that was found."""
    pairs = zip(found_NRK.flatten(0, 1), right_NRK.flatten(0, 1), strict=True)
    return sum(int(torch.isin(right, found).sum()) for found, right in pairs) / right_NRK.numel()


def graph(data: Data, storage: Storage) -> Contender:
    """Ours, with the settings that the method has but for the type of what the walk reads."""
    begin = time.perf_counter()
    built = build(data.keys_TD, data.train_SD, GraphOptions(storage=storage))
    seconds = time.perf_counter() - begin
    work: list[float] = []

    def find(q_RD: Tensor, beam: int) -> Tensor:
        hits = search(
            [built] * len(q_RD), q_RD, TOP, beam=beam, keys_GTDs=[data.keys_TD[None]], threads=1
        )
        work.append(float(hits.distances_H.float().mean()))
        del work[: -len(data.test_NRD)]
        return hits.ids_HK

    beams = (100, 112, 128, 144, 160, 176, 192, 224, 256, 320, 384, 512, 768)
    name = f"attention graph, {storage} codes"
    return Contender(name, find, beams, lambda _: sum(work) / len(work), seconds, built.nbytes)


def flat(data: Data, faiss: Any) -> Contender:
    """The exact scan."""
    index = faiss.IndexFlatIP(data.keys_TD.shape[1])
    index.add(data.keys_TD.numpy())

    def find(q_RD: Tensor, _: int) -> Tensor:
        return torch.from_numpy(index.search(q_RD.numpy(), TOP)[1])

    tokens = len(data.keys_TD)
    return Contender("FAISS flat", find, (0,), lambda _: float(tokens), 0.0, data.keys_TD.nbytes)


def inverted(data: Data, faiss: Any) -> Contender:
    """About sqrt(T) lists around spherical centroids; the effort is how many are scanned."""
    tokens, size = data.keys_TD.shape
    lists = round(tokens**0.5)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(size), size, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.spherical = True
    begin = time.perf_counter()
    index.train(data.keys_TD.numpy())
    index.add(data.keys_TD.numpy())
    seconds = time.perf_counter() - begin

    def find(q_RD: Tensor, probes: int) -> Tensor:
        index.nprobe = probes
        return torch.from_numpy(index.search(q_RD.numpy(), TOP)[1])

    def scanned(probes: int) -> float:
        queries = data.test_NRD.flatten(0, 1).numpy()
        _, probed = index.quantizer.search(queries, probes)
        sizes = [index.invlists.list_size(int(entry)) for entry in probed.ravel()]
        return float(lists + sum(sizes) / len(queries))

    efforts = sorted({max(1, round(lists * step / 40)) for step in range(1, 41)})
    return Contender("FAISS IVF", find, efforts, scanned, seconds, data.keys_TD.nbytes)


def small_world(data: Data, faiss: Any, links: int, centred: bool) -> Contender:
    """HNSW; the effort is the breadth of the search."""
    keys_TD = data.keys_TD - data.keys_TD.mean(0) if centred else data.keys_TD
    index = faiss.IndexHNSWFlat(keys_TD.shape[1], links, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 200
    begin = time.perf_counter()
    index.add(keys_TD.numpy())
    seconds = time.perf_counter() - begin

    def find(q_RD: Tensor, beam: int) -> Tensor:
        index.hnsw.efSearch = beam
        return torch.from_numpy(index.search(q_RD.numpy(), TOP)[1])

    def scanned(beam: int) -> float:
        faiss.cvar.hnsw_stats.reset()
        find(data.test_NRD.flatten(0, 1), beam)
        return float(faiss.cvar.hnsw_stats.ndis) / data.test_NRD[..., 0].numel()

    name = f"FAISS HNSW M={links}, {'centred' if centred else 'raw'}"
    nbytes = keys_TD.nbytes + len(keys_TD) * links * 8
    efforts = (100, 128, 160, 192, 256, 320, 384, 512, 768, 1024, 2048, 4096)
    return Contender(name, find, efforts, scanned, seconds, nbytes)
