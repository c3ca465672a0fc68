"""The embedded model answers the same wherever its keys and values lie."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import longspan.models
from longspan.methods.retroinfer import RetroInfer
from longspan.models.huggingface import HuggingFace

if TYPE_CHECKING:
    from longspan.methods.base import Method
    from longspan.models.decoder import Graphs
    from longspan.models.huggingface import HuggingFaceModel

WEIGHTS = Path(longspan.models.__file__).parent / "nano" / "model.safetensors"
pytestmark = pytest.mark.skipif(
    not WEIGHTS.is_file(), reason="the embedded model's weights are not in this checkout"
)
SETTINGS: dict[str, Any] = {"update_tokens": 96, "local_tokens": 16, "retrieval_budget": 0.06}


@pytest.fixture(scope="module")
def model() -> HuggingFaceModel:
    return loaded("off")


def loaded(graphs: Graphs) -> HuggingFaceModel:
    return HuggingFace(path="nano", dtype="float32", device="auto", graphs=graphs).load()


def prompts(model: HuggingFaceModel) -> list[list[int]]:
    """Of different words and lengths."""
    words = ("the quiet river", "carries green boats", "past nine", "old mills", "and bridges")
    rows = []
    for count, step in ((120, 3), (77, 2)):
        text = " ".join(words[n * step % len(words)] + str(n % 17) for n in range(count))
        rows.append(list(model.tokenizer(text)["input_ids"]))
    return rows


def greedy(model: HuggingFaceModel, method: Method, rows: list[list[int]]) -> list[list[int]]:
    session = model.session(method, len(rows))
    tokens = session.prefill(rows).argmax(-1).tolist()
    answers = [[token] for token in tokens]
    for _ in range(63):
        tokens = session.decode(tokens).argmax(-1).tolist()
        for answer, token in zip(answers, tokens, strict=True):
            answer.append(token)
    return answers


def test_64_greedy_tokens_are_the_same_on_every_placement(model: HuggingFaceModel) -> None:
    rows = prompts(model)
    assert len(rows[0]) > len(rows[1]) > 200
    right = greedy(model, RetroInfer(**SETTINGS, placement="cpu"), rows)
    assert len(set(right[0])) > 1
    for placement in ("gpu", "wave_buffer"):
        method = RetroInfer(**SETTINGS, placement=placement, cache_budget=0.1)
        assert greedy(model, method, rows) == right, placement
    # a row answers the same alone as in the batch
    alone = greedy(model, RetroInfer(**SETTINGS, placement="wave_buffer"), rows[1:])
    assert alone == right[1:]


def test_they_are_the_same_where_steps_find_out_what_is_cached(model: HuggingFaceModel) -> None:
    """On fixed buffers, with what was generated near and the prompt at home."""
    rows = prompts(model)
    right = greedy(model, RetroInfer(**SETTINGS, placement="cpu"), rows)
    method = RetroInfer(**SETTINGS, placement="wave_buffer", cache_budget=0.1)
    assert greedy(loaded("eager"), method, rows) == right
