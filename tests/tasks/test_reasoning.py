"""AIME, MATH-500 and GPQA: rows, prompts, scores, shards, privacy."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pytest
from real_world import DATA, CharTokenizer, record

from longspan.tasks.reasoning_gpqa import Gpqa
from longspan.tasks.reasoning_math import MathProblems

if TYPE_CHECKING:
    from pathlib import Path

TOKENIZER = CharTokenizer()
GPQA_ROWS = list(csv.DictReader((DATA / "gpqa.csv").open(encoding="utf-8", newline="")))


def aime(**more: Any) -> MathProblems:
    return MathProblems(
        **{"name": "aime24", "hub": "h/h", "path": str(DATA / "aime24.jsonl"), **more}
    )


def gpqa(**more: Any) -> Gpqa:
    return Gpqa(**{"hub": "h/h", "path": str(DATA / "gpqa.csv"), **more})


def test_aime_rows_become_prompts() -> None:
    examples = aime().examples(TOKENIZER, None, None, 0)
    assert [e.id for e in examples] == ["60", "61", "62", "63"]
    rows = [json.loads(line) for line in (DATA / "aime24.jsonl").read_text().splitlines()]
    for row, example in zip(rows, examples, strict=True):
        assert example.context == row["problem"]
        assert example.question.startswith("\n\n")
        assert r"\boxed{" in example.question
        assert example.references == (row["answer"],)
        assert example.max_new_tokens == 32768


@pytest.mark.parametrize(
    "row",
    [
        {"ID": "2024-I-1", "Problem": "1 + 1?", "Answer": 2},
        {"id": 0, "problem": "1 + 1?", "answer": "002", "url": ""},
        {"question": "1 + 1?", "answer": "2"},
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_the_schemas_of_the_hub(tmp_path: Path, row: dict[str, Any], kind: str) -> None:
    import pandas

    path = tmp_path / f"rows.{kind}"
    frame = pandas.DataFrame([row])
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "parquet":
        frame.to_parquet(path)
    else:
        path.write_text(json.dumps(row) if kind == "jsonl" else json.dumps([row]))
    task = aime(path=str(path))
    (example,) = task.examples(TOKENIZER, None, None, 0)
    assert example.context == "1 + 1?"
    assert task.score(example, r"\boxed{2}") == 100


def test_math500_is_reported_by_level() -> None:
    task = aime(name="math500", path=str(DATA / "math500.jsonl"), n_sampling=1)
    records = []
    for example in task.examples(TOKENIZER, None, None, 0):
        gold = example.references[0]
        records.append(
            record(task, example, rf"\boxed{{{gold}}}" if example.meta["level"] == 1 else "0")
        )
    metrics = task.aggregate(records)
    assert (metrics["level/1"], metrics["level/2"]) == (100, 0)
    assert metrics["avg@1"] == 50
    assert metrics["problems"] == 6


def test_answers_are_summed_up_by_problem() -> None:
    task = aime(n_sampling=2)
    first, second, *_ = task.examples(TOKENIZER, None, None, 0)
    right = rf"\boxed{{{first.references[0]}}}"
    records = [
        record(task, second, "no idea", 1, "length"),
        record(task, second, "<think>I am still at \\boxed{1}", 0, "eos"),
        record(task, first, right, 1),
        record(task, first, "7", 0),
    ]
    metrics = task.aggregate(records)
    assert metrics["avg@2"] == 25
    assert metrics["pass@2"] == 50
    assert metrics["maj@2"] == 0  # a tie: the first sample's
    assert metrics["unfinished_rate"] == 50
    assert metrics["unparsed_rate"] == 50


def test_an_unfinished_thought_says_nothing() -> None:
    task = aime(prefix="<think>\n")
    example = task.examples(TOKENIZER, None, 1, 0)[0]
    right = rf"\boxed{{{example.references[0]}}}"
    assert example.prefix == "<think>\n"
    assert task.score(example, right) == 0
    assert task.score(example, f"...</think>{right}") == 100
    (plain,) = aime().examples(TOKENIZER, None, 1, 0)
    assert aime(thinking=True).score(plain, right) == 0
    assert aime().score(plain, right) == 100


@pytest.mark.parametrize(
    ("opening", "settings", "inside"),
    [
        ("<think>\n", {}, True),
        ("<think>\n", {"prefix": "I am sure.</think>"}, False),
        ("<think>\n", {"prompt_style": "raw"}, False),
        ("<think>\n", {"thinking": False}, False),
        ("<think>\n\n</think>\n\n", {}, False),
        ("<think>\n\n</think>\n\n", {"prefix": "<think>"}, True),
        ("", {"thinking": True}, True),
    ],
)
def test_the_template_may_open_the_thought(
    opening: str, settings: dict[str, Any], inside: bool
) -> None:
    for task, right in ((aime(**settings), r"\boxed{%s}"), (gpqa(**settings), "(%s)")):
        tokenizer = CharTokenizer(template=True, opening=opening)
        (example,) = task.examples(tokenizer, None, 1, 0)
        cut = f"we would get {right % example.references[0]}, but that is not certain"
        assert task.score(example, cut) == (0 if inside else 100)
        assert task.outcome(record(task, example, cut))[1] == inside
        assert task.score(example, f"...</think>{cut}") == 100


def test_shards_are_disjoint_and_complete() -> None:
    whole = aime().examples(TOKENIZER, None, None, 0)
    shards = [
        *aime().examples(TOKENIZER, None, 3, 0),
        *aime(start=3).examples(TOKENIZER, None, 3, 0),
    ]
    assert shards == list(whole)
    with pytest.raises(ValueError, match=r"task.start=4: the data set has 4 problems"):
        aime(start=4).examples(TOKENIZER, None, None, 0)


def test_the_answer_gets_what_the_context_leaves() -> None:
    (example,) = aime(prefix="<think>").examples(CharTokenizer(template=True), 500, 1, 0)
    used = len(example.prompt) + len("<think>") + 8 + example.max_new_tokens
    assert 500 - 8 < used <= 500  # a few are left free where the template joins the prompt
    assert example.meta["answer_room"] == example.max_new_tokens
    with pytest.raises(ValueError, match=r"ctx=50: problem 60 needs \d+ tokens before its answer"):
        aime().examples(TOKENIZER, 50, 1, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pass_k": [9]}, r"task.pass_k = \[9\]: 9 is more than n_sampling=8"),
        ({"prompt": "Solve it."}, r"task.prompt='Solve it.': must have {problem}"),
        ({"n_sampling": 0}, "greater than or equal to 1"),
        ({"n_sampling": 10**20}, "less than or equal to 1000000"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        aime(**settings)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"id": 1, "problem": "x"}',
            r"line 2: field answer is missing \(the row has: id, problem\)",
        ),
        ('{"id": 1, "answer": "2"}', r"line 2: field problem or question is missing"),
        (
            '{"id": 1, "problem": ["x"], "answer": "2"}',
            "line 2: field problem must be text, found list",
        ),
        ('{"id": 60, "problem": "x", "answer": "2"}', "rows.jsonl: two rows have the id 60"),
        ('{"id": 1', "line 2: not valid JSON"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 60, "problem": "1 + 1?", "answer": 2}\n' + line)
    with pytest.raises(ValueError, match=message):
        aime(path=str(path)).examples(TOKENIZER, None, None, 0)


def test_shards_share_a_fingerprint() -> None:
    from types import SimpleNamespace

    from longspan.fingerprint import identity
    from longspan.models.generation import Sampling
    from longspan.request import Request

    model: Any = SimpleNamespace(identity=dict, device=SimpleNamespace(type="cpu"))

    def of(**settings: Any) -> dict[str, Any]:
        return identity(model, None, aime(**settings), Request(), Sampling())  # type: ignore[arg-type]

    assert of(start=2) == of(pass_k=[3]) == of(n_sampling=2) == of()
    assert of(max_new_tokens=2) != of()
