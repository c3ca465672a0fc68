"""
The native CPU kernels of longspan; called through longspan_kernels.<operation>.
"""

from collections.abc import Sequence
from typing import Annotated

import torch


def isas() -> list[str]:
    """Instruction sets that this machine runs, narrowest first."""

def compiler() -> str:
    """The compiler that built this extension."""

class AttentionGraph:
    """The graph of one KV head; see longspan_kernels.attention_graph."""

    @property
    def tokens(self) -> int:
        """Keys in the graph."""

    @property
    def nbytes(self) -> int:
        """Memory held."""

    @property
    def head_size(self) -> int:
        """Size of a key."""

    @property
    def storage(self) -> str:
        """Type of the codes."""

    def copy(self) -> AttentionGraph:
        """An independent copy."""

    def arrays(self) -> dict[str, torch.Tensor]:
        """Views of all parts by name, valid until the graph grows."""

def graph_restore(mean: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)], to_codes: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)], to_queries: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)], step: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)], codes: Annotated[torch.Tensor, dict(dtype='uint8', order='C', device='cpu', writable=False)], half_norms: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)], edges: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)], entries: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)], token_of: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)], storage: str) -> AttentionGraph:
    """A graph from its parts."""

def graph_nearest(queries: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)], rows: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)], ids: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], threads: int, isa: str) -> None:
    """Exact best rows of every query by inner product into `ids` [S, k]."""

def graph_build(mean: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)], to_codes: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)], to_queries: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)], rows: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)], lists: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)], storage: str, degree: int, pivots: int, candidates: int, neighbours: int, cluster_size: int, probes: int, entries: int, slack: float, threads: int, isa: str) -> AttentionGraph:
    """
    A graph over `rows` [T, W] from the keys nearest to sampled queries, `lists` [S, k].
    """

def graph_search(graphs: Sequence[AttentionGraph], queries: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)], seeds: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)] | None, keys: Sequence[Annotated[torch.Tensor, dict(device='cpu', writable=False)]], ids: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], distances: Annotated[torch.Tensor, dict(dtype='int64', order='C', device='cpu')], hops: Annotated[torch.Tensor, dict(dtype='int64', order='C', device='cpu')], beam: int, patience: int, rerank: int, threads: int, isa: str) -> None:
    """Beam search of one graph a query into `ids` [H, k], with its work."""

def graph_insert(graph: AttentionGraph, keys: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)], bridges: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)], beam: int, bridge_length: int, slack: float, isa: str) -> None:
    """Let new keys [N, D] into the graph."""

class LookUp:
    """What a look-up found; see longspan_kernels.block_cache."""

    @property
    def width(self) -> int:
        """Pages of the longest row."""

    @property
    def row_count(self) -> int:
        """Rows."""

    def write(self, sources: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], targets: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], sizes: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], counts: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')]) -> None:
        """Write the pages to arrays [N, P]."""

    @property
    def length(self) -> int:
        """Entries of the longest row of the buffer."""

    def write_targets(self, targets: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')]) -> None:
        """Write where each run begins in the buffer, [N, K]."""

    @property
    def hit_blocks(self) -> int: ...

    @property
    def miss_blocks(self) -> int: ...

    @property
    def hit_entries(self) -> int: ...

    @property
    def miss_entries(self) -> int: ...

class Admission:
    """What an update let in; see longspan_kernels.block_cache."""

    @property
    def width(self) -> int:
        """Pages of the longest row."""

    @property
    def row_count(self) -> int:
        """Rows."""

    def write(self, sources: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], targets: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], sizes: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], counts: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')]) -> None:
        """Write the pages to arrays [N, P]."""

    @property
    def admitted_blocks(self) -> int: ...

    @property
    def admitted_entries(self) -> int: ...

    @property
    def evicted_blocks(self) -> int: ...

class BlockCache:
    """The table of a block cache; see longspan_kernels.block_cache."""

    def __init__(self, pages: int, page: int, groups: int, policy: str, layers: int) -> None: ...

    def look_up(self, starts: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)], sizes: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)] | None, counts: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)], layer: int) -> LookUp:
        """What is cached of these runs; changes nothing."""

    def update(self, found: LookUp) -> None:
        """Begin to let in what was missing, beside the caller."""

    def wait(self) -> Admission:
        """What the update let in, once it is done."""

    def grow(self, pages: int) -> None:
        """More pages; what is cached stays."""

    @property
    def pages(self) -> int:
        """Capacity."""

    @property
    def free_pages(self) -> int:
        """Pages that hold nothing."""

    @property
    def blocks(self) -> int:
        """Blocks held."""

