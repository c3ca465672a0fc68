"""Methods with decode steps of fixed shape, and sessions that take them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from tests.models.test_exactness import prompts
from torch.utils._python_dispatch import TorchDispatchMode

from longspan.methods.full import Full
from longspan.methods.h2o import H2O
from longspan.methods.hybrid import Hybrid
from longspan.methods.infllm import InfLLM
from longspan.methods.loki import Loki
from longspan.methods.magicpig import MagicPIG
from longspan.methods.pqcache import PQCache
from longspan.methods.quest import Quest
from longspan.methods.retroinfer import RetroInfer
from longspan.methods.shadowkv import ShadowKV
from longspan.methods.snapkv import SnapKV
from longspan.methods.streaming_llm import StreamingLLM

if TYPE_CHECKING:
    import pytest
    from tests.models.dense import Load

    from longspan.methods.base import Method
    from longspan.models.session import StoreSession


LENGTHS = (180, 75, 3)
BUFFERED = "retroinfer, wave_buffer"
BUFFERED_TOKENS = "pqcache, wave_buffer"
BY_CODES = ("pqcache", "pqcache, a set a query head", BUFFERED_TOKENS)
WEIGHED = ("h2o", "h2o, what is full later", "infllm", "infllm, wave_buffer")
METHODS: dict[str, Method] = {
    "full": Full(),
    "retroinfer": RetroInfer(
        update_tokens=32, local_tokens=16, segment_tokens=64, tokens_per_cluster=4,
        retrieval_budget=0.2, estimation_budget=0.4, placement="gpu",
    ),
    "retroinfer, gaussian, sized": RetroInfer(
        update_tokens=32, local_tokens=16, estimation="gaussian", vote="sized", summaries="float32",
        retrieval_budget=0.1, tokens_per_cluster=8,
    ),
    "retroinfer, by mass": RetroInfer(
        update_tokens=32, local_tokens=16, segment_tokens=64, tokens_per_cluster=4, vote="mass",
        retrieval_budget=0.1, estimation_budget=0.3, placement="gpu", outlier_budget=0.5,
        tolerance=0.0,
    ),
    BUFFERED: RetroInfer(
        update_tokens=32, local_tokens=16, segment_tokens=64, tokens_per_cluster=4,
        retrieval_budget=0.2, estimation_budget=0.4, placement="wave_buffer", cache_budget=0.5,
    ),
    "retroinfer, no estimation": RetroInfer(
        update_tokens=40, local_tokens=8, estimation="none", vote="max", retrieval_budget=0.1,
    ),
    "quest": Quest(page_tokens=4, update_tokens=16, dense_layers=(0,), retrieval_budget=0.3),
    "quest, a set a KV head, wave_buffer": Quest(
        page_tokens=8, update_tokens=16, dense_layers=(), retrieval_budget=0.2, share="kv_head",
        placement="wave_buffer", cache_budget=0.5, sink_tokens=3, local_tokens=10,
    ),
    "shadowkv": ShadowKV(update_tokens=30, outlier_budget=0.1, retrieval_budget=0.2),
    "loki": Loki(update_tokens=32, local_tokens=16, retrieval_budget=0.2, candidates=1.5),
    "loki, as in the paper": Loki(
        update_tokens=7, local_tokens=9, retrieval_budget=0.3, candidates=1, metric="keys",
        rank=0.25, dense_layers=(1,),
    ),
    "loki, a count": Loki(
        update_tokens=40, local_tokens=8, sink_tokens=0, top_tokens=30, placement="gpu",
    ),
    "hybrid": Hybrid(
        update_tokens=32, sink_tokens=3, local_tokens=16, segment_tokens=64, tokens_per_cluster=4,
        top_tokens=16, placement="gpu",
    ),
    "hybrid, the best clusters": Hybrid(
        update_tokens=24, sink_tokens=0, local_tokens=8, estimation_budget=0.4, rank=0.5,
        top_tokens=None, retrieval_budget=0.1, dense_layers=(1,),
    ),
    "hybrid, wave_buffer": Hybrid(
        update_tokens=40, sink_tokens=2, local_tokens=9, estimation_budget=0, top_tokens=9,
        placement="wave_buffer", cache_budget=0.5,
    ),
    "h2o": H2O(budget=0.3),
    "h2o, what is full later": H2O(kept_tokens=71, score="mean"),
    "infllm": InfLLM(
        page_tokens=4, update_tokens=16, local_tokens=12, sink_tokens=3, retrieval_budget=0.3,
        representatives=2, placement="gpu", dense_layers=(1,),
    ),
    "infllm, wave_buffer": InfLLM(
        page_tokens=8, update_tokens=8, local_tokens=20, sink_tokens=5, retrieval_budget=0.2,
        representatives=3, placement="wave_buffer", cache_budget=0.5,
    ),
    "magicpig": MagicPIG(
        sink_tokens=3, local_tokens=8, bits=3, tables=12, dense_layers=(), placement="gpu"
    ),
    "magicpig, no sinks": MagicPIG(sink_tokens=0, local_tokens=1, bits=2, tables=6),
    "magicpig, nothing sampled": MagicPIG(local_tokens=30, bits=16, tables=2, dense_layers=(1,)),
    # a code a coordinate: tokens whose codes are equal weigh the same, and either may be read
    "pqcache": PQCache(
        update_tokens=24, sink_tokens=5, local_tokens=10, parts=16, bits=5, retrieval_budget=0.2,
    ),
    "pqcache, a set a query head": PQCache(
        update_tokens=40, sink_tokens=3, local_tokens=8, parts=16, bits=5, top_tokens=20,
        share="query_head", dense_layers=(1,), placement="gpu",
    ),
    BUFFERED_TOKENS: PQCache(
        update_tokens=30, sink_tokens=2, local_tokens=9, parts=16, bits=5, retrieval_budget=0.3,
        placement="wave_buffer", cache_budget=0.5,
    ),
    "snapkv": SnapKV(budget=0.3, window_tokens=8),
    "streaming_llm": StreamingLLM(budget=0.3, sink_tokens=2),
    "streaming_llm, window": StreamingLLM(window_tokens=40),
}  # fmt: skip
STEPS = 80
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")


class Watch(TorchDispatchMode):
    """Notes operations with the shapes they take and give."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        assert not any(word in name for word in WAITS), f"{name} waits for the device"
        given = [tuple(x.shape) for x in args if isinstance(x, torch.Tensor)]
        out = func(*args, **(kwargs or {}))
        self.seen.append((name, given, tuple(out.shape) if isinstance(out, torch.Tensor) else ()))
        return out


