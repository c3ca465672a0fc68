"""Settings of an attention graph and what a search of it gives."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

Storage = Literal["int8", "bfloat16", "float16", "float32"]
Metric = Literal["queries", "keys"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphOptions:
    """How a graph is built. RetrievalAttention publishes none of these; see README.md for ours."""

    degree: int = 28
    """Edges a node: 4 bytes each."""
    list_tokens: int = 100
    """Nearest keys of each sampled query that are brought together."""
    pivots: int = 4
    """Sampled queries, those that rank it best, whose lists are a key's candidates."""
    candidates: int = 128
    """Nearest candidates that the occlusion rule looks at."""
    neighbours: int = 16
    """Near keys that are candidates whether a query reads them or not."""
    cluster_tokens: int = 128
    """Keys a cluster, of the clusters through which near keys are found."""
    probes: int = 4
    """Clusters in which near keys are looked for."""
    entries: int = 512
    """Nodes every search begins with, far from each other; 1/64 of the keys at most."""
    slack: float = 1.15
    """A kept edge hides a candidate that it is this many times nearer to than the node is."""
    storage: Storage = "int8"
    """What the search reads while it walks."""
    width: int | None = None
    """Columns of the codes, the most telling first; None: all, the head size."""
    metric: Metric = "queries"
    """Distance between keys: the mean squared difference of their scores over the sampled queries,
    or Euclidean."""
    insert_beam: int = 64
    """Breadth of the search that finds a new key its neighbours."""

    def __post_init__(self) -> None:
        least = {"degree": 4, "candidates": self.degree, "pivots": 0, "neighbours": 0, "slack": 1.0}
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int | float):
                continue
            if value < (bound := least.get(field.name, 1)):
                raise ValueError(f"{field.name} is {value}; it must be at least {bound}")


class GraphHits(NamedTuple):
    """What a search found and what it cost; row h belongs to query h."""

    ids_HK: Tensor
    """int32, best first, -1 where the walk met fewer than k keys; where k is all of them they are
    in their own order."""
    distances_H: Tensor
    """int64: products of the query with a code or a key."""
    hops_H: Tensor
    """int64: nodes whose edges were read."""
