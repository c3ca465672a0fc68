"""GPQA: the order of its choices, its letter, and that none of its words is kept."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest
from real_world import DATA, CharTokenizer, record

from longspan.tasks.reasoning_gpqa import Gpqa

if TYPE_CHECKING:
    from pathlib import Path

    from longspan.types import Example

TOKENIZER = CharTokenizer()
ROWS = list(csv.DictReader((DATA / "gpqa.csv").open(encoding="utf-8", newline="")))

ORDERS = [[2, 0, 1, 3], [3, 2, 0, 1], [2, 3, 1, 0], [3, 1, 0, 2], [2, 1, 0, 3]]


def gpqa(**more: Any) -> Gpqa:
    return Gpqa(**{"hub": "h/h", "path": str(DATA / "gpqa.csv"), **more})


def choices(example: Example) -> list[str]:
    return [line[4:] for line in example.question.splitlines() if line[:1] == "("]


def test_the_right_letter_stands_before_the_right_choice() -> None:
    for row, example in zip(ROWS, gpqa().examples(TOKENIZER, None, None, 0), strict=True):
        assert example.context.endswith(row["Question"].strip())
        texts = [row["Correct Answer"], *(row[f"Incorrect Answer {i}"].strip() for i in (1, 2, 3))]
        assert choices(example) == [texts[i] for i in example.meta["order"]]
        assert choices(example)["ABCD".index(example.references[0])] == row["Correct Answer"]
        assert gpqa().score(example, f"The answer is {example.references[0]}.") == 100
        assert gpqa().score(example, "Who knows?") == 0


def test_the_order_depends_on_the_seed_and_the_record_only(tmp_path: Path) -> None:
    # Recorded: another order would make old results incomparable.
    orders = {e.id: e.meta["order"] for e in gpqa().examples(TOKENIZER, None, None, 0)}
    assert list(orders.values()) == ORDERS
    backwards = tmp_path / "backwards.csv"
    with backwards.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(reversed(ROWS))
    other = gpqa(path=str(backwards), n_sampling=2, start=1, subset="diamond", prefix="<think>")
    shard = other.examples(CharTokenizer(template=True), 4000, 3, 0)
    assert len(shard) == 3
    assert all(example.meta["order"] == orders[example.id] for example in shard)
    seeded = [e.meta["order"] for e in gpqa().examples(TOKENIZER, None, None, 1)]
    assert seeded != ORDERS


def test_records_keep_no_word_of_a_question_or_an_answer() -> None:
    task = gpqa(n_sampling=1)
    assert task.private
    kept = []
    for row, example in zip(ROWS, task.examples(TOKENIZER, None, None, 0), strict=True):
        text = f"<think>{row['Question']}</think>I read: {row['Question']} So \\boxed{{A}}"
        kept.append(record(task, example, text))
        line = json.dumps(asdict(kept[-1]))
        assert not any(word in line for word in (*row["Question"].split()[1:2], "jars", "owns"))
        assert json.loads(kept[-1].prediction)["answer"] == "A"
        assert len(example.meta["question_sha256"]) == 64
    right = sum(example.references == ("A",) for example in task.examples(TOKENIZER, None, None, 0))
    metrics = task.aggregate(kept)
    assert metrics["avg@1"] == pytest.approx(100 * right / 5)
    assert metrics["unparsed_rate"] == metrics["unfinished_rate"] == 0


def test_stored_answers_still_vote_and_count() -> None:
    task = gpqa(n_sampling=4, thinking=True)
    example = task.examples(TOKENIZER, None, 1, 0)[0]
    right = example.references[0]
    wrong = "ABCD".replace(right, "")[0]
    texts = [f"</think>({right})", f"</think>Answer: {right}", f"</think>({wrong})", f"({right})"]
    metrics = task.aggregate([record(task, example, text, i) for i, text in enumerate(texts)])
    assert metrics["avg@4"] == 50
    assert metrics["maj@4"] == 100
    assert metrics["unfinished_rate"] == metrics["unparsed_rate"] == 25


@pytest.mark.parametrize("answer", [2, "C"])
def test_rows_of_choices(tmp_path: Path, answer: object) -> None:
    path = tmp_path / "rows.json"
    row = {"question": "How many?", "choices": ["1", "2", "3", "4"], "answer": answer}
    path.write_text(json.dumps([row]))
    (example,) = gpqa(path=str(path)).examples(TOKENIZER, None, None, 0)
    assert choices(example)["ABCD".index(example.references[0])] == "3"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"Question": "q", "Correct Answer": "1"}, "row 0: field Incorrect Answer 1 is missing"),
        ({"Correct Answer": "1"}, "row 0: field Question or question is missing"),
        (
            {"question": "q", "choices": ["1"], "answer": 0},
            "row 0: field choices must be a list of",
        ),
        (
            {"question": "q", "choices": list("1234"), "answer": 4},
            "row 0: field answer must be 0 to 3",
        ),
        *(
            (
                {"question": "q", "choices": list("1234"), "answer": answer},
                "row 0: field answer must be 0 to 3",
            )
            for answer in ("BC", "E", True)
        ),
        (
            {"question": "q", "choices": ["1", "2", "3", " "], "answer": 0},
            "row 0: field 'choices' is",
        ),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([row]))
    with pytest.raises(ValueError, match=message):
        gpqa(path=str(path)).examples(TOKENIZER, None, None, 0)


@pytest.mark.parametrize("prompt", ["{question}", "{choices} {question}"])
def test_a_prompt_without_its_places_is_refused(prompt: str) -> None:
    with pytest.raises(ValueError, match=r"must have \{question\} and then \{choices\}"):
        gpqa(prompt=prompt)
