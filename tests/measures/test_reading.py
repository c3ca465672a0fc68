"""A context that several questions share is read once, and the answers are those of reading it
for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.tiny_models import save_tiny

from longspan.measures.answers import Job
from longspan.measures.base import Subject, Voice
from longspan.measures.quality import Quality
from longspan.measures.reading import Prompt, batches
from longspan.methods.full import Full
from longspan.methods.retroinfer import RetroInfer
from longspan.models.generation import Sampling, Stream, Taught, generate
from longspan.models.huggingface import HuggingFace
from longspan.tasks.multi_question import MultiQuestion
from longspan.types import Example

if TYPE_CHECKING:
    from longspan.methods.base import Method
    from longspan.models.huggingface import HuggingFaceModel
    from longspan.types import Record

TEXTS = ["The sky is blue. " * 12, "The grass is green. " * 15]
EXAMPLES = [
    Example(f"{c}-{n}", TEXTS[c], f"What is {n}{'?' * n}", ("x",), 6, meta={"context_id": str(c)})
    for c in range(2)
    for n in range(3)
]
METHODS: dict[str, Method] = {
    "full": Full(),
    "retroinfer": RetroInfer(
        sink_tokens=2, local_tokens=4, update_tokens=8, tokens_per_cluster=4, retrieval_budget=0.3
    ),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> HuggingFaceModel:
    path = save_tiny("llama", tmp_path_factory.mktemp("tiny"), initializer_range=0.3)
    return HuggingFace(path=str(path), dtype="float32", device="cpu").load()


def answers(
    model: HuggingFaceModel, method: Method, protocol: Any, examples: list[Example], batch: int
) -> tuple[dict[str, str], list[int]]:
    """Predictions by example, and the tokens that each prefill read."""
    read: list[int] = []

    def tell(what: str, done: int, total: int | None) -> None:
        if what == "reading the prompt":
            read.append(done)

    subject = Subject(model=model, method=method, protocol=protocol, tell=tell)

    def speak(*given: Any) -> Any:
        return generate(*given, tokenizer=model.tokenizer, eos_ids=frozenset(), sampling=Sampling())

    voice = Voice(stream=Stream, taught=Taught, generate=speak)
    quality = Quality(subject, MultiQuestion(), voice, batch=batch)
    records: list[Record] = list(quality([Job(example, (0,)) for example in examples]))
    return {record.id: record.prediction for record in records}, read


@pytest.mark.parametrize("protocol", ["question_dense", "question_sparse"])
@pytest.mark.parametrize("method", METHODS)
def test_each_context_is_read_once_and_answered_as_alone(
    model: HuggingFaceModel, method: str, protocol: Any
) -> None:
    together, read = answers(model, METHODS[method], protocol, EXAMPLES, batch=1)
    assert len(read) == 2
    alone: dict[str, str] = {}
    for example in EXAMPLES:
        alone |= answers(model, METHODS[method], protocol, [example], batch=1)[0]
    assert together == alone
    batched, read = answers(model, METHODS[method], protocol, EXAMPLES, batch=2)
    assert batched == alone
    assert len(read) == 2


def test_full_attention_answers_a_shared_context_as_any_other(model: HuggingFaceModel) -> None:
    plain = [Example(e.id, e.context, e.question, e.references, 6) for e in EXAMPLES]
    shared, _ = answers(model, Full(), "question_dense", EXAMPLES, batch=1)
    single, read = answers(model, Full(), "question_dense", plain, batch=1)
    assert shared == single
    assert len(read) == 6


def test_batches_keep_contexts_apart_and_room_for_the_longest() -> None:
    jobs = ["a1", "a2", "a3", "b1", "-", "-", "-"]

    def encode(job: str) -> Prompt:
        return Prompt([1] * 5, [2] * int(job[1:] or 1), 4)

    made = list(batches(jobs, lambda job: None if job == "-" else job[0], encode, 2))
    assert [chunk for chunk, _, _ in made] == [["a1", "a2"], ["a3"], ["b1"], ["-", "-"], ["-"]]
    assert [room for _, _, room in made] == [12, 12, 10, 10, 10]


def test_examples_of_their_own_are_encoded_when_their_turn_comes() -> None:
    encoded: list[int] = []

    def encode(job: int) -> Prompt:
        encoded.append(job)
        return Prompt([1], [2], 3)

    steps = batches(range(100), lambda _: None, encode, 2)
    next(steps)
    assert encoded == [0, 1]
