"""The embedded model, where its weights have been trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.models.dense import Dense

import longspan.models
from longspan.models.generation import Sampling, Stream, generate
from longspan.models.huggingface import HuggingFace
from longspan.types import Example

FOLDER = Path(longspan.models.__file__).parent / "nano"


@pytest.mark.skipif(
    not (FOLDER / "model.safetensors").is_file(),
    reason="the weights of the embedded model are not in this checkout; scripts/train_nano.py",
)
def test_the_embedded_model_answers() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*")) <= 25 * 2**20
    model = HuggingFace(path="nano", dtype="float32", device="cpu").load()
    geometry = model.geometries[0]
    assert geometry.head_size == 64
    assert geometry.query_heads >= 2 * geometry.kv_heads
    example = Example(
        id="1",
        context="The grass is green. The sky is blue. The sun is yellow.",
        question=" What color is the sky?",
        references=("blue",),
        max_new_tokens=4,
    )
    context, question = model.encode(example)
    session = model.session(Dense())
    stream = Stream(prompt_tokens=len(context + question), max_new_tokens=4)
    for _ in generate(
        session,
        session.prefill([context + question]),
        [stream],
        tokenizer=model.tokenizer,
        eos_ids=model.eos_ids,
        sampling=Sampling(),
    ):
        pass
    assert stream.generation(model.tokenizer).finish in ("eos", "length")
