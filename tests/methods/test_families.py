"""Whole models: with everything in the budget a method continues as stock eager attention does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from tests.tiny_models import EXACT, save_tiny, tiny

from longspan.methods.h2o import H2O
from longspan.methods.infinigen import InfiniGen
from longspan.methods.infllm import InfLLM
from longspan.methods.oracle_topk import OracleTopK
from longspan.methods.oracle_topp import OracleTopP
from longspan.methods.random_k import RandomK
from longspan.methods.retroinfer import RetroInfer
from longspan.methods.streaming_llm import StreamingLLM
from longspan.models.huggingface import HuggingFace

if TYPE_CHECKING:
    from pathlib import Path

    from longspan.methods.base import Method

NEW = 64
RETROINFER = RetroInfer(
    retrieval_budget=1.0, local_tokens=8, update_tokens=16, tokens_per_cluster=5, kmeans_rounds=3
)
OTHERS: dict[str, Method] = {
    "streaming_llm": StreamingLLM(budget=1.0),
    "h2o": H2O(budget=1.0),
    "infllm": InfLLM(retrieval_budget=1.0, local_tokens=8, page_tokens=8, update_tokens=8),
    "infinigen": InfiniGen(
        retrieval_budget=1.0, local_tokens=8, update_tokens=8, dense_layers=(), rank=0.1
    ),
    "oracle_topk": OracleTopK(budget=1.0, local_tokens=8),
    "oracle_topp": OracleTopP(coverage=1.0, local_tokens=8),
    "random_k": RandomK(budget=1.0, local_tokens=8),
}
CASES = [(family, "retroinfer") for family in EXACT] + [
    (family, name) for family in ("llama", "gemma2") for name in OTHERS
]


@pytest.mark.parametrize(("family", "name"), CASES)
def test_a_full_budget_continues_as_eager_attention(family: str, name: str, tmp_path: Path) -> None:
    method = RETROINFER if name == "retroinfer" else OTHERS[name]
    path = str(save_tiny(family, tmp_path))
    model = HuggingFace(path=path, dtype="float32", device="cpu", prefill_chunk_tokens=16).load()
    rng = torch.Generator().manual_seed(1)
    rows = [torch.randint(3, 320, (n,), generator=rng).tolist() for n in (70, 9)]
    session = model.session(method, rows=2)
    logits_BV = session.prefill(rows)
    for row in rows:
        row.append(0)
    module, seen = tiny(family), []
    for _ in range(NEW):
        tokens = logits_BV.argmax(-1).tolist()
        seen.append(logits_BV)
        for row, token in zip(rows, tokens, strict=True):
            row[-1:] = [token, 0]
        logits_BV = session.decode(tokens)
    for number, row in enumerate(rows):
        prompt = len(row) - 1 - NEW
        with torch.no_grad():
            right_NV = module(input_ids=torch.tensor([row[:-1]])).logits[0, prompt - 1 : -1]
        found_NV = torch.stack([logits_BV[number] for logits_BV in seen])
        error = (found_NV - right_NV).abs().max() / right_NV.abs().max()
        assert error < 2e-5
    if name == "retroinfer":
        assert all(state.memory()["index_bytes"] > 0 for layer in session.states for state in layer)
