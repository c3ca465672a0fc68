"""LongBench v2 on a file of our own."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from real_world import DATA, CharTokenizer, record

from longspan.tasks.longbench_v2 import LongBenchV2

if TYPE_CHECKING:
    from pathlib import Path

FILE = DATA / "longbench_v2.json"
ROWS = json.loads(FILE.read_text())
TOKENIZER = CharTokenizer()
# SHA-256 of the four prompts as jinja2 renders lm-eval 0.4.13's template, joined by NUL.
HASH = "e3e18a80faa35f88"


def bench(**more: Any) -> LongBenchV2:
    return LongBenchV2(**{"path": str(FILE), **more})


def test_prompts_are_lm_evals() -> None:
    examples = bench().examples(TOKENIZER, None, None, 0)
    prompts = "\0".join(example.prompt for example in examples)
    assert hashlib.sha256(prompts.encode()).hexdigest()[:16] == HASH
    for row, example in zip(ROWS, examples, strict=True):
        assert example.context.endswith(row["context"])
        assert example.references == (row["answer"],)


def test_the_end_of_the_prompt_may_be_another() -> None:
    (example,) = bench(ending="Reply with a letter.").examples(TOKENIZER, None, 1, 0)
    assert example.prompt.endswith(f"(D) {ROWS[0]['choice_D']}\n\nReply with a letter.")


def test_rows_of_the_mirror_have_a_list_of_choices(tmp_path: Path) -> None:
    row = {k: v for k, v in ROWS[0].items() if not k.startswith("choice")}
    row["choices"] = [ROWS[0][f"choice_{letter}"] for letter in "ABCD"]
    (tmp_path / "data.json").write_text(json.dumps([row]))
    (example,) = bench(path=str(tmp_path)).examples(TOKENIZER, None, None, 0)
    assert example.prompt == bench().examples(TOKENIZER, None, 1, 0)[0].prompt


def test_one_length_only() -> None:
    assert len(bench(length="short").examples(TOKENIZER, None, None, 0)) == 2
    assert bench(length="short").label == "longbench_v2_short"
    with pytest.raises(ValueError, match=r"task.length=tiny: must be short, medium, long"):
        bench(length="tiny").examples(TOKENIZER, None, None, 0)


@pytest.mark.parametrize("style", ["auto", "raw", "inst"])
def test_the_question_survives_the_cut(style: Any) -> None:
    whole = bench(prompt_style=style).examples(TOKENIZER, None, 1, 0)[0]
    cut = bench(prompt_style=style).examples(TOKENIZER, 900, 1, 0)[0]
    assert cut.meta["cut"]
    assert not whole.meta["cut"]
    assert cut.question == whole.question
    assert cut.prompt[:20] == whole.prompt[:20]
    assert len(TOKENIZER(cut.prompt).input_ids) + cut.max_new_tokens <= 900


def test_accuracy_by_group() -> None:
    task = bench()
    examples = task.examples(TOKENIZER, None, None, 0)
    texts = [f"The correct answer is ({e.references[0]})." for e in examples[:2]] + ["Hm.", ""]
    metrics = task.aggregate(
        [record(task, e, text) for e, text in zip(examples, texts, strict=True)]
    )
    assert metrics["length/short"] == 100
    assert metrics["length/medium"] == metrics["length/long"] == 0
    assert metrics["difficulty/easy"] == metrics["difficulty/hard"] == 50
    assert metrics["unparsed_rate"] == 50
    assert metrics["domain/Single-Document QA"] == 50


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "E"}, "row 1: field answer must be A, B, C or D, found 'E'"),
        ({"choice_C": None}, "row 1: field choice_C is missing"),
        ({"_id": None}, "row 1: field _id or id is missing"),
        ({"length": ""}, "row 1: field length is missing"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps([ROWS[0], {**ROWS[1], **change}]))
    with pytest.raises(ValueError, match=message):
        bench(path=str(path)).examples(TOKENIZER, None, None, 0)


def test_missing_data_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no such file. Get data.json with"):
        bench(path=str(tmp_path)).examples(TOKENIZER, None, None, 0)
