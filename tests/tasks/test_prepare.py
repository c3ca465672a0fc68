"""Preparing in a child process, for real tokenizers, once: the cache, its damage, its sharing."""

from __future__ import annotations

import dataclasses
import errno
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from stub_tokenizer import WordTokenizer

from longspan.errors import explain
from longspan.tasks import cache, ruler_generate
from longspan.tasks.cache import RowCache
from longspan.tasks.lengths import count_tokens, style_tokens
from longspan.tasks.prepare import _child_rows, announcer, prepared_rows
from longspan.tasks.ruler import Ruler
from longspan.tasks.tokenizer_files import child_counter, fingerprint, hand_over

if TYPE_CHECKING:
    from longspan.types import Example

TEMPLATE = (
    "{% for message in messages %}system prompt here user {{ message['content'] }} end "
    "{% endfor %}{% if add_generation_prompt %}assistant says {% endif %}"
)


def fast_tokenizer(*words: str, template: str | None = None) -> Any:
    """A Hugging Face tokenizer that counts words and puts <s> first."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(("<s>", "<unk>", "<pad>", *words))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", unk_token="<unk>", pad_token="<pad>"
    )
    fast.chat_template = template
    return fast


def cached(folder: Path, name: str = "niah_single_1", **settings: Any) -> Ruler:
    return Ruler(name=name, data_dir=str(folder), **settings)  # type: ignore[arg-type]


def make(task: Ruler, count: int = 3) -> list[Example]:
    return list(task.examples(WordTokenizer(), 2048, count, 0))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows were asked of the generator, call by call."""
    calls: list[int] = []
    generate = ruler_generate.generate

    def counted(job: Any, *others: Any) -> Any:
        calls.append(job.count)
        return generate(job, *others)

    monkeypatch.setattr(ruler_generate, "generate", counted)
    return calls


def test_the_child_gives_what_this_process_would(tmp_path: Path) -> None:
    tokenizer = fast_tokenizer("the", "grass")
    task = cached(tmp_path / "child")
    child = task.examples(tokenizer, 2048, 3, 0)
    # The stub has no BOS: one token more is one token of context less.
    here = cached(tmp_path / "here").examples(WordTokenizer(bos=True), 2048, 3, 0)
    assert list(child) == list(here)


