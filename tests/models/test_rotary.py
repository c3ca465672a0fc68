"""Rotary embeddings that look at the length: they see the run's, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.models.dense import Dense, Load
from tests.models.test_exactness import prompts
from tests.tiny_models import LLAMA3_ROPE, LONGROPE, tiny

from longspan.measures.base import Subject
from longspan.models.rope import positions

MIXED = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    "full_attention": {**LONGROPE, "short_factor": [1.0] * 16, "long_factor": [2.0] * 16},
}
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "longrope": ("phi3_longrope", {}, 114),
    "dynamic": ("llama_dynamic", {}, 62),
    "by layer type": ("gemma3", {"rope_parameters": MIXED}, 114),
}
"""Family, entries of its configuration, and a length."""


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("chunk", [16, 8192])
def test_frequencies_are_those_of_the_whole(load: Load, case: str, chunk: int) -> None:
    """Against one forward over all tokens, whose frequencies are those of their number."""
    family, config, total = CASES[case]
    model = load(family, prefill_chunk_tokens=chunk, config=config or None)
    check(model, tiny(family, **config), total)


def test_what_one_session_chose_does_not_leak(load: Load) -> None:
    """Each length in turn, of which most are beyond the trained 64."""
    model = load("llama_dynamic", prefill_chunk_tokens=16)
    for total in (200, 90, 120, 40):
        check(model, tiny("llama_dynamic"), total)


@pytest.mark.parametrize(
    ("rope", "right"),
    [
        ({"rope_type": "default"}, 64),
        ({"rope_type": "linear", "factor": 4.0}, 256),
        ({"rope_type": "dynamic", "factor": 2.5}, 160),
        ({"rope_type": "yarn", "factor": 4.0}, 256),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}, 128),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}, 64),
        (LLAMA3_ROPE, 64),
        (LONGROPE, 64),
    ],
)
def test_positions_are_as_many_as_the_frequencies_reach(rope: dict[str, Any], right: int) -> None:
    from transformers import LlamaConfig

    rope = {"rope_theta": 1e4, **rope}
    config = LlamaConfig(hidden_size=64, num_attention_heads=4, max_position_embeddings=64)
    assert positions(LlamaConfig(**{**config.to_dict(), "rope_parameters": rope})) == right


def test_what_is_stretched_by_layer_type_counts_it_already() -> None:
    full = {"rope_type": "linear", "rope_theta": 1e4, "factor": 8.0}
    sliding = {"rope_type": "default", "rope_theta": 1e4}
    rope = {"full_attention": full, "sliding_attention": sliding}
    assert positions(tiny("gemma3", rope_parameters=rope).config) == 1024


def check(model: Any, module: Any, total: int) -> None:
    ids = prompts((total,))[0]
    session = model.session(Dense(), context_tokens=total)
    logits = [session.prefill([ids[: total - 14]])[0]]
    logits += [session.decode([token])[0] for token in ids[total - 14 :]]
    with torch.no_grad():
        right_QV = module(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    assert torch.allclose(torch.stack(logits), right_QV[total - 15 :], atol=2e-5)


@pytest.mark.parametrize("context_tokens", [None, 64, 200])
def test_neighbours_and_passes_change_no_answer(load: Load, context_tokens: int | None) -> None:
    """The threshold is at 64: a longer neighbour and a longer answer would each cross it."""
    model = load("phi3_longrope")
    short, long = prompts((30, 100))
    subject = Subject(
        model=model, method=Dense(), protocol="question_dense", context_tokens=context_tokens
    )

    def first_V(rows: list[list[int]], new_tokens: int) -> torch.Tensor:
        return subject.read([(ids, []) for ids in rows], new_tokens)[1][0]

    alone_V = first_V([short], 4)
    torch.testing.assert_close(first_V([short, long], 4), alone_V, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(first_V([short], 400), alone_V, atol=1e-5, rtol=1e-5)


def test_all_positions_count_where_no_context_is_named(load: Load) -> None:
    model, (ids,) = load("phi3_longrope"), prompts((30,))
    named = [
        model.session(Dense(), context_tokens=tokens).prefill([ids])
        for tokens in (None, model.max_positions, 64)
    ]
    assert torch.equal(named[0], named[1])
    assert not torch.allclose(named[0], named[2], atol=1e-3)


def test_tokens_beyond_the_context_are_read_as_those_in_it(load: Load) -> None:
    """As by a model that has one kind of frequencies only."""
    short_only = {**LONGROPE, "long_factor": LONGROPE["short_factor"]}
    logits = []
    for config in (None, {"rope_parameters": short_only}):
        session = load("phi3_longrope", config=config).session(Dense(), context_tokens=60)
        seen = [session.prefill([prompts((50,))[0]])]
        logits.append(torch.cat([*seen, *(session.decode([token]) for token in range(30))]))
    assert torch.equal(*logits)


@pytest.mark.parametrize("family", ["phi3_longrope", "llama_dynamic"])
def test_frequencies_stay_where_they_are(load: Load, family: str) -> None:
    """The graph of a decode step has their address."""
    model = load(family)
    rotary = model.module.model.rotary_emb
    before, kept = rotary.inv_freq.data_ptr(), rotary.inv_freq.clone()
    for tokens in (40, 200, 40):
        model._decoder.rotary.set(tokens)
        assert rotary.inv_freq.data_ptr() == before
        assert torch.equal(rotary.inv_freq, kept) == (tokens == 40)


def test_such_a_model_needs_a_length(load: Load) -> None:
    model = load("phi3_longrope")
    model.max_positions = None
    with pytest.raises(ValueError, match="chooses its rotary frequencies by the length"):
        model.session(Dense())
    load("llama").session(Dense())


@pytest.mark.parametrize("family", ["llama", "llama3_rope", "llama_dynamic"])
def test_positions_that_can_be_stretched(load: Load, family: str) -> None:
    """What `stretches` promises is so: YaRN's frequencies go further, and the model reads on."""
    most = load(family).max_positions
    rope = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 8.0}
    model = load(family, config={"rope_parameters": rope})
    assert load(family).stretches
    assert model.max_positions > most


@pytest.mark.parametrize("family", ["gpt2", "gemma3", "phi3_longrope"])
def test_positions_that_cannot_be_stretched(load: Load, family: str) -> None:
    """A table, frequencies by layer type, and trained ones."""
    assert not load(family).stretches
