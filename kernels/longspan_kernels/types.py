"""What the operations take and return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Partial(NamedTuple):
    """Attention over a part of the tokens: softmax-normalised within the part, with its log-sum-
    exp.

    `out` is float32 [H, D] (decode) or [H, Q, D] (prefill), `lse` float32 [H] or [H, Q]; natural
    logarithm of the
    sum of exponentials of the scaled, soft-capped scores. An empty part is out = 0, lse = -inf.
    """

    out: Tensor
    lse: Tensor


@dataclass(frozen=True, slots=True)
class Runs:
    """Which entries to read: row n has `count_N[n]` runs, run i covers [start_NK[n, i], start_NK[n,
    i] + size).

    int32. `size_NK` None means that every run is one entry long. N is G (shared by a group) or H
    (one row a query
    head). Entries of a row beyond its count are unspecified; runs of a row never overlap.
    """

    start_NK: Tensor
    size_NK: Tensor | None
    count_N: Tensor

    def of(self, rows: slice, first: int = 0) -> Runs:
        """Those of some rows from run `first` on, which all of them have."""
        size_NK = None if self.size_NK is None else self.size_NK[rows, first:]
        return Runs(self.start_NK[rows, first:], size_NK, self.count_N[rows] - first)


class Chosen(NamedTuple):
    """Clusters, or tokens, of N heads that a step reads, and what of B rows is indexed."""

    indexed_2B: Tensor
    """int64: first and one past the last indexed slot of each row; both 0 where none is."""
    id_NK: Tensor
    """int32."""
    count_N: Tensor
    """int32: how many of the ids are read; the others are unspecified."""
    start_NC: Tensor | None = None
    """int32: first slot of each cluster; None: the ids are slots, each read by itself."""
    size_NC: Tensor | None = None
    """int32; None as `start_NC` is."""

    @classmethod
    def nothing(cls, indexed_2B: Tensor, heads: int) -> Chosen:
        """Of the indexed slots none is read."""
        none_N1 = indexed_2B.new_zeros(heads, 1).int()
        return cls(indexed_2B, none_N1, none_N1[:, 0].clone())


@dataclass(frozen=True, slots=True)
class Pages:
    """Which stretches of rows to copy to and from a buffer [N, E, D]: page p of row n is the
    `size_NP[n, p]` entries of the buffer from `target_NP[n, p]` on.

    int32. `source_NP` >= 0: the first row of the page in a cache [V, D]; below 0: it is the slot
    ~source (that is -1 - source) of a store. Row n has `count_N[n]` pages, none longer than `page`;
    what lies beyond the count is unspecified. Pages of a row never overlap in the buffer.
    """

    source_NP: Tensor
    target_NP: Tensor
    size_NP: Tensor
    count_N: Tensor
    page: int


@dataclass(frozen=True, slots=True)
class Clusters:
    """A partition of T tokens into C clusters per KV head, with what stands for each cluster.

    Cluster c of head g holds the tokens order_GT[g, start : start + size]; the clusters of a head
    follow one another in the order of their number and cover every token once. Empty clusters have
    size 0, mean value 0 and a finite centroid without meaning.
    """

    order_GT: Tensor
    """int64: token numbers, cluster by cluster, ascending within a cluster."""
    start_GC: Tensor
    """int32."""
    size_GC: Tensor
    """int32."""
    centroids_GCD: Tensor
    """float32: plain means of the member keys."""
    values_GCD: Tensor
    """float32: means of the member values."""
    spread_GC: Tensor
    """float32: mean over members of |key - centroid|^2 / D, the variance of one coordinate."""


class WaveHits(NamedTuple):
    """The clusters that a query reads, per KV head: int32 ids, the retrieved ones best first.

    Only the first `live_G[g]` of the retrieve + estimate ids of head g are non-empty clusters;
    empty ones come last and must not be read.
    """

    retrieve_GK: Tensor
    estimate_GK: Tensor
    live_G: Tensor
    score_HC: Tensor | None
    """float32: scaled, soft-capped centroid scores, -inf where the cluster is empty or takes no
    part; None where nobody asked."""
    count_2G: Tensor | None = None
    """int32 [2, G]: how many ids of either list are to be read, in no order, where rows were given
    limits of their own."""


Sharing = Literal["kv_head", "query_head"]
"""Whose tokens are retrieved: one set for the query heads of a KV head, or one each."""


class Coded(NamedTuple):
    """T tokens in codes: a key is cut into P parts of E coordinates, each written as the number of
    one of C centroids.
    """

    centroids_GPCE: Tensor
    """float32."""
    code_GPT: Tensor
    """uint8."""


class CodedRows(NamedTuple):
    """Tokens of B rows in codes, in buffers with room for T tokens of each; N = B G KV heads, those
    of a row side by side. A row has up to S codebooks, each for tokens behind those of the last.
    """

    centroids_NPCE: Tensor
    """float32: C / S centroids of each codebook, codebook by codebook."""
    code_NPT: Tensor
    """uint8: numbers within a codebook."""
    stop_BS: Tensor
    """int32: one past the last token of each codebook; the last of them: how many the row has. What
    lies beyond is unspecified, as are centroids that no code names."""


class HashTables(NamedTuple):
    """T tokens in each of L tables, sorted by one of C codes."""

    token_GLT: Tensor
    """int32."""
    bound_GLC: Tensor
    """int32 [G, L, C + 1]: where the tokens of each code begin."""


class Sampling(NamedTuple):
    """How entries came to be sampled."""

    mean_GD: Tensor
    """float32: what was taken off the keys before they were hashed."""
    norm_GT: Tensor
    """float32: length of what was left of each key."""
    bits: int
    """Hyperplanes of a table."""
    tables: int


class Stretch(Protocol):
    """Slots [first, first + T) of a store."""

    @property
    def first(self) -> int:
        """The number of the first slot."""

    @property
    def keys_GTD(self) -> Tensor:
        """Keys."""

    @property
    def values_GTD(self) -> Tensor:
        """Values."""


class WaveStep(NamedTuple):
    """A decode step over clusters: the attention, and what it read."""

    partial: Partial
    retrieved: Runs
    """Slots of the retrieved clusters, [G, K]."""
    estimated: Runs
    """The clusters that their means stood for, [G, E]."""
    bias_GC: Tensor | None = None
    """float32: the log of each cluster's mass less its score, where clusters were estimated as
    Gaussians; None: their ln size."""
