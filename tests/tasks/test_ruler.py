"""RULER as a task: what an example holds, which counts and seeds share examples, labels, errors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, get_args

import pytest
from fake_questions import write_hotpot, write_squad
from stub_tokenizer import SeamTokenizer, WordTokenizer, tokens

from longspan.tasks.base import rendered
from longspan.tasks.lengths import count_tokens
from longspan.tasks.ruler import Ruler
from longspan.tasks.ruler_specs import SPECS, RulerName

if TYPE_CHECKING:
    from pathlib import Path

    from longspan.types import Example

NAMES = get_args(RulerName)
TOKENIZER = WordTokenizer()


def ruler(name: RulerName, folder: Path, **settings: Any) -> Ruler:
    kind = SPECS[name].kind
    if kind in ("squad", "hotpot") and "data" not in settings:
        write = write_squad if kind == "squad" else write_hotpot
        folder.mkdir(exist_ok=True)
        settings["data"] = str(write(folder / f"{kind}.json"))
    return Ruler(name=name, data_dir=str(folder / "cache"), **settings)


def make(task: Ruler, ctx: int = 4096, count: int = 4, seed: int = 0) -> list[Example]:
    return list(task.examples(TOKENIZER, ctx, count, seed))


@pytest.mark.parametrize("name", NAMES)
def test_what_an_example_holds(name: RulerName, tmp_path: Path) -> None:
    task = ruler(name, tmp_path)
    for example in make(task):
        used = tokens(f"{example.prompt} {example.prefix}") + example.max_new_tokens
        assert used <= 4096
        assert used >= 0.8 * 4096
        assert example.meta["fill"] == pytest.approx(used / 4096, abs=1e-4)
        assert example.max_new_tokens == SPECS[name].max_new_tokens
        found = [reference in example.context for reference in example.references]
        assert any(found) if SPECS[name].match == "any" else all(found)
        assert "\n" not in example.question
        assert example.question.endswith(("?", "."))
        assert 5 < tokens(example.question) < 40
        assert example.prefix
        assert example.prefix not in example.question
        assert example.chat
        assert task.score(example, " ".join(example.references)) == 100
        assert task.score(example, "") == 0


class LetterTokenizer(WordTokenizer):
    """One token a letter."""

    fingerprint = "letters"

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> Any:
        return super().__call__(" ".join(text.replace(" ", "_")))


def test_letters_may_be_tokens(tmp_path: Path) -> None:
    """The solved example is then longer than the 500 tokens that lm-eval gives it."""
    task = ruler("vt", tmp_path)
    (example,) = task.examples(LetterTokenizer(), 8192, 1, 0)
    assert 0.8 * 8192 <= len(f"{example.prompt} {example.prefix}") + 30 <= 8192
    with pytest.raises(ValueError, match="ctx=1024: "):
        task.examples(LetterTokenizer(), 1024, 1, 0)


def test_a_prompt_fits_where_it_joins_its_template(tmp_path: Path) -> None:
    tokenizer, free = SeamTokenizer(), []
    for ctx in range(1024, 1060):
        (example,) = ruler("niah_single_1", tmp_path).examples(tokenizer, ctx, 1, 0)
        read = count_tokens(tokenizer, rendered(tokenizer, example.prompt) + example.prefix)
        free.append(ctx - read - example.max_new_tokens)
    assert 0 <= min(free) < 8


@pytest.mark.parametrize("ctx", [1024, 2048])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "qa_2"])
def test_short_contexts_are_filled_too(name: RulerName, ctx: int, tmp_path: Path) -> None:
    for example in make(ruler(name, tmp_path), ctx, count=3):
        used = tokens(f"{example.prompt} {example.prefix}") + example.max_new_tokens
        assert 0.75 * ctx <= used <= ctx


def test_without_a_count_it_is_rulers(tmp_path: Path) -> None:
    task = ruler("niah_multikey_2", tmp_path)
    assert task.default_context_tokens == 4096
    assert len(list(task.examples(TOKENIZER, 1024, None, 0))) == 500


@pytest.mark.parametrize("name", NAMES)
def test_the_first_examples_are_the_same_for_any_count(name: RulerName, tmp_path: Path) -> None:
    few = make(ruler(name, tmp_path / "few"), count=2)
    many = make(ruler(name, tmp_path / "many"), count=6)
    assert few == many[:2]
    assert len({example.prompt for example in many}) == 6


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_gives_other_examples(name: RulerName, tmp_path: Path) -> None:
    task = ruler(name, tmp_path)
    assert make(task, seed=0)[0].prompt != make(task, seed=1)[0].prompt
    assert make(task, seed=1) == make(task, seed=1)


def test_global_random_state_is_left_alone(tmp_path: Path) -> None:
    import random

    import numpy as np

    before = random.getstate(), np.random.get_state()[1].tolist()
    make(ruler("vt", tmp_path))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_every_length_leaves_room_for_prefix_and_answer(tmp_path: Path) -> None:
    """lm-eval does not count a needle task's prefix: some lengths need a second draw."""
    task = ruler("niah_single_1", tmp_path)
    streams = set()
    for ctx in range(2000, 2100, 6):
        for example in make(task, ctx, count=2):
            assert tokens(f"{example.prompt} {example.prefix}") + 128 <= ctx
            streams.add(example.meta["stream"])
    assert streams > {0}


