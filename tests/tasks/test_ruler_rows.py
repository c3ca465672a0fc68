"""RULER rows made elsewhere: NVIDIA's format and kvpress' columns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from stub_tokenizer import WordTokenizer

from longspan.tasks.ruler import Ruler

if TYPE_CHECKING:
    from pathlib import Path

    from longspan.tasks.ruler_specs import RulerName
    from longspan.types import Example

TOKENIZER = WordTokenizer()
ROW = {"input": "a b\n\nQuestion: c?", "outputs": ["d", "e"]}
COLUMNS = {
    "context": "The number is 417. Rain.\n",
    "question": "Which number\nis it?",
    "answer_prefix": " It is",
    "answer": ["417"],
    "max_new_tokens": 128,
}


def read(name: RulerName, path: Path, *rows: dict[str, Any]) -> list[Example]:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return list(Ruler(name=name, data=str(path)).examples(TOKENIZER, None, None, 0))


def test_columns_of_kvpress_are_read(tmp_path: Path) -> None:
    rows = [COLUMNS | {"task": task} for task in ("vt", "niah_single_1", "cwe", "niah_single_1")]
    first, second = read("niah_single_1", tmp_path / "rows.jsonl", *rows)
    assert (first.context, first.question) == (COLUMNS["context"], COLUMNS["question"])
    assert (first.prefix, first.references) == ("It is", ("417",))
    assert first.meta["depth"] == pytest.approx(14 / 44, abs=1e-4)
    assert first.id != second.id
    with pytest.raises(ValueError, match=r"rows\.jsonl: all rows are of other tasks than fwe"):
        read("fwe", tmp_path / "rows.jsonl", *rows)
    assert len(read("fwe", tmp_path / "rows.jsonl", COLUMNS)) == 1


@pytest.mark.parametrize("name", ["niah_single_1", "qa_1"])
def test_columns_of_kvpress_are_read_from_parquet(tmp_path: Path, name: RulerName) -> None:
    import pandas as pd

    path = tmp_path / "test.parquet"
    pd.DataFrame([COLUMNS | {"task": name}]).to_parquet(path)
    (example,) = Ruler(name=name, data=str(path)).examples(TOKENIZER, None, None, 0)
    assert example.references == ("417",)


def test_a_prefix_of_null_is_none(tmp_path: Path) -> None:
    row = ROW | {"answer_prefix": None}
    first, second = read("vt", tmp_path / "rows.jsonl", row, row | {"gen_prefix": "Answer: "})
    assert (first.prefix, second.prefix) == ("", "Answer:")


def test_a_needle_that_is_spelt_otherwise_has_no_depth(tmp_path: Path) -> None:
    row = {"input": "The number is 4 1 7. What is it?", "outputs": ["417"]}
    (example,) = read("niah_single_1", tmp_path / "rows.jsonl", row)
    assert "depth" not in example.meta


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outputs": [""]}, r"line 1: field 'outputs' is \[''\]; .* none of them blank"),
        ({"outputs": [None]}, r"line 1: field 'outputs' is \[None\]"),
        ({"outputs": ["a", " \n"]}, r"line 1: field 'outputs' is \['a', ' .n'\]"),
        ({"outputs": []}, r"line 1: field 'outputs' is \[\]"),
        ({"outputs": None}, r"line 1: field outputs or answer is missing"),
        ({"input": None}, r"line 1: field input is missing"),
        ({"answer_prefix": 3}, r"line 1: field answer_prefix must be text, found 3"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read("vt", tmp_path / "rows.jsonl", ROW | change)
