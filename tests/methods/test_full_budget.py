"""With everything in the budget each method is full attention: chunks, then 64 decode steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.methods.cases import assert_close, layer

from longspan.methods.full import Full
from longspan.methods.h2o import H2O
from longspan.methods.infinigen import InfiniGen
from longspan.methods.infllm import InfLLM
from longspan.methods.oracle_topk import OracleTopK
from longspan.methods.oracle_topp import OracleTopP
from longspan.methods.pqcache import PQCache
from longspan.methods.random_k import RandomK
from longspan.methods.retroinfer import RetroInfer
from longspan.methods.streaming_llm import StreamingLLM

if TYPE_CHECKING:
    from longspan.methods.base import Method

EVERYTHING: dict[str, Method] = {
    "full": Full(),
    "streaming_llm": StreamingLLM(budget=1.0),
    "streaming_llm, window": StreamingLLM(window_tokens=10_000),
    "oracle_topk": OracleTopK(budget=1.0),
    "oracle_topp": OracleTopP(coverage=1.0),
    "random_k": RandomK(budget=1.0),
    "h2o": H2O(budget=1.0),
    "h2o, tokens": H2O(kept_tokens=347, score="mean"),
    "infllm": InfLLM(
        retrieval_budget=1.0, sink_tokens=3, local_tokens=20, page_tokens=8, update_tokens=33
    ),
    "infinigen": InfiniGen(retrieval_budget=1.0, dense_layers=(), update_tokens=40),
    "infinigen, alpha": InfiniGen(
        retrieval_budget=1.0, alpha=1e6, dense_layers=(), update_tokens=33, candidates=1.2
    ),
    "pqcache": PQCache(retrieval_budget=1.0, update_tokens=40),
    "pqcache, query heads": PQCache(retrieval_budget=1.0, update_tokens=33, share="query_head"),
    "retroinfer": RetroInfer(retrieval_budget=1.0, estimation_budget=0.0, update_tokens=40),
    "retroinfer, segments": RetroInfer(
        retrieval_budget=1.0, segment_tokens=50, tokens_per_cluster=7, update_tokens=33
    ),
    "retroinfer, tail": RetroInfer(retrieval_budget=1.0, tail="segment_mean", update_tokens=33),
    "retroinfer, gpu": RetroInfer(retrieval_budget=1.0, placement="gpu", vote="max"),
    "retroinfer, no steady zone": RetroInfer(
        retrieval_budget=1.0, sink_tokens=0, local_tokens=0, update_tokens=1
    ),
}
SHAPES: dict[str, dict[str, Any]] = {
    "G=1": {"groups": 1, "heads": 3},
    "R=1": {"groups": 3, "heads": 1},
    "G=2, R=4": {"groups": 2, "heads": 4, "size": 24},
    "soft cap": {"softcap": 5.0},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", EVERYTHING)
def test_everything_in_the_budget_is_full_attention(name: str, shape: str) -> None:
    given = layer(347, **SHAPES[shape])
    state = EVERYTHING[name].layer(given.geometry)
    bounds = (0, 100, 101, 283)
    for stop, chunk in zip(bounds[1:], given.prefill(state, *bounds), strict=True):
        right = given.oracle(stop - 1)
        assert_close(type(chunk)(chunk.out[:, -1], chunk.lse[:, -1]), right)
    state.seal()
    for position in range(283, 347):
        assert_close(given.step(state, position), given.oracle(position))
    assert state.work().exact_tokens == 347


def test_a_budget_outside_its_range_is_refused() -> None:
    for wrong in (0.0, -0.1, 1.5):
        with pytest.raises(ValueError, match="retrieval_budget"):
            RetroInfer(retrieval_budget=wrong)
    with pytest.raises(ValueError, match="placement"):
        RetroInfer(placement="moon")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="update_tokens"):
        RetroInfer(update_tokens=0)
