"""The records that travel between the rooms: frozen, no logic."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from longspan_kernels.types import Partial, Runs

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor

__all__ = [
    "Estimate",
    "Example",
    "Generation",
    "LayerGeometry",
    "Partial",
    "Protocol",
    "Record",
    "Runs",
    "Selection",
    "StepBytes",
    "Work",
]

Protocol = Literal["question_dense", "question_sparse"]


@dataclass(frozen=True, slots=True)
class LayerGeometry:
    """What a method must know of one attention layer of one sequence."""

    layer: int
    query_heads: int
    kv_heads: int
    head_size: int
    scale: float
    dtype: torch.dtype
    device: torch.device
    softcap: float | None = None

    @property
    def entry_bytes(self) -> int:
        """Of the key and the value of a token, one KV head."""
        return 2 * self.head_size * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Estimate:
    """Pseudo-tokens that stand for many: entry c weighs exp(q.key_c*scale + bias_c) and returns
    value_c.

    `ids` are runs over the C pseudo-tokens of each KV head.
    """

    keys_GCD: Tensor
    values_GCD: Tensor
    bias_GC: Tensor
    ids: Runs
    tokens_GC: Tensor
    """How many tokens each pseudo-token stands for."""

    def of(self, groups: slice) -> Estimate:
        """Those of some KV heads."""
        parts = (self.keys_GCD, self.values_GCD, self.bias_GC)
        keys, values, bias = (part[groups] for part in parts)
        return Estimate(keys, values, bias, self.ids.of(groups), self.tokens_GC[groups])


@dataclass(frozen=True, slots=True)
class Selection:
    """What one decode step attended. Slots count from 0 in the order of the layer's store."""

    steady: tuple[tuple[int, int], ...]
    """Slot ranges [start, stop) attended exactly whatever the query."""
    retrieved: Runs | None = None
    estimated: Estimate | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """What one decode step of one layer of one sequence cost; token counts are means over KV heads
    (or query heads).
    """

    exact_tokens: float
    estimated_tokens: float = 0.0
    distances: float = 0.0
    """Query-key (or query-centroid) products spent on searching, per query head."""
    hops: float = 0.0
    """Nodes expanded or lists opened on the way, per query head."""
    index_bytes: float = 0.0
    kv_bytes: float = 0.0
    cached_tokens: float = 0.0
    """Of the retrieved tokens, those that a cache of blocks held."""
    missed_tokens: float = 0.0
    """Those that came from the store behind the cache."""
    bus_bytes: float = 0.0
    """What came from there."""


class StepBytes(NamedTuple):
    """What a layer's steps of fixed shape hold beside keys and values and where these stand: what
    is a number a slot, cluster or page. Near the model.
    """

    kept: int = 0
    """As long as there are steps."""
    passing: int = 0
    """While the layer is computed; layers take turns."""
    moved: bool = False
    """Whether `kept` holds what the states' indexes do, which lie there then."""


@dataclass(frozen=True, slots=True)
class Example:
    """One question of a task. The model reads context + question (+ prefix, after the chat
    template).
    """

    id: str
    context: str
    question: str
    references: tuple[str, ...]
    max_new_tokens: int
    prefix: str = ""
    stop: tuple[str, ...] = ()
    chat: bool = True
    """Whether a chat template, where the model has one, is put around it."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Facts for the record: fill, depth, source index, ... (JSON types only)."""
    forced: bool = False
    """Whether the model answers nothing but is fed the reference, in which the prompt goes on, and
    is scored by the probabilities it gives to it.
    """

    @property
    def prompt(self) -> str:
        """Context and question as one text."""
        return self.context + self.question


@dataclass(frozen=True, slots=True)
class Generation:
    """What a model answered."""

    text: str
    tokens: tuple[int, ...]
    prompt_tokens: int
    finish: Literal["eos", "stop", "length"]


@dataclass(frozen=True, slots=True)
class Record:
    """One line of samples.jsonl: one answered example."""

    id: str
    sample: int
    """0 but where one example is answered several times."""
    prediction: str
    references: tuple[str, ...]
    score: float
    """0..100."""
    prompt_tokens: int
    new_tokens: int
    finish: str
    seed: int
    work: Mapping[str, float]
    meta: Mapping[str, Any] = field(default_factory=dict)