def test_a_redrawn_essay_fills_its_context(tmp_path: Path) -> None:
    task = ruler("niah_single_2", tmp_path)
    made = [make(task, ctx, 1)[0] for ctx in range(4100, 4620, 8)]
    redrawn = [example for example in made if example.meta["stream"]]
    assert redrawn
    assert all(example.meta["fill"] > 0.95 for example in redrawn)


def test_redrawn_examples_do_not_depend_on_the_count(tmp_path: Path) -> None:
    ctx = next(
        ctx
        for ctx in range(2000, 2100, 6)
        if make(ruler("niah_single_1", tmp_path), ctx, 2)[0].meta["stream"]
    )
    few = make(ruler("niah_single_1", tmp_path / "few"), ctx, 1)
    assert few == make(ruler("niah_single_1", tmp_path / "many"), ctx, 5)[:1]


def test_more_new_tokens_make_room(tmp_path: Path) -> None:
    (example,) = make(ruler("vt", tmp_path, max_new_tokens=1000), count=1)
    assert example.max_new_tokens == 1000
    assert tokens(f"{example.prompt} {example.prefix}") + 1000 <= 4096


def test_styles_change_the_wrapping_only(tmp_path: Path) -> None:
    plain, raw, inst = (
        make(ruler("fwe", tmp_path, prompt_style=style), count=1)[0]
        for style in ("auto", "raw", "inst")
    )
    assert (plain.chat, raw.chat, inst.chat) == (True, False, False)
    assert raw.prompt == plain.prompt
    assert inst.context.startswith("[INST] ")
    assert inst.question.endswith(" [/INST]")
    assert tokens(f"{inst.prompt} {inst.prefix}") + 50 <= 4096


def test_the_answers_beginning_can_be_left_out(tmp_path: Path) -> None:
    with_prefix = make(ruler("vt", tmp_path), count=1)[0]
    without = make(ruler("vt", tmp_path, answer_prefix=False), count=1)[0]
    assert without.prefix == ""
    assert without.prompt == with_prefix.prompt


def test_labels_say_what_is_not_the_benchmarks_own(tmp_path: Path) -> None:
    essay = tmp_path / "essay.txt"
    essay.write_text("One sentence. Another one. " * 50)
    assert ruler("niah_single_1", tmp_path).label == "ruler_niah_single_1"
    assert ruler("niah_single_2", tmp_path).label == "ruler_niah_single_2[synthetic]"
    assert ruler("niah_single_2", tmp_path, haystack="hub").label == "ruler_niah_single_2"
    own = ruler("niah_single_2", tmp_path, haystack="path", haystack_path=str(essay))
    assert own.label.startswith("ruler_niah_single_2[essay-")
    assert ruler("qa_1", tmp_path).label.startswith("ruler_qa_1[data-")
    official = write_squad(tmp_path / "dev-v2.0.json")
    assert ruler("qa_1", tmp_path, data=str(official)).label == "ruler_qa_1"


def test_identity_names_versions_and_files(tmp_path: Path) -> None:
    identity = ruler("niah_single_2", tmp_path).identity()
    assert identity["lm_eval"] == "0.4.13"
    assert identity["wonderwords"] == "2.2.0"
    assert identity["ruler_text"] == "2025-01"
    assert (identity["haystack"], identity["splitter"]) == ("synthetic", "untrained")
    assert len(ruler("qa_2", tmp_path).identity()["data_sha256"]) == 64
    json.dumps(identity)