def block_sparse_prefill(q: Annotated[torch.Tensor, dict(device='cpu', writable=False)], keys: Annotated[torch.Tensor, dict(device='cpu', writable=False)], values: Annotated[torch.Tensor, dict(device='cpu', writable=False)], blocks: Annotated[torch.Tensor, dict(dtype='bool', order='C', device='cpu', writable=False)] | None, columns: Annotated[torch.Tensor, dict(dtype='bool', order='C', device='cpu', writable=False)] | None, block: int, causal: bool, scale: float, softcap: float, out: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu')], lse: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu')], threads: int, isa: str) -> None:
    """
    Attend positions to chosen blocks, all if None, and columns of entries; softcap 0 is none.
    """

def cell_scores(q: Annotated[torch.Tensor, dict(device='cpu', writable=False)], keys: Annotated[torch.Tensor, dict(device='cpu', writable=False)], stride: int, cells: int, ahead: int, scale: float, softcap: float, lse: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu')], threads: int, isa: str) -> None:
    """
    Log-sum-exps of what cells of positions give to blocks of cells of entries; softcap 0 is none.
    """

class StepCaches:
    """
    What CacheSteps of several layers share; see longspan_kernels.block_cache.
    """

    def __init__(self, pages: Sequence[int], page: int, groups: int, policy: str, layers: int) -> None: ...

class CacheSteps:
    """Caches updated beside decode steps; see longspan_kernels.block_cache."""

    def __init__(self, caches: StepCaches, layer: int, starts: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], sizes: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], counts: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], flag: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], admitted: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], admitted_count: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')]) -> None: ...

    def begin(self) -> None:
        """
        Wait, in a thread, for the step to come; what was not waited for is given up.
        """

    def raise_flag(self) -> None:
        """The step, one of the host's, has left what it read."""

    def wait(self, seconds: float) -> list[tuple[int, int, int]]:
        """
        Entries hit, missed and admitted by each cache; none where nothing was begun.
        """

def decode(q: Annotated[torch.Tensor, dict(device='cpu', writable=False)], keys: Annotated[torch.Tensor, dict(device='cpu', writable=False)], values: Annotated[torch.Tensor, dict(device='cpu', writable=False)], key_scale: Annotated[torch.Tensor, dict(dtype='float32', shape=(None, None), device='cpu', writable=False)] | None, value_scale: Annotated[torch.Tensor, dict(dtype='float32', shape=(None, None), device='cpu', writable=False)] | None, bias: Annotated[torch.Tensor, dict(dtype='float32', shape=(None, None), device='cpu', writable=False)] | None, starts: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)] | None, sizes: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)] | None, counts: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)] | None, first: int, scale: float, softcap: float, out: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu')], lse: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu')], threads: int, isa: str) -> None:
    """
    Attend one query position to all entries, or to those that runs name; softcap 0 is none.
    """

def sampled_decode(q: Annotated[torch.Tensor, dict(device='cpu', writable=False)], keys: Annotated[torch.Tensor, dict(device='cpu', writable=False)], values: Annotated[torch.Tensor, dict(device='cpu', writable=False)], starts: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)], counts: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)], norm: Annotated[torch.Tensor, dict(dtype='float32', shape=(None, None), device='cpu', writable=False)], q_norm: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)], q_mean: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)], faint: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)], bits: int, tables: int, least: float, first: int, scale: float, softcap: float, out: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu')], lse: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu')], threads: int, isa: str) -> None:
    """
    Attend entries that hash tables sampled, each weighed by how likely that was.
    """

def hash_build(keys: Annotated[torch.Tensor, dict(device='cpu', writable=False)], mean: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)], planes: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)], token: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], bound: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], threads: int, isa: str) -> None:
    """Sort the tokens of each head by their code, in every table."""

def hash_search(code: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)], token: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)], bound: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)], counts: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], threads: int, isa: str) -> tuple[Annotated[torch.Tensor, dict(dtype='int32', shape=(None, None), device='cpu')], int]:
    """
    The tokens that share a head's code in two tables or more, ascending, and the entries read.
    """

def key_scan(codes: Sequence[Annotated[torch.Tensor, dict(dtype='int8', order='C', device='cpu', writable=False)]], weights: Sequence[Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)]], queries: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)], keys: Sequence[Annotated[torch.Tensor, dict(device='cpu', writable=False)]], candidates: int, ids: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], threads: int, isa: str) -> None:
    """
    The keys of largest product by int8 codes, ordered by the keys themselves where they are given, into `ids` [H, k].
    """

