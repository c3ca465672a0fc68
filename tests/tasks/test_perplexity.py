"""Windows of long texts: their sizes, their order, and the files that they come from."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_world import CharTokenizer
from stub_tokenizer import WordTokenizer, tokens

from longspan.tasks.haystack import synthetic_words
from longspan.tasks.lengths import leading
from longspan.tasks.perplexity import Perplexity
from longspan.types import Record

if TYPE_CHECKING:
    from pathlib import Path

    from longspan.types import Example

TEXTS = [" ".join(synthetic_words(n, 9_000)) for n in range(3)]
WORDS = WordTokenizer(bos=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, text in enumerate(TEXTS):
        (tmp_path / f"book {number}.txt").write_text(text, encoding="utf-8")
    (tmp_path / "notes.md").write_text("not a book")
    return tmp_path


def windows(path: Any, ctx: int = 1500, count: int | None = 7, seed: int = 0) -> list[Example]:
    task = Perplexity(path=str(path), scored_tokens=100)
    return list(task.examples(WORDS, ctx, count, seed))


def test_windows_fill_the_context_and_do_not_overlap(folder: Path) -> None:
    every = windows(folder, count=None)
    assert len(every) == 3 * 5  # of 9000 words, a beginning of up to one window left out
    ends: dict[str, int] = {}
    for example in every:
        assert example.forced
        assert not example.chat
        assert example.question == ""
        further = example.references[0]
        assert 1350 < tokens(example.context) <= 1500 - 100 - 1
        assert tokens(further) >= example.max_new_tokens == 100
        name, at = example.meta["text"], example.meta["first_character"]
        text = TEXTS[int(name[-1])]
        assert text[at:].startswith(example.context + further)
        assert further[0] == " "
        assert text[at - 1 : at] in ("", " ")
        assert at >= ends.get(name, 0)
        ends[name] = at + len(example.context + further)
    assert len({example.id for example in every}) == len(every)


def test_texts_take_turns_and_the_seed_chooses(folder: Path) -> None:
    names = [example.meta["text"] for example in windows(folder, count=6)]
    assert len(set(names[:3])) == 3
    assert names[3:] == names[:3]
    assert windows(folder) == windows(folder)
    assert windows(folder, count=3) == windows(folder)[:3]
    assert [e.id for e in windows(folder)] != [e.id for e in windows(folder, seed=1)]


def test_a_text_of_hardly_a_window_is_used_from_its_beginning(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text(" ".join(synthetic_words(1, 1_600)))
    (example,) = windows(tmp_path / "short.txt")
    assert example.meta["first_character"] == 0


@pytest.mark.parametrize("name", ["README.md", "story", "book.TXT"])
def test_what_holds_no_rows_is_a_text(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(TEXTS[0], encoding="utf-8")
    (tmp_path / "same.txt").write_text(TEXTS[0], encoding="utf-8")
    contexts = [example.context for example in windows(tmp_path / name)]
    assert contexts
    assert contexts == [example.context for example in windows(tmp_path / "same.txt")]


def test_rows_of_every_kind_are_read(tmp_path: Path) -> None:
    rows = [{"id": n, "story": text} for n, text in enumerate(TEXTS)]
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "a.json").write_text(json.dumps(rows))
    pd.DataFrame(rows).to_csv(tmp_path / "a.csv", index=False)
    pd.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    found = []
    for kind in ("jsonl", "json", "csv", "parquet"):
        task = Perplexity(path=str(tmp_path / f"a.{kind}"), text_field="story", scored_tokens=100)
        assert task.label == "perplexity[a]"
        found.append(task.examples(WORDS, 1500, 4, 0))
    assert all(each == found[0] for each in found)
    lost = replace(task, text_field="text")
    with pytest.raises(ValueError, match=r"a\.parquet, row 0.*text"):
        lost.examples(WORDS, 1500, 4, 0)


@pytest.mark.parametrize(
    ("path", "ctx", "scored", "says"),
    [
        (".", 50_000, 100, r"no text has 50000 tokens \(the longest, book \d, has \d+ characters"),
        (".", 100, 100, "task.scored_tokens=100: leaves no context of ctx=100"),
        (".", None, 100, "ctx=None: perplexity needs one"),
        ("none.txt", 1500, 100, "task.path=.*none.txt: cannot be read"),
        ("none.jsonl", 1500, 100, "task.path=.*none.jsonl: cannot be read"),
        ("bytes.zip", 1500, 100, r"task.path=.*bytes\.zip: not UTF-8 text"),
        ("empty", 1500, 100, r"the folder holds no \.txt file"),
    ],
)
def test_what_cannot_be_done_is_said(
    folder: Path, path: str, ctx: int | None, scored: int, says: str
) -> None:
    (folder / "empty").mkdir()
    (folder / "bytes.zip").write_bytes(b"PK\x03\x04\xff\xfe")
    task = Perplexity(path=str(folder / path), scored_tokens=scored)
    with pytest.raises(ValueError, match=says):
        task.examples(WORDS, ctx, 2, 0)


def test_what_identifies_the_data_is_every_text(folder: Path) -> None:
    task = Perplexity(path=str(folder))
    before = task.identity()
    (folder / "book 2.txt").write_text("another")
    assert task.identity() != before
    assert Perplexity().label == "perplexity[pg19]"


def test_perplexity_is_over_all_tokens() -> None:
    def record(nats: float, size: int, right: int) -> Record:
        meta = {"nats": nats * size, "right_tokens": right, "scored_bytes": 4 * size}
        return Record("x", 0, "", ("",), 0.0, 10, size, "length", 0, {}, meta)

    found = Perplexity().aggregate([record(1.0, 10, 5), record(2.0, 30, 0)])
    assert found["perplexity"] == pytest.approx(math.exp(1.75))
    assert found["bits_per_byte"] == pytest.approx(1.75 / math.log(2) / 4)
    assert found["accuracy"] == pytest.approx(12.5)
    assert found["perplexity_low"] < found["perplexity"] < found["perplexity_high"]
    assert "perplexity_low" not in Perplexity().aggregate([record(1.0, 10, 5)])


pieces = st.lists(st.text("ab é漢", min_size=0, max_size=9), max_size=200).map(" \n".join)


@given(pieces, st.integers(1, 400))
def test_a_beginning_is_as_long_as_may_be(text: str, limit: int) -> None:
    for tokenizer in (CharTokenizer(bos=False), WordTokenizer()):
        found = leading(tokenizer, text, limit)
        count = len(tokenizer(found).input_ids)
        assert text.startswith(found)
        assert count <= limit
        if found != text:
            rest = text[len(found) :]
            assert rest[0].isspace() or not re.search(r"\S\s", text[: len(found) + 1])
            word = len(tokenizer(rest[: len(rest) - len(rest.lstrip())]).input_ids)
            word += len(tokenizer((rest.split() or [""])[0]).input_ids)
            assert count + word >= limit - limit // 100 - 4
