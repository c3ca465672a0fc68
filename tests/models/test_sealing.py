"""Indexes that are built while later layers read: the same results, errors that arrive."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.models.test_exactness import prompts

from longspan.methods.retrieval import RetrievalState
from longspan.methods.retroinfer import RetroInfer
from longspan.methods.streaming_llm import StreamingLLM

if TYPE_CHECKING:
    from tests.models.dense import Load

METHOD = RetroInfer(local_tokens=4, update_tokens=8, tokens_per_cluster=2, retrieval_budget=0.2)


@pytest.mark.parametrize("chunk", [7, 1000])
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_overlapped_building_changes_nothing(
    load: Load, family: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    seal = RetrievalState.seal

    def watched(state: RetrievalState) -> None:
        before = state.index.tokens
        seal(state)
        if state.index.tokens > before:
            threads.append(threading.current_thread().name)

    monkeypatch.setattr(RetrievalState, "seal", watched)
    logits: list[list[torch.Tensor]] = []
    sessions = []
    for overlap in (False, True):
        model = load(family, prefill_chunk_tokens=chunk, overlap_index=overlap)
        session = model.session(METHOD, rows=3)
        steps = [session.prefill(prompts())]
        steps += [session.decode([5, 6, token]) for token in range(7, 12)]
        steps.append(session.prefill([[9, 8], [7], []]))
        logits.append(steps)
        sessions.append(session)
    assert all(torch.equal(a, b) for a, b in zip(*logits, strict=True))
    built: list[list[Any]] = [[s.index for layer in one.states for s in layer] for one in sessions]
    for one, two in zip(*built, strict=True):
        assert one.tokens == two.tokens
        if one.tokens:
            assert torch.equal(one.meta.centroids_GCD, two.meta.centroids_GCD)
    half = len(threads) // 2
    assert half
    assert {name.split("_")[0] for name in threads[:half]} == {"MainThread"}
    assert {name.split("_")[0] for name in threads[half:]} == {"longspan-seal"}


def test_what_sealing_raises_arrives(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(state: Any) -> None:
        raise ValueError(f"layer {state.geometry.layer} cannot be indexed")

    session = load("llama", overlap_index=True).session(StreamingLLM(), rows=1)
    for layer in session.states:
        monkeypatch.setattr(type(layer[0]), "seal", broken)
    with pytest.raises(ValueError, match="layer 0 cannot be indexed"):
        session.prefill(prompts()[:1])
    left = [thread.name for thread in threading.enumerate() if "longspan-seal" in thread.name]
    assert left == []