def merge(outs: Sequence[Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)]], lses: Sequence[Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)]], out: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu')], lse: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu')], threads: int, isa: str) -> None:
    """
    Merge P partial attentions (out [.., D], lse [..]) into `out` and `lse`.
    """

def page_gather(store: Annotated[torch.Tensor, dict(dtype='uint8', device='cpu', writable=False)], cache: Annotated[torch.Tensor, dict(dtype='uint8', device='cpu', writable=False)] | None, sources: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)], targets: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)], sizes: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)], counts: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)], out: Annotated[torch.Tensor, dict(dtype='uint8', device='cpu')], first: int, threads: int) -> None:
    """
    Copy pages of a store and of a cache into a buffer; all are rows of bytes.
    """

def page_admit(buffer: Annotated[torch.Tensor, dict(dtype='uint8', device='cpu', writable=False)], sources: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)], targets: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)], sizes: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)], counts: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)], cache: Annotated[torch.Tensor, dict(dtype='uint8', device='cpu')], threads: int) -> None:
    """Copy pages of a buffer into a cache; both are rows of bytes."""

def code_train(keys: Annotated[torch.Tensor, dict(device='cpu', writable=False)], rounds: int, centroids: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu')], threads: int, isa: str) -> None:
    """
    Cluster every part of the keys of each head, all of which are looked at.
    """

def code_encode(keys: Annotated[torch.Tensor, dict(device='cpu', writable=False)], centroids: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)], code: Annotated[torch.Tensor, dict(dtype='uint8', order='C', device='cpu')], threads: int, isa: str) -> None:
    """The number of the nearest centroid of every part of each key."""

def code_search(tables: Sequence[Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)]], codes: Sequence[Annotated[torch.Tensor, dict(dtype='uint8', order='C', device='cpu', writable=False)]], found: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], threads: int, isa: str) -> None:
    """
    The tokens of largest weight by tables of scaled scores, a row of tables a row of tokens.
    """

def read(words: Annotated[torch.Tensor, dict(dtype='int64', order='C', device='cpu', writable=False)], threads: int, isa: str) -> int:
    """The exclusive or of all words: a measure of read bandwidth."""

def segmented_kmeans(keys: Annotated[torch.Tensor, dict(device='cpu', writable=False)], values: Annotated[torch.Tensor, dict(device='cpu', writable=False)], segments: int, iterations: int, even_share: float, all: bool, order: Annotated[torch.Tensor, dict(dtype='int64', order='C', device='cpu')], start: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], size: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], centroids: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu')], mean_values: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu')], spread: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu')], threads: int, isa: str) -> None:
    """
    Cluster the keys of each head; `even_share`: of the seeds; the others lie apart; `all`: the last assignment sees the centroids of all segments.
    """

def token_union(token: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)], count: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)], place: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)], size: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)], union_place: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], union_count: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], left: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], threads: int, isa: str) -> None:
    """
    The places of what the heads of a group found, ascending, and what is left of the clusters.
    """

def wave_decode(q: Annotated[torch.Tensor, dict(device='cpu', writable=False)], centroids: Annotated[torch.Tensor, dict(device='cpu', writable=False)], means: Annotated[torch.Tensor, dict(device='cpu', writable=False)], start: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)], size: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)], keys: Sequence[Annotated[torch.Tensor, dict(device='cpu', writable=False)]], values: Sequence[Annotated[torch.Tensor, dict(device='cpu', writable=False)]], firsts: Sequence[int], ranges: Sequence[tuple[int, int]], indexed: tuple[int, int], vote_max: bool, scale: float, softcap: float, spread: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)] | None, votes_by_mass: bool, gaussian: bool, tolerance: float, bias: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu')] | None, run_start: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], run_size: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], run_count: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], estimated: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], estimate_count: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], out: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu')], lse: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu')], threads: int, isa: str) -> None:
    """
    A decode step over clusters and stored keys and values; softcap 0 is none.
    """

def wave_search(q: Annotated[torch.Tensor, dict(device='cpu', writable=False)], centroids: Annotated[torch.Tensor, dict(device='cpu', writable=False)], size: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)], bias: Annotated[torch.Tensor, dict(dtype='float32', shape=(None, None), device='cpu', writable=False)] | None, weight: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)] | None, vote_max: bool, scale: float, softcap: float, retrieved: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], estimated: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], live: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu')], score: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu')] | None, starts: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)] | None, sizes: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)] | None, counts: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)] | None, threads: int, isa: str) -> None:
    """
    Rank clusters by the votes of a group of query heads, all or those that runs name; softcap 0 is none.
    """