def test_errors_of_the_child_are_the_parents(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ctx=256: ruler_vt needs about"):
        cached(tmp_path, "vt").examples(fast_tokenizer(), 256, 3, 0)
    assert not list(tmp_path.rglob("rows.jsonl"))


def test_progress_ends_with_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[int, int]] = []
    job = cached(tmp_path)._job(2048, 5, 0, 0)
    prepared_rows(job, WordTokenizer(), str(tmp_path), {}, lambda *numbers: seen.append(numbers))
    assert seen == [(0, 5), (1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    prepared_rows(job, WordTokenizer(), str(tmp_path), {}, lambda *numbers: seen.append(numbers))
    assert len(seen) == 6
    make(cached(tmp_path / "other"))
    assert "preparing ruler_niah_single_1: 3 samples" in capsys.readouterr().err


def test_what_is_said_meanwhile(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    say = announcer("it")
    for done in range(7):
        say(done, 6)
        now += 4
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["preparing it: 6 samples", "preparing it: 3/6 samples, 12 s"]


def test_a_stored_sample_is_not_made_again(tmp_path: Path, made: list[int]) -> None:
    first = make(cached(tmp_path), 4)
    assert make(cached(tmp_path), 4) == first
    assert make(cached(tmp_path), 2) == first[:2]
    assert made == [4]
    assert make(cached(tmp_path), 6)[:4] == first
    assert made == [4, 6]


def test_whatever_changes_the_rows_has_its_own_file(tmp_path: Path, made: list[int]) -> None:
    words = WordTokenizer()
    other = WordTokenizer()
    other.fingerprint = "others"
    cached(tmp_path).examples(words, 2048, 1, 0)
    cached(tmp_path).examples(words, 2048, 1, 1)
    cached(tmp_path).examples(words, 4096, 1, 0)
    cached(tmp_path).examples(other, 2048, 1, 0)
    cached(tmp_path, max_new_tokens=99).examples(words, 2048, 1, 0)
    cached(tmp_path, "niah_multikey_2").examples(words, 2048, 1, 0)
    cached(tmp_path, "niah_single_2").examples(words, 2048, 1, 0)
    assert made == [1] * 7
    cached(tmp_path, answer_prefix=False).examples(words, 2048, 1, 0)
    cached(tmp_path, prompt_style="raw").examples(words, 2048, 1, 0)
    assert made == [1] * 7


@pytest.mark.parametrize("damage", ["letter", "short", "manifest", "no manifest", "no rows"])
def test_damaged_files_are_made_again(tmp_path: Path, made: list[int], damage: str) -> None:
    first = make(cached(tmp_path))
    (rows,) = tmp_path.rglob("rows.jsonl")
    (manifest,) = tmp_path.rglob("manifest.json")
    text = rows.read_text()
    if damage == "letter":
        rows.write_text(text.replace("grass", "gross", 1))
    if damage == "short":
        rows.write_text(text[: len(text) // 2])
    if damage == "manifest":
        manifest.write_text("{")
    if damage == "no manifest":
        manifest.unlink()
    if damage == "no rows":
        rows.unlink()
    assert make(cached(tmp_path)) == first
    assert made == [3, 3]
    assert make(cached(tmp_path)) == first
    assert made == [3, 3]


def test_nothing_half_written_is_left(tmp_path: Path) -> None:
    make(cached(tmp_path))
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {"rows.jsonl", "manifest.json", "lock"}


def test_of_several_that_want_the_same_one_works(tmp_path: Path) -> None:
    calls: list[int] = []
    found: list[Any] = []

    def slow(count: int) -> list[dict[str, Any]]:
        calls.append(count)
        time.sleep(0.2)
        return [{"n": number} for number in range(count)]

    def want() -> None:
        found.append(RowCache.at(str(tmp_path), "rows", {"a": 1}).rows(3, slow))

    threads = [threading.Thread(target=want) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [3]
    assert found == [[{"n": 0}, {"n": 1}, {"n": 2}]] * 5


def test_a_failed_making_leaves_the_cache_usable(tmp_path: Path) -> None:
    cache = RowCache.at(str(tmp_path), "rows", {"a": 1})

    def fail(_count: int) -> list[dict[str, Any]]:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cache.rows(1, fail)
    assert cache.rows(1, lambda count: [{"ok": True}] * count) == [{"ok": True}]


def test_a_full_disk_is_named_and_leaves_the_cache_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cache.os, "fsync", full)
        with pytest.raises(OSError, match="No space") as caught:
            make(cached(tmp_path))
    line, code = explain(caught.value)
    assert code == 1
    assert re.match(rf"{tmp_path}/ruler_niah\S+/rows.jsonl: the disk is full; ", line), line
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"lock"}
    assert make(cached(tmp_path)) == make(cached(tmp_path / "other"))


def test_the_last_words_of_a_broken_child_are_told() -> None:
    with pytest.raises(RuntimeError, match=r"ended with status 1: .*EOF while parsing an object"):
        _child_rows({"job": {}, "tokenizer": "{"}, lambda _done: None)


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    """Also where it is killed, when nobody tells the child; what it is asked for takes minutes."""
    job = dataclasses.asdict(cached(tmp_path)._job(131072, 5000, 0, 0))
    request = json.dumps({"job": job, "tokenizer": hand_over(fast_tokenizer())}) + "\n"
    done = subprocess.run(
        [sys.executable, "-m", "longspan.tasks.prepare"],
        input=request, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_a_hit_imports_neither_lm_eval_nor_nltk(tmp_path: Path) -> None:
    make(cached(tmp_path, "niah_multikey_1"))
    code = f"""
import json, sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from stub_tokenizer import WordTokenizer
from longspan.tasks.ruler import Ruler
task = Ruler(name="niah_multikey_1", data_dir={str(tmp_path)!r})
started = time.perf_counter()
examples = task.examples(WordTokenizer(), 2048, 3, 0)
seconds = time.perf_counter() - started
heavy = [name for name in ("lm_eval", "nltk", "transformers", "datasets") if name in sys.modules]
print(json.dumps([len(examples), heavy, seconds]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, heavy, seconds = json.loads(done.stdout)
    assert (count, heavy) == (3, [])
    assert seconds < 1  # 0.02 s on an idle machine; the bound only catches making them anew


def test_a_chat_template_has_its_room(tmp_path: Path) -> None:
    tokenizer = fast_tokenizer(template=TEMPLATE)
    task = cached(tmp_path)
    assert style_tokens(tokenizer, "auto") == 7
    assert style_tokens(tokenizer, "raw") == 1
    assert style_tokens(tokenizer, "inst") == 3
    for example in task.examples(tokenizer, 2048, 2, 0):
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": example.prompt}],
            tokenize=False,
            add_generation_prompt=True,
        )
        whole = count_tokens(tokenizer, rendered + example.prefix)
        assert whole == example.meta["tokens"]
        assert whole + example.max_new_tokens <= 2048


def test_a_tokenizer_is_known_by_what_it_does() -> None:
    tokenizer = fast_tokenizer("a", "b")
    before = fingerprint(tokenizer)
    tokenizer(["a b", "a"], padding=True, truncation=True, max_length=2)
    tokenizer.chat_template = "other"
    assert fingerprint(tokenizer) == before == fingerprint(fast_tokenizer("a", "b"))
    assert fingerprint(fast_tokenizer("a", "c")) != before
    handed = hand_over(tokenizer)
    assert handed is not None
    assert child_counter(handed)("a b " * 50) == 100
    assert hand_over(WordTokenizer()) is None