@pytest.mark.parametrize("suffix", ["txt", "json"])
def test_own_essays_are_the_haystack_and_repeat(tmp_path: Path, suffix: str) -> None:
    text = "The well is deep.  Nobody\nknows how deep. " * 40
    path = tmp_path / f"essays.{suffix}"
    path.write_text(text if suffix == "txt" else json.dumps({"text": text}))
    task = ruler("niah_multivalue", tmp_path, haystack="path", haystack_path=str(path))
    (example,) = make(task, count=1)
    assert "The well is deep. Nobody knows how deep." in example.context
    assert example.meta["fill"] > 0.8
    assert len(set(example.references)) == 4
    moved = path.rename(tmp_path / f"elsewhere.{suffix}")
    again = ruler("niah_multivalue", tmp_path, haystack="path", haystack_path=str(moved))
    assert make(again, count=1) == [example]


def test_rows_made_elsewhere_are_used_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "validation.jsonl"
    row = {"index": 7, "input": "a b\n\nQuestion: c?", "outputs": ["d", "e"], "length": 9}
    path.write_text(json.dumps(row | {"answer_prefix": " Answer:"}) + "\n" + json.dumps(row))
    task = ruler("vt", tmp_path, data=str(path))
    first, second = task.examples(TOKENIZER, None, None, 0)
    assert (first.prompt, first.prefix, second.prefix) == (row["input"], "Answer:", "")
    assert (first.question, first.references) == ("Question: c?", ("d", "e"))
    assert first.id != second.id
    assert task.score(first, "it is D") == 50
    assert len(list(task.examples(TOKENIZER, 4096, 1, 0))) == 1
    with pytest.raises(ValueError, match=r"line 1: 5 prompt tokens and 30 new ones .* ctx=34"):
        task.examples(TOKENIZER, 34, None, 0)


@pytest.mark.parametrize("row", [{"outputs": ["a"]}, {"input": "a"}, {"input": "a", "outputs": []}])
def test_incomplete_rows_are_named(tmp_path: Path, row: dict[str, Any]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n" + json.dumps(row))
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 2: field '?(input|outputs)"):
        ruler("vt", tmp_path, data=str(path)).examples(TOKENIZER, None, None, 0)


@pytest.mark.parametrize("name", ["vt", "cwe", "fwe", "niah_single_1", "niah_multiquery", "qa_2"])
def test_a_context_too_short_is_refused(name: RulerName, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ctx=200: "):
        make(ruler(name, tmp_path), ctx=200, count=1)


def test_other_wrong_requests(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ctx=None"):
        ruler("vt", tmp_path).examples(TOKENIZER, None, 1, 0)
    with pytest.raises(ValueError, match="data_dir"):
        Ruler(name="vt", data_dir="")
    with pytest.raises(ValueError, match="seed=-1"):
        make(ruler("vt", tmp_path), seed=-1)
    with pytest.raises(ValueError, match=r"task\.data=None: ruler_qa_1 needs SQuAD"):
        make(ruler("qa_1", tmp_path, data=None))
    assert not list(tmp_path.rglob("ruler_qa_1-*"))  # said before anything is prepared
    with pytest.raises(ValueError, match=r"task\.haystack_path=.*nowhere\.txt: cannot be read"):
        make(ruler("niah_single_2", tmp_path, haystack="path", haystack_path="nowhere.txt"))
    with pytest.raises(
        ValueError, match=r"not read with task\.haystack = 'synthetic'; right would"
    ):
        ruler("niah_single_2", tmp_path, haystack_path="essays.txt")
    with pytest.raises(ValueError, match=r"task\.haystack_path=None"):
        make(ruler("niah_single_2", tmp_path, haystack="path"))


def test_a_questions_file_that_is_used_up_or_wrong(tmp_path: Path) -> None:
    squad = str(write_squad(tmp_path / "squad.json"))
    with pytest.raises(ValueError, match=r"ctx=32768: all 80 documents .* fit"):
        make(ruler("qa_1", tmp_path, data=squad), ctx=32768)
    with pytest.raises(ValueError, match=r"samples=81: .* has 80 answerable"):
        make(ruler("qa_1", tmp_path, data=squad), count=81)
    with pytest.raises(ValueError, match="not in the format of HotpotQA"):
        make(ruler("qa_2", tmp_path, data=squad))


def test_a_question_without_an_answer_is_named_and_any_other_is_asked(tmp_path: Path) -> None:
    path = write_hotpot(tmp_path / "hotpot.json")
    asked = json.loads(path.read_text())
    asked[1]["answer"] = "the moon"  # of which no document speaks: RULER asks it all the same
    asked[2]["answer"] = " "
    path.write_text(json.dumps(asked))
    task = ruler("qa_2", tmp_path, data=str(path))
    assert [example.references for example in make(task, count=2)][1] == ("the moon",)
    with pytest.raises(ValueError, match=r"hotpot\.json, question 2: field 'answer' is \[' '\]"):
        make(task, count=3)
