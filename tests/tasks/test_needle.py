"""The needle grid: every cell at its length and depth."""

from __future__ import annotations

import re
from typing import Any

import pytest
from stub_tokenizer import WordTokenizer, tokens

from longspan.build import checked
from longspan.tasks.needle import Needle
from longspan.types import Record

TOKENIZER = WordTokenizer(bos=True)


def record(length: int, depth: float, score: float) -> Record:
    meta = {"length": length, "depth": depth}
    return Record("0", 0, "", ("1",), score, 10, 1, "eos", 0, {}, meta)


@pytest.mark.parametrize("ctx", [512, 1000, 4096, 30_000])
def test_every_cell_is_filled(ctx: int) -> None:
    task = Needle(lengths=4)
    examples = list(task.examples(TOKENIZER, ctx, None, 0))
    assert len(examples) == 20
    cells = {(example.meta["length"], example.meta["depth"]) for example in examples}
    assert len(cells) == 20
    for example in examples:
        length, depth = example.meta["length"], example.meta["depth"]
        used = 1 + tokens(f"{example.prompt} {example.prefix}") + example.max_new_tokens
        assert used <= length
        assert used >= min(0.97 * length, length - 40)
        assert example.prompt.count(example.references[0]) == 1
        (key,) = (word for word in example.prefix.split() if "-" in word)
        assert key in example.question
        before, _, behind = example.context.partition(f"{key} is: {example.references[0]}.")
        told = before.partition("\n")[2]
        place = len(told) / len(told + behind)
        assert abs(100 * place - depth) < 5 + 100 * 30 / length


def test_cells_of_one_length_differ_in_the_needles_place_only() -> None:
    first, last = Needle(depths=(0, 100), lengths=1).examples(TOKENIZER, 600, None, 0)

    def hay(example: Any) -> str:
        (needle,) = re.findall(rf"One [^.]* {example.references[0]}\.", example.context)
        return " ".join(example.context.replace(needle, " ").split())

    assert hay(first) == hay(last)


def test_counts_and_seeds() -> None:
    task = Needle()
    many = list(task.examples(TOKENIZER, 600, 25, 0))
    assert list(task.examples(TOKENIZER, 600, 7, 0)) == many[:7]
    assert len({example.prompt for example in many}) == 25
    assert len({example.id for example in many}) == 25
    assert task.examples(TOKENIZER, 600, 1, 1)[0].prompt != many[0].prompt


def test_scores_by_cell_length_and_depth() -> None:
    records = [record(512, 0, 100), record(512, 0, 0), record(512, 50, 0), record(1024, 50, 100)]
    assert Needle().aggregate(records) == {
        "512/0": 50,
        "512/50": 0,
        "1024/50": 100,
        "length/512": pytest.approx(100 / 3),
        "length/1024": 100,
        "depth/0": 50,
        "depth/50": 50,
    }


def test_score_and_styles() -> None:
    (example,) = Needle(prompt_style="inst").examples(TOKENIZER, 600, 1, 0)
    assert example.context.startswith("[INST] ")
    assert example.question.endswith("? [/INST]")
    assert not example.chat
    assert Needle().score(example, f"It is {example.references[0]}!") == 100
    assert Needle().score(example, "12") == 0


@pytest.mark.parametrize(
    ("settings", "ctx", "message"),
    [
        ({"lengths": (512, 4096)}, 1024, r"task\.lengths=\(512, 4096\): .* ctx=1024"),
        ({"lengths": ()}, 1024, "no cell"),
        ({"lengths": 10**20}, 1024, "less than or equal to 1000000"),
        ({"depths": ()}, 1024, "no cell"),
        ({"depths": (0.0, 101.0)}, 1024, r"task\.depths=.* from 0 to 100"),
        ({"lengths": (60,)}, None, "too few for a sentence"),
        ({}, None, "ctx=None"),
    ],
)
def test_wrong_grids(settings: dict[str, Any], ctx: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Needle(**settings).examples(TOKENIZER, ctx, None, 0)


def test_a_setting_of_several_kinds_is_named_by_its_name_alone() -> None:
    for wrong in (10**20, "x"):
        with pytest.raises(ValueError, match=rf"^task\.lengths = '?{wrong}'?: input should be "):
            checked(Needle, {"lengths": wrong}, "task")
    with pytest.raises(ValueError, match=r"^task\.depths\.1 = 'deep': "):
        checked(Needle, {"depths": (0, "deep")}, "task")
