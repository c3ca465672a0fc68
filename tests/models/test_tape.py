"""What decoding stored, taken from one session and given to another, is all that it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.models.test_exactness import prompts

from longspan.methods.faiss_hnsw import FaissHnsw
from longspan.methods.h2o import H2O
from longspan.methods.hybrid import Hybrid
from longspan.methods.infinigen import InfiniGen
from longspan.methods.infllm import InfLLM
from longspan.methods.retrieval_attention import RetrievalAttention
from longspan.methods.retroinfer import RetroInfer

if TYPE_CHECKING:
    from tests.models.dense import Load

    from longspan.methods.base import Method

SMALL: dict[str, Any] = {"sink_tokens": 2, "local_tokens": 4, "update_tokens": 5}
METHODS: dict[str, Method] = {
    "retroinfer": RetroInfer(**SMALL, tokens_per_cluster=4, retrieval_budget=0.1),
    "faiss_hnsw": FaissHnsw(**SMALL, top_tokens=3),
    "retrieval_attention": RetrievalAttention(
        **SMALL, top_tokens=3, beam=6, degree=4, seeds=0, graph_per="query_head"
    ),
    "h2o": H2O(kept_tokens=8),
    "infllm": InfLLM(
        sink_tokens=2, local_tokens=4, update_tokens=4, page_tokens=4, representatives=2,
        top_tokens=4,
    ),
    "infinigen": InfiniGen(**SMALL, top_tokens=3, dense_layers=()),
    "hybrid": Hybrid(**SMALL, top_tokens=3, tokens_per_cluster=4),
    "hybrid, graph": Hybrid(**SMALL, top_tokens=3, beam=6, tokens_per_cluster=4, tokens_by="graph"),
}  # fmt: skip


@pytest.mark.parametrize(("family", "dtype"), [("llama", "bfloat16"), ("gemma2", "float32")])
@pytest.mark.parametrize("method", list(METHODS))
def test_a_session_goes_on_as_the_recorded_one(
    load: Load, family: str, method: str, dtype: str
) -> None:
    """gemma2 has layers of its own window, which forget. Blocks are cut at uneven places."""
    model, tokens = load(family, dtype=dtype), [3 + n % 50 for n in range(24)]
    first = model.session(METHODS[method], rows=3)
    first.prefill(prompts())
    assert first.recorded(1) == b""
    first.record()
    blocks = []
    for step, token in enumerate(tokens, start=1):
        view = first if step < 9 else first.select([2, 1])
        view.decode([token] * len(view.lengths))
        if step in (1, 9, 24):
            blocks.append(first.recorded(1))
    second = model.session(METHODS[method], rows=3)
    second.prefill(prompts())
    for count, block in zip((1, 8, 15), blocks, strict=True):
        second.replay(1, count, block)
    assert list(second.lengths) == [33, 50 + 24, 9]
    # the graph begins its next walk elsewhere, so its first answer may be another
    right, found = first.select([1]), second.select([1])
    for step in range(12):
        right_BV, found_BV = right.decode([7 + step]), found.decode([7 + step])
        if method != "hybrid, graph":
            assert torch.equal(right_BV, found_BV)
    for layer, twin in zip(right.states, found.states, strict=True):
        if method == "h2o":
            kept, same = layer[0].selection.retrieved, twin[0].selection.retrieved
            assert kept is not None
            assert same is not None
            assert torch.equal(kept.start_NK, same.start_NK)
            continue
        assert layer[0].index.tokens == twin[0].index.tokens > 60  # type: ignore[attr-defined]


def test_a_block_of_another_size_is_refused(load: Load) -> None:
    session = load("llama").session(METHODS["retroinfer"])
    session.prefill(prompts()[:1])
    session.record()
    session.decode([5])
    block = session.recorded(0)
    with pytest.raises(ValueError, match=r"a block of 2 tokens has \d+ bytes; right is \d+"):
        session.replay(0, 2, block)
    assert list(session.lengths) == [34]
