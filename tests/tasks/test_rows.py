"""Rows of a data set: files of every kind, and the hub with and without a network."""

from __future__ import annotations

from socket import socket
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import constants
from real_world import DATA, CharTokenizer

from longspan.tasks.files import file_sha256
from longspan.tasks.reasoning_gpqa import Gpqa
from longspan.tasks.reasoning_math import MathProblems
from longspan.tasks.rows import parse_rows, read_rows

if TYPE_CHECKING:
    from pathlib import Path

TOKENIZER = CharTokenizer()


@pytest.mark.parametrize(
    ("text", "kind", "rows"),
    [
        ('\ufeff{"a": 1}\n\n{"a": 2}\n', "jsonl", [{"a": 1}, {"a": 2}]),
        ('{"a": "x\u2028y"}', "jsonl", [{"a": "x\u2028y"}]),
        ('[{"a": 1}]', "json", [{"a": 1}]),
        ('{"a": 1}\n{"a": 2}\n', "json", [{"a": 1}, {"a": 2}]),
        ('{"input": "x", "a": [{"b": 1}]}', "json", [{"input": "x", "a": [{"b": 1}]}]),
        ('{"version": 1, "data": [{"a": 1}]}', "json", [{"a": 1}]),
        ('{"a": [1, 2]}', "json", [{"a": [1, 2]}]),
        ('{"a": [{"b": 1}], "c": [{"d": 1}]}', "json", [{"a": [{"b": 1}], "c": [{"d": 1}]}]),
        ('a,b\n"x, y","1\n2\u2028"\n', "csv", [{"a": "x, y", "b": "1\n2\u2028"}]),
        ("a,b\n1,2,\n", "csv", [{"a": "1", "b": "2"}]),
        (f"a\n{'x' * 200_000}\n", "csv", [{"a": "x" * 200_000}]),
    ],
)
def test_kinds_of_text(text: str, kind: str, rows: list[dict[str, Any]]) -> None:
    assert [row for _, row in parse_rows(text, kind, "here")] == rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.json", None, r"none.json: cannot be read \(No such file"),
        ("bad.json", b'{"a": ', r"bad.json, line 1: not valid JSON \(Expecting value, column 7\)"),
        ("bad.jsonl", b"{}\n\n[", r"bad.jsonl, line 3: not valid JSON"),
        ("latin.csv", "a\n\xe9".encode("latin-1"), r"latin.csv: not UTF-8 text"),
        ("wide.csv", b"a,b\n1,2\n3,4,5\n", r"wide.csv, row 1: has more cells than there are names"),
        ("empty.csv", b"a,b\n", r"empty.csv: holds no rows"),
        ("numbers.json", b"[1, 2]", r"numbers.json, row 0: an object is expected, found int"),
        ("text.txt", b"x", r"text.txt: must end in .jsonl, .json, .csv or .parquet"),
        ("deep.json", b"[" * 99_999, r"deep.json, line 1: not readable JSON \(nested too deeply\)"),
        ("long.jsonl", b"9" * 9_999, r"line 1: not readable JSON \(a number too long\)"),
        ("half.jsonl", rb'{"a": "\ud83d"}', r"half.jsonl, line 1: '.ud83d' is half a character"),
        ("bad.parquet", b"PAR1xxxx", r"bad.parquet: not readable parquet"),
    ],
)
def test_broken_files_are_named(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_rows(tmp_path / name)


def test_a_changed_file_has_another_hash(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("{}")
    before = file_sha256(path)
    assert file_sha256(path) == before
    path.write_text("{} ")
    assert file_sha256(path) != before


def aime() -> MathProblems:
    return MathProblems(name="aime24", hub="h/h")


def test_missing_data_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"task.path=/nowhere.csv: cannot be read"):
        Gpqa(hub="h/h", path="/nowhere.csv").examples(TOKENIZER, None, None, 0)

    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr("socket.create_connection", offline)
    monkeypatch.setattr("datasets.load_dataset", offline)
    with pytest.raises(ValueError, match=r"\(ConnectionError: no network\). GPQA is gated: accept"):
        Gpqa(hub="h/h").examples(TOKENIZER, None, None, 0)
    with pytest.raises(ValueError, match=r"get_data.py aime24 --to DIR"):
        aime().examples(TOKENIZER, None, None, 0)


@pytest.mark.parametrize("reachable", [True, False])
def test_the_hub_is_asked_only_where_there_is_a_network(
    monkeypatch: pytest.MonkeyPatch, reachable: bool
) -> None:
    def connect(*_: object, **__: object) -> socket:
        if reachable:
            return socket()
        raise OSError("no route")

    seen: list[bool] = []

    def load(*_: object, **__: object) -> list[dict[str, str]]:
        seen.append(constants.HF_HUB_OFFLINE)
        return [{"problem": "1 + 1?", "answer": "2"}]

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("socket.create_connection", connect)
    monkeypatch.setattr("datasets.load_dataset", load)
    assert len(aime().examples(TOKENIZER, None, None, 0)) == 1
    assert seen == [not reachable]
    assert constants.HF_HUB_OFFLINE is False


def test_our_files_are_whole() -> None:
    assert len(read_rows(DATA / "gpqa.csv")) == 5
    assert len(read_rows(DATA / "math500.jsonl")) == 6
