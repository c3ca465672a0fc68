"""A user's JSON file in every shape, and what is said about one that is wrong."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pytest
from stub_tokenizer import WordTokenizer, tokens

from longspan.tasks.json_file import JsonFile
from longspan.tasks.prompts import split_question

if TYPE_CHECKING:
    from pathlib import Path

    from longspan.types import Example

TOKENIZER = WordTokenizer()
ROW = {"input": "A text.\nWhat is asked?", "outputs": ["yes"]}


def read(path: Path, content: Any, ctx: int | None = None, **settings: Any) -> list[Example]:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    task = JsonFile(path=str(path), **settings)
    return list(task.examples(TOKENIZER, ctx, None, 0))


def test_answers_of_a_csv_file(tmp_path: Path) -> None:
    """A list of texts as JSON is a list; what else looks like one is an answer."""
    cells = {
        '["yes", "no"]': ("yes", "no"), "[1, 2]": ("[1, 2]",), '["a", 1]': ('["a", 1]',),
        "[]": ("[]",), '["yes"': ('["yes"',), "yes, no": ("yes, no",),
    }  # fmt: skip
    with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("input", "outputs"), *((f"Q {c}?", c) for c in cells)])
    examples = list(JsonFile(path=str(tmp_path / "a.csv")).examples(TOKENIZER, None, None, 0))
    assert [tuple(each.references) for each in examples] == list(cells.values())
    assert [each.prompt for each in examples] == [f"Q {cell}?" for cell in cells]


@pytest.mark.parametrize(
    ("name", "content", "count"),
    [
        ("list.json", [ROW, ROW], 2),
        ("one.json", ROW, 1),
        ("spread.json", json.dumps(ROW, indent=4), 1),
        ("lines.jsonl", f"{json.dumps(ROW)}\n\n{json.dumps(ROW)}\n", 2),
        ("one.jsonl", json.dumps(ROW), 1),
        ("lines.json", f"{json.dumps(ROW)}\n{json.dumps(ROW)}", 2),
        ("mark.json", "\ufeff" + json.dumps([ROW]), 1),
        ("held.json", {"version": "1", "data": [ROW, ROW]}, 2),
        ("others.json", ROW | {"others": [{"id": 1}, {"id": 2}]}, 1),
        ("table.csv", 'input,answer\n"A text.\nWhat is asked?",yes\n', 1),
        ("endings.jsonl", json.dumps({**ROW, "x": "a\u2028b\x85c"}, ensure_ascii=False), 1),
    ],
)
def test_shapes_of_a_file(tmp_path: Path, name: str, content: Any, count: int) -> None:
    examples = read(tmp_path / name, content)
    assert len(examples) == count
    assert len({example.id for example in examples}) == count
    assert all(example.prompt == ROW["input"] for example in examples)
    assert examples[0].question == "What is asked?"


@pytest.mark.parametrize(
    ("fields", "references"),
    [
        ({"outputs": "one"}, ("one",)),
        ({"outputs": ["one", "two", "one"]}, ("one", "two", "one")),
        ({"answer": "one"}, ("one",)),
        ({"answers": ["one", 2]}, ("one", "2")),
        ({"output": 7}, ("7",)),
        ({"outputs": None, "answer": "one"}, ("one",)),
    ],
)
def test_spellings_of_the_answers(
    tmp_path: Path, fields: dict[str, Any], references: tuple[str, ...]
) -> None:
    (example,) = read(tmp_path / "a.json", {"input": "Q?", **fields})
    assert example.references == references


def test_context_and_question(tmp_path: Path) -> None:
    rows = [
        {"context": "A text.", "question": "What?", "outputs": "a"},
        {"context": "A text.\n", "input": "What?", "outputs": "a"},
        {"question": "What?", "outputs": "a"},
        {"input": "A text.", "question": "What?", "outputs": "a"},
    ]
    parts = [(each.context, each.question) for each in read(tmp_path / "a.json", rows)]
    contexts = ["A text.\n\n", "A text.\n", "", "A text.\n\n"]
    assert parts == [(context, "What?") for context in contexts]


def test_a_field_of_null_is_left_out(tmp_path: Path) -> None:
    """As for all other fields: a table of rows that differ in what they have fills in null."""
    rows = [
        {"context": None, "question": None, "input": "A text.\nWhat?", "outputs": "a"},
        {"context": "A text.\n", "question": "What?", "input": None, "outputs": "a"},
    ]
    parts = [(each.context, each.question) for each in read(tmp_path / "a.json", rows)]
    assert parts == [("A text.\n", "What?")] * 2
    with pytest.raises(ValueError, match="missing or empty"):
        read(tmp_path / "a.json", {"context": "A text.", "question": None, "outputs": "a"})


def test_a_row_has_the_last_word(tmp_path: Path) -> None:
    own = {"metric": "exact", "max_new_tokens": 5, "prefix": "It is", "chat": False}
    first, second = read(tmp_path / "a.json", [ROW | own, ROW], metric="any", prefix="So")
    assert (first.max_new_tokens, first.prefix, first.chat) == (5, "It is", False)
    assert (second.max_new_tokens, second.prefix, second.chat) == (128, "So", True)
    task = JsonFile(path="a.json")
    assert [task.score(first, text) for text in ("Yes", "yes, sir")] == [100, 0]
    assert [task.score(second, text) for text in ("Yes", "yes, sir")] == [100, 100]


def test_a_row_of_a_table_of_text_has_it_too(tmp_path: Path) -> None:
    """All cells of a CSV file are text, and a gap is an empty one."""
    head, own, gap = "input,outputs,metric,max_new_tokens,prefix,chat", "exact,5,It is,False", ",,,"
    first, second, third = read(
        tmp_path / "a.csv",
        f"{head}\nQ?,yes,{own}\nQ?,yes,{gap}\nQ?,yes,any,7.0,,true\n",
        metric="prefix",
        prefix="So",
    )
    assert (first.meta["metric"], first.max_new_tokens) == ("exact", 5)
    assert (first.prefix, first.chat) == ("It is", False)
    assert (second.meta["metric"], second.max_new_tokens) == ("prefix", 128)
    assert (second.prefix, second.chat) == ("So", True)
    assert (third.max_new_tokens, third.chat) == (7, True)


def test_numbers_of_a_parquet_file_stay_what_they_are(tmp_path: Path) -> None:
    import pandas as pd

    path = tmp_path / "a.parquet"
    answers = [[0.123456789012345, 2.5], [12345678901234567.0], [1e-7]]
    texts, counts = [f"{n}?" for n in range(3)], [5, None, 7]
    pd.DataFrame({"input": texts, "outputs": answers, "max_new_tokens": counts}).to_parquet(path)
    found = JsonFile(path=str(path)).examples(TOKENIZER, None, None, 0)
    right = [("0.123456789012345", "2.5"), ("1.2345678901234568e+16",), ("1e-07",)]
    assert [each.references for each in found] == right
    assert [each.max_new_tokens for each in found] == [5, 128, 7]
    days = pd.to_datetime(["2024-05-01", "2024-05-02", "2024-05-03"])
    pd.DataFrame({"input": texts, "outputs": days.date}).to_parquet(path)
    found = JsonFile(path=str(path)).examples(TOKENIZER, None, None, 0)
    assert found[0].references == ("2024-05-01",)


def test_marks_of_a_template_stay_in_the_text(tmp_path: Path) -> None:
    text = "<|begin_of_text|><|start_header_id|>user<|end_header_id|> What? <|eot_id|> It is"
    (example,) = read(tmp_path / "a.json", {"input": text, "outputs": "a"}, prompt_style="raw")
    assert example.prompt == text
    assert (example.chat, example.prefix) == (False, "")
    (inst,) = read(tmp_path / "a.json", {"input": text, "outputs": "a"}, prompt_style="inst")
    assert inst.prompt == f"[INST] {text} [/INST]"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "", r"a\.json: the file is empty"),
        ("a.json", "[]", r"a\.json: holds no rows"),
        ("a.json", '[{"input": "a",\n "outputs" "b"}]', r"a\.json, line 2: not valid JSON"),
        ("a.jsonl", json.dumps(ROW) + '\n{"input"', r"a\.jsonl, line 2: not valid JSON"),
        ("a.json", '["text"]', r"a\.json, row 0: an object is expected, found str"),
        ("a.json", "3", r"a\.json, row 0: an object is expected, found int"),
        ("a.jsonl", '\n{"outputs": "a"}', r"a\.jsonl, line 2: field 'input' .* is missing"),
        ("a.json", [ROW, {"input": " ", "outputs": "a"}], r"a\.json, row 1: field 'input'"),
        ("a.json", [{"input": ["a"], "outputs": "a"}], r"field 'input' is \['a'\]; .* a text"),
        ("a.json", [{"input": "a"}], r"field 'outputs' .* is missing"),
        ("a.json", [{"input": "a", "outputs": []}], r"field 'outputs' is \[\]"),
        ("a.json", [{"input": "a", "outputs": [""]}], r"field 'outputs' is \[''\]"),
        ("a.json", [{"input": "a", "outputs": [["b"]]}], r"field 'outputs' is \[\['b'\]\]"),
        ("a.json", [{"input": "a", "outputs": True}], r"field 'outputs' is True"),
        ("a.json", '{"input": "a", "outputs": [NaN]}', r"field 'outputs' is \[nan\]"),
        ("a.json", '{"input": "a", "outputs": Infinity}', r"field 'outputs' is inf"),
        ("a.json", [{"input": "a", "outputs": ["b", "\x01"]}], r"field 'outputs' is \['b', "),
        ("a.json", [ROW | {"max_new_tokens": 2.5}], r"'max_new_tokens' is 2.5; .* a count"),
        ("a.json", [ROW | {"metric": "f1"}], r"'metric' is 'f1'; .* all, any, exact, prefix"),
        ("a.json", [ROW | {"max_new_tokens": 0}], r"'max_new_tokens' is 0; .* a count"),
        ("a.json", [ROW | {"max_new_tokens": True}], r"'max_new_tokens' is True"),
        ("a.json", [ROW | {"chat": "no"}], r"'chat' is 'no'; .* true or false"),
        ("a.csv", "input,outputs,max_new_tokens\nQ?,yes,few\n", r"'max_new_tokens' is 'few'"),
        ("a.json", [ROW | {"prefix": 3}], r"'prefix' is 3; .* a text"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r"^task\.path=") as error:
        read(tmp_path / name, content)
    assert error.match(message)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"task\.path=None: json_file needs"):
        JsonFile().examples(TOKENIZER, None, None, 0)
    with pytest.raises(ValueError, match=r"none\.json: cannot be read \(No such file"):
        JsonFile(path=str(tmp_path / "none.json")).examples(TOKENIZER, None, None, 0)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"binary\.json: not UTF-8 text"):
        JsonFile(path=str(tmp_path / "binary.json")).examples(TOKENIZER, None, None, 0)


def test_prompts_longer_than_the_context(tmp_path: Path) -> None:
    long = {"input": "w " * 500 + "\nWhat?", "outputs": "a", "max_new_tokens": 20}
    with pytest.raises(ValueError, match=r"row 0: 521 tokens \(20 of them new\) .* ctx=520"):
        read(tmp_path / "a.json", long, ctx=520)
    (whole,) = read(tmp_path / "a.json", long, ctx=521)
    assert not whole.meta["truncated"]
    (cut,) = read(tmp_path / "a.json", long, ctx=100, truncate="middle", prefix="So it is")
    assert cut.meta["truncated"]
    assert cut.question == "What?"
    assert 90 <= tokens(f"{cut.prompt} {cut.prefix}") + 20 <= 100
    with pytest.raises(
        ValueError, match="row 0: ctx leaves 1 tokens for the context, too few; right"
    ):
        read(tmp_path / "a.json", long, ctx=22, truncate="middle")


def test_both_ends_stay_when_the_middle_goes(tmp_path: Path) -> None:
    text = " ".join(f"word{number}" for number in range(20_000))
    row = {"context": text, "question": "What?", "outputs": "a", "max_new_tokens": 1}
    for ctx in (30, 1_000, 15_000, 19_999):
        (cut,) = read(tmp_path / "a.json", row, ctx=ctx, truncate="middle")
        assert cut.context.startswith("word0 wor")
        assert cut.context.endswith("19999\n\n")
        assert 0.98 * ctx - 16 <= tokens(cut.prompt) + 1 <= ctx


def test_label_and_identity_follow_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    read(path, ROW)
    task = JsonFile(path=str(path))
    before = task.identity()
    assert task.label == "json_file[mine]"
    read(path, [ROW])
    assert task.identity() != before


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("a\nb\nQuestion: c.\nd", "Question: c.\nd"),
        ("Is it?\nQuestion: b?\nAnswer the", "Question: b?\nAnswer the"),
        ("a\nWhat is b? <|eot|>\n<|assistant|> b is", "What is b? <|eot|>\n<|assistant|> b is"),
        ("a\nSay b.", "Say b."),
        ("a\nSay b.\n", "Say b.\n"),
        ("What is b?", "What is b?"),
        ("", ""),
        ("word " * 1000 + "end", " ".join(["word"] * 99) + " end"),
        ("Is it?\n" + "w " * 1500, None),
    ],
)
def test_where_the_question_begins(text: str, question: str | None) -> None:
    context, found = split_question(text)
    assert context + found == text
    if question is None:
        assert 0 < len(found) <= 2_000
    else:
        assert found == question
