"""InfiniteBench on files of our own."""

from __future__ import annotations

import hashlib
import json
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from real_world import DATA, CharTokenizer, record

from longspan.tasks.infinitebench import DATASETS, InfiniteBench

if TYPE_CHECKING:
    from pathlib import Path

FILES = DATA / "infinitebench"
TOKENIZER = CharTokenizer()
# SHA-256 (its first 16 digits) of our files' prompts as lm-eval 0.4.13 makes them.
HASHES = {
    "passkey": "fa11ee0c7ef22bf0",
    "kv_retrieval": "003d50f97dbac667",
    "number_string": "697524d43d70c668",
    "code_run": "a5f767431ac23202",
    "code_debug": "f54027b962585a80",
    "math_find": "a314b7c4b630345b",
    "longdialogue_qa_en": "83f4005d10f10ae1",
    "longbook_qa_en": "1601d7ef1cbdaa1a",
    "longbook_sum_en": "e19b3c62a0e364ec",
    "longbook_choice_en": "2d59731592338f17",
    "longbook_qa_chn": "9ff5898c41776edc",
}
ANSWERS = {
    # (a right answer, a wrong one)
    "passkey": ("It is 71432.", "7143 or 71432"),
    "kv_retrieval": ('"d4"', "d44"),
    "number_string": ("55512", "5551"),
    "code_run": ("It returns 11", "11 or 12"),
    "code_debug": ("B", "A"),
    "math_find": ("9.0", "4"),
    "longdialogue_qa_en": ("Bo", "Ada"),
    "longbook_qa_en": ("printer", "ferryman"),
    "longbook_sum_en": ("The towns keep things.", "Nothing"),
    "longbook_choice_en": ("C", "A"),
    "longbook_qa_chn": ("木匠。", "渔夫"),
}


def bench(dataset: str = "all", **more: Any) -> InfiniteBench:
    return InfiniteBench(**{"dataset": dataset, "path": str(FILES), **more})


@pytest.mark.parametrize("name", DATASETS)
def test_prompts_are_lm_evals(name: str) -> None:
    (example,) = bench(name).examples(TOKENIZER, None, None, 0)
    assert hashlib.sha256(example.prompt.encode()).hexdigest()[:16] == HASHES[name]
    file = next(FILES.glob(f"{name}*.jsonl"))
    assert example.context.endswith(json.loads(file.read_text())["context"])


@pytest.mark.parametrize("name", DATASETS)
def test_scores(name: str) -> None:
    task = bench(name)
    (example,) = task.examples(TOKENIZER, None, None, 0)
    right, wrong = ANSWERS[name]
    assert task.score(example, right) == 100
    assert task.score(example, wrong) == 0


def test_all_are_averaged_and_cut() -> None:
    task = bench()
    examples = task.examples(TOKENIZER, None, 6, 0)
    assert [e.meta["dataset"] for e in examples] == list(DATASETS[:6])
    texts = [ANSWERS[e.meta["dataset"]][e.meta["dataset"] == "passkey"] for e in examples]
    metrics = task.aggregate([record(task, e, t) for e, t in zip(examples, texts, strict=True)])
    assert metrics["dataset/passkey"] == 0
    assert metrics["overall"] == pytest.approx(500 / 6)
    cut = bench("longbook_sum_en").examples(TOKENIZER, 1600, None, 0)[0]
    assert cut.meta["cut"]
    assert len(TOKENIZER(cut.prompt).input_ids) + cut.max_new_tokens <= 1600
    assert task.identity()["data"].keys() == set(DATASETS)


def test_no_line_break_ends_an_answer() -> None:
    assert not any(example.stop for example in bench().examples(TOKENIZER, None, None, 0))


def test_the_hubs_files_are_the_authors(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(name: str, file: str, *, repo_type: str) -> str:
        assert (name, repo_type) == ("xinrongzhang2022/InfiniteBench", "dataset")
        return str(FILES / file)

    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: nullcontext())
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    examples = bench(path=None).examples(TOKENIZER, None, None, 0)
    assert [each.prompt for each in examples] == [
        each.prompt for each in bench().examples(TOKENIZER, None, None, 0)
    ]


def test_one_file_is_one_data_set() -> None:
    file = str(FILES / "passkey.jsonl")
    assert len(bench("passkey", path=file).examples(TOKENIZER, None, None, 0)) == 1
    with pytest.raises(ValueError, match=r"passkey.jsonl: one file for 11 data sets \(passkey, "):
        bench(path=file).examples(TOKENIZER, None, None, 0)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("longdialogue_qa_en", {"answer": [""]}, r"line 1: field 'answer' is \[''\]"),
        ("passkey", {"answer": []}, r"line 1: field 'answer' is \[\]"),
        ("passkey", {"answer": [True]}, r"line 1: field 'answer' is \[True\]"),
        ("code_debug", {"answer": "func_9"}, r"line 1: field answer must be one of the options"),
        ("code_debug", {"answer": "E"}, r"line 1: field answer must be one of the options"),
        ("code_debug", {"options": None}, r"line 1: field options must be four texts, found None"),
        ("longbook_choice_en", {"options": ["x"]}, r"line 1: field options must be four texts"),
    ],
)
def test_rows_with_constant_scores_are_refused(
    tmp_path: Path, name: str, change: dict[str, Any], message: str
) -> None:
    row = json.loads(next(FILES.glob(f"{name}*.jsonl")).read_text())
    (tmp_path / f"{name}.jsonl").write_text(json.dumps(row | change))
    with pytest.raises(ValueError, match=message):
        bench(name, path=str(tmp_path)).examples(TOKENIZER, None, None, 0)


def test_errors_name_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"task.dataset=retr: must be one of all, passkey"):
        bench("retr").examples(TOKENIZER, None, None, 0)
    with pytest.raises(ValueError, match=r"has no longbook_qa_en.jsonl or longbook_qa_eng.jsonl"):
        bench("longbook_qa_en", path=str(tmp_path)).examples(TOKENIZER, None, None, 0)
    path = tmp_path / "code_run.jsonl"
    path.write_text('{"id": 1, "context": "x", "answer": [1]}')
    with pytest.raises(ValueError, match="line 1: field input is missing"):
        bench("code_run", path=str(path)).examples(TOKENIZER, None, None, 0)
