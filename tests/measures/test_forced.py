"""Texts that are fed to the model and weighed, held against the stock model's cross-entropy."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.tiny_models import save_tiny
from transformers import AutoModelForCausalLM

from longspan.measures.answers import Begun, Job
from longspan.measures.base import Subject, Voice
from longspan.measures.quality import Quality
from longspan.methods.full import Full
from longspan.methods.streaming_llm import StreamingLLM
from longspan.models.generation import Sampling, Stream, Taught, generate
from longspan.models.huggingface import HuggingFace
from longspan.tasks.perplexity import Perplexity
from longspan.types import Example

if TYPE_CHECKING:
    from longspan.methods.base import Method
    from longspan.models.huggingface import HuggingFaceModel
    from longspan.types import Record

EXAMPLES = [
    Example(
        str(n), "The sky is blue. " * (4 + n), "", (" The grass is green." * (n + 1),), 9,
        chat=False, forced=True,
    )
    for n in range(3)
]  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> HuggingFaceModel:
    path = save_tiny("llama", tmp_path_factory.mktemp("tiny"), initializer_range=0.3)
    return HuggingFace(path=str(path), dtype="float32", device="cpu").load()


def weighed(
    model: HuggingFaceModel, jobs: list[Job], method: Method | None = None,
    temperature: float = 0.0, protocol: Any = "question_dense", **options: Any,
) -> dict[str, Record]:  # fmt: skip
    def speak(*given: Any) -> Any:
        sampling = Sampling(temperature=temperature)
        return generate(*given, tokenizer=model.tokenizer, eos_ids=model.eos_ids, sampling=sampling)

    subject = Subject(model=model, method=method or Full(), protocol=protocol)
    voice = Voice(stream=Stream, taught=Taught, generate=speak)
    grown: list[Any] = []
    quality = Quality(subject, Perplexity(), voice, batch=3, **options)
    records = {record.id: record for record in quality(jobs, grown.extend)}
    assert not grown  # there is nothing that a killed run could go on with
    return records


def jobs(examples: list[Example]) -> list[Job]:
    return [Job(example, (0,)) for example in examples]


@pytest.mark.parametrize("protocol", ["question_dense", "question_sparse"])
@pytest.mark.parametrize("temperature", [0.0, 5.0])
def test_a_text_is_weighed_as_the_stock_model_does(
    model: HuggingFaceModel, temperature: float, protocol: Any
) -> None:
    found = weighed(model, jobs(EXAMPLES), None, temperature, protocol)
    stock = AutoModelForCausalLM.from_pretrained(model.options.path)
    for example in EXAMPLES:
        ids = model.tokenizer(example.context + example.references[0]).input_ids
        first = len(model.tokenizer(example.context).input_ids)
        ids = ids[: first + 9]
        with torch.no_grad():
            logits_TV = stock(torch.tensor([ids])).logits[0, first - 1 : -1]
        right_T = torch.tensor(ids[first:])
        nats_T = torch.nn.functional.cross_entropy(logits_TV, right_T, reduction="none")
        record = found[example.id]
        assert record.new_tokens == len(ids) - first
        assert record.meta["nats"] == pytest.approx(float(nats_T.sum()), rel=1e-4)
        assert record.score == pytest.approx(100 * math.exp(-float(nats_T.mean())), rel=1e-3)
        assert record.meta["right_tokens"] == int((logits_TV.argmax(-1) == right_T).sum())
        assert record.prediction == model.tokenizer.decode(logits_TV.argmax(-1).tolist())
        assert record.finish == "length"


def test_a_method_that_reads_less_weighs_otherwise(model: HuggingFaceModel) -> None:
    full, narrow = (
        weighed(model, jobs(EXAMPLES), method)
        for method in (Full(), StreamingLLM(sink_tokens=1, window_tokens=2))
    )
    # the first token comes from the prompt, which is read in full
    assert all(abs(full[key].meta["nats"] - narrow[key].meta["nats"]) > 0.1 for key in full)
    assert all(narrow[key].work["exact_tokens"] < full[key].work["exact_tokens"] for key in full)


def test_a_token_that_ends_answers_does_not_end_a_text(model: HuggingFaceModel) -> None:
    example = replace(EXAMPLES[0], references=(" The</s> grass is",), stop=("grass",))
    assert 2 in model.encode_answer(example)
    (record,) = weighed(model, jobs([example])).values()
    assert record.new_tokens == len(model.encode_answer(example))


def test_nothing_is_kept_of_a_text_that_is_under_way(model: HuggingFaceModel) -> None:
    """Not even where a run says that it was: it is fed from its beginning."""
    begun = Job(EXAMPLES[2], (0,), {})
    whole = weighed(model, [begun], keep=True)
    assert whole == weighed(model, [replace(begun, begun={1: Begun([5, 6])})])
