"""Several questions on one context."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pytest
from real_world import DATA, CharTokenizer, record

from longspan.tasks.multi_question import MultiQuestion

if TYPE_CHECKING:
    from pathlib import Path

FILE = DATA / "multi_question.json"
ROWS = json.loads(FILE.read_text())
TOKENIZER = CharTokenizer()


def task(**more: Any) -> MultiQuestion:
    return MultiQuestion(**{"path": str(FILE), **more})


@pytest.mark.parametrize("style", ["auto", "raw", "inst"])
def test_examples_of_one_context_are_neighbours_with_the_same_text(style: Any) -> None:
    examples = task(prompt_style=style).examples(TOKENIZER, None, None, 0)
    groups = [list(g) for _, g in groupby(examples, lambda e: e.meta["context_id"])]
    assert [len(group) for group in groups] == [3, 3, 3]
    assert len({group[0].meta["context_id"] for group in groups}) == 3
    for row, group in zip(ROWS, groups, strict=True):
        assert len({example.context for example in group}) == 1
        assert row["context"] in group[0].context
        assert len({example.question for example in group}) == 3
    assert len({example.id for example in examples}) == 9


def test_the_prompt_is_put_together() -> None:
    first = task().examples(TOKENIZER, None, 1, 0)[0]
    question = ROWS[0]["questions"][0]["question"]
    assert first.prompt == f"{ROWS[0]['context']}\n\nQuestion: {question}\nAnswer:"
    inst = task(prompt_style="inst").examples(TOKENIZER, None, 1, 0)[0]
    assert inst.prompt == f"[INST] {first.prompt} [/INST]"


def test_scores_by_turn() -> None:
    it = task(match="all")
    examples = it.examples(TOKENIZER, None, 6, 0)
    records = [
        record(it, e, e.references[0].upper() if e.meta["turn"] == 0 else "") for e in examples
    ]
    metrics = it.aggregate(records)
    assert metrics["contexts"] == 2
    assert (metrics["turn/0"], metrics["turn/1"], metrics["turn/2"]) == (100, 0, 0)


@pytest.mark.parametrize("outputs", ["tea", ["tea", "milk"]])
@pytest.mark.parametrize("name", ["outputs", "answer", "answers"])
def test_references(tmp_path: Path, outputs: Any, name: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"context": "c", "questions": [{"question": "q", name: outputs}]}))
    (example,) = task(path=str(path)).examples(TOKENIZER, None, None, 0)
    assert example.references == (("tea",) if outputs == "tea" else ("tea", "milk"))
    assert task(path=str(path)).label == "multi_question[mine]"


def test_squad_files_are_read(tmp_path: Path) -> None:
    answers = [{"text": "tea", "answer_start": 0}, {"text": "tea"}, {"text": "hot tea"}]
    asked = {"id": "1", "question": "What?", "answers": answers, "is_impossible": False}
    never = {"id": "2", "question": "Why?", "answers": [], "is_impossible": True}
    paragraphs = [
        {"context": "tea", "qas": [asked, never, asked]},
        {"context": "milk", "qas": [never]},
        {"context": "cake", "qas": [asked]},
    ]
    path = tmp_path / "dev-v2.0.json"
    path.write_text(
        json.dumps({"version": "v2.0", "data": [{"title": "t", "paragraphs": paragraphs}]})
    )
    examples = task(path=str(path)).examples(TOKENIZER, None, None, 0)
    assert [e.context for e in examples] == ["tea", "tea", "cake"]
    assert [e.id for e in examples] == ["0/0", "0/1", "1/0"]
    assert examples[0].references == ("tea", "hot tea")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"questions": []}, "row 0: field context is missing"),
        ({"context": "c"}, "row 0: field questions is missing"),
        ({"context": "c", "questions": ["q"]}, "row 0: field questions must be a list of objects"),
        ({"context": "c", "questions": [{"outputs": "x"}]}, "row 0, question 0: field question is"),
        ({"context": "c", "questions": [{"question": "x"}]}, "question 0: field outputs or answer"),
        ({"context": "c", "questions": [{"question": "x", "outputs": [True]}]}, "be a text or a"),
        ({"context": "c", "questions": [{"question": "x", "outputs": [" "]}]}, "question 0: field"),
        (
            {"context": "c", "questions": [{"question": "x", "answers": [{"text": "\t"}]}]},
            "question 0: field 'answers' is",
        ),
        ({"paragraphs": [3]}, "row 0: field paragraphs must be a list of objects"),
        ({"paragraphs": [{"context": "c", "qas": 3}]}, "row 0: field qas must be a list of obj"),
        ({"paragraphs": [{"context": "c"}]}, "row 0: field qas is missing"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([row]))
    with pytest.raises(ValueError, match=message):
        task(path=str(path)).examples(TOKENIZER, None, None, 0)


def test_what_does_not_fit_or_is_not_there_is_refused() -> None:
    longest = max(len(e.prompt) for e in task().examples(TOKENIZER, None, None, 0)) + 1 + 32
    assert len(task().examples(TOKENIZER, longest, None, 0)) == 9
    with pytest.raises(
        ValueError, match=rf"ctx={longest - 1}: question ./. .* needs {longest} tokens"
    ):
        task().examples(TOKENIZER, longest - 1, None, 0)
    with pytest.raises(ValueError, match=r"task.path is not set"):
        task(path=None).examples(TOKENIZER, None, None, 0)
    with pytest.raises(ValueError, match=r"needs {context}, then {question}"):
        task(prompt="{question} {context}")