def sessions(
    load: Load,
    method: Method,
    lengths: tuple[int, ...] = LENGTHS,
    layers: int = 3,
    family: str = "llama",
    **options: Any,
) -> tuple[StoreSession, StoreSession]:
    """The same rows, decoded by their states and by the step."""
    both = []
    for graphs in ("off", "eager"):
        model = load(family, graphs=graphs, layers=layers)
        with torch.no_grad():  # it is zero there, so that to such a query all pages are alike
            model._decoder.module.get_input_embeddings().weight[0, ::2] = 0.7
        session = model.session(method, len(lengths), **options)
        session.prefill(prompts(lengths))
        both.append(session)
    return both[0], both[1]


def greedy(session: StoreSession, steps: int) -> list[torch.Tensor]:
    logits_BV = session.decode([5] * len(session.lengths))
    said = [logits_BV]
    for _ in range(steps - 1):
        logits_BV = session.decode(logits_BV.argmax(-1).tolist())
        said.append(logits_BV)
    return said


def joined(state: Any) -> list[torch.Tensor]:
    parts = state.store.parts
    names = ("keys_GTD", "values_GTD", "places_GT")
    return [torch.cat([getattr(part, name) for part in parts], 1) for name in names]


def watched(session: StoreSession, steps: int, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The operations of each further step, none of which brings a number to the host."""
    if session._rows[0].static is None:
        session.decode([5] * len(session.lengths))
    step = session._rows[0].static
    assert step is not None
    seen, inner = [], step.step

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a step waits for the device")

    def outer() -> torch.Tensor:
        with Watch() as watch, monkeypatch.context() as patch:
            for name in ("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__"):
                patch.setattr(torch.Tensor, name, refuse)
            logits_BV = inner()
        seen.append(watch.seen)
        return logits_BV

    step.step = outer  # type: ignore[method-assign]
    greedy(session, steps)
    return seen
