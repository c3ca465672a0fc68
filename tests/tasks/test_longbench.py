"""LongBench: prompts against recorded hashes, truncation, exceptions."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from real_world import DATA, CharTokenizer

from longspan.tasks.longbench import LongBench
from longspan.tasks.longbench_catalogue import CATEGORIES, DATASETS, DATASETS_E, template

FILES = DATA / "longbench"
TOKENIZER = CharTokenizer()

# SHA-256 (its first 16 digits) of the three prompts of each of our files, joined by NUL, as jinja2
# renders lm-eval 0.4.13's templates, with THUDM's whitespace put back in the rendered text.
HASHES = {
    "2wikimqa": "d6ad2db4da5e5c0b",
    "2wikimqa_e": "45693ac215eaa7de",
    "dureader": "70cd3354797a3031",
    "gov_report": "ebefee224690b8d5",
    "gov_report_e": "b15e62917658685b",
    "hotpotqa": "b746edae8e460003",
    "hotpotqa_e": "e363ef2ad00fd248",
    "lcc": "765bd50d5a017e23",
    "lcc_e": "b40de151b450f233",
    "lsht": "2b97eab8453ac32a",
    "multi_news": "471778d85280f06d",
    "multi_news_e": "6ef1c13489347562",
    "multifieldqa_en": "0b09269a621fc478",
    "multifieldqa_en_e": "33947ca36420cd50",
    "multifieldqa_zh": "737fbb524d8e4233",
    "musique": "452e92868d42a48e",
    "narrativeqa": "a58425876a917516",
    "passage_count": "808797089ad96023",
    "passage_count_e": "8286f72bb98a33d8",
    "passage_retrieval_en": "b4d4dca11cd11042",
    "passage_retrieval_en_e": "3ad264c4ff45c10d",
    "passage_retrieval_zh": "5d1f9f07017308a3",
    "qasper": "bfd1f3c03ed901bf",
    "qasper_e": "42147bf6319f01f5",
    "qmsum": "9b8a8feee210b494",
    "repobench-p": "fcb9baa4105d20be",
    "repobench-p_e": "e90e95c5447dae17",
    "samsum": "f3c47db2af98200c",
    "samsum_e": "eec01cc084cc46da",
    "trec": "3e10dd300c215d87",
    "trec_e": "a57071cf69e557c4",
    "triviaqa": "c5f4be1c6ea10250",
    "triviaqa_e": "5b97b1fa1c984d03",
    "vcsum": "60fe7f3ae02aea3a",
}
# THUDM's dataset2maxlen.json.
LENGTHS = {
    **dict.fromkeys(("narrativeqa", "qasper", "dureader", "samsum"), 128),
    **dict.fromkeys(("multifieldqa_en", "multifieldqa_zh", "trec", "lsht", *CATEGORIES["cc"]), 64),
    **dict.fromkeys(("hotpotqa", "2wikimqa", "musique", "triviaqa", *CATEGORIES["st"]), 32),
    **dict.fromkeys(CATEGORIES["sum"], 512),
}


def bench(dataset: str = "all", edition: Any = "v1", **more: Any) -> LongBench:
    return LongBench(dataset=dataset, edition=edition, **{"path": str(FILES), **more})


@pytest.mark.parametrize("name", HASHES)
def test_prompts_are_lm_evals_with_thudms_whitespace(name: str) -> None:
    edition = "e" if name.endswith("_e") else "v1"
    examples = bench(name.removesuffix("_e"), edition).examples(TOKENIZER, None, None, 0)
    prompts = "\0".join(example.prompt for example in examples)
    assert len(examples) == 3
    assert hashlib.sha256(prompts.encode()).hexdigest()[:16] == HASHES[name]


def test_every_data_set_is_there() -> None:
    assert len(DATASETS) == 21
    assert len(DATASETS_E) == 13
    assert set(HASHES) == {*DATASETS, *(f"{name}_e" for name in DATASETS_E)}
    assert {name: template(name).max_new_tokens for name in DATASETS} == LENGTHS


@pytest.mark.parametrize("name", DATASETS)
def test_context_ends_with_the_document(name: str) -> None:
    rows = [json.loads(line) for line in (FILES / f"{name}.jsonl").read_text().splitlines()]
    for row, example in zip(rows, bench(name).examples(TOKENIZER, None, None, 0), strict=True):
        assert example.context.endswith(row["context"])
        assert row["input"] in example.question
        assert row["context"] not in example.question


def test_chat_and_stop_exceptions() -> None:
    examples = {e.meta["dataset"]: e for e in bench().examples(TOKENIZER, None, None, 0)}
    raw = {name for name, example in examples.items() if not example.chat}
    assert raw == {"trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p"}
    assert {name: e.stop for name, e in examples.items() if e.stop} == {"samsum": ("\n",)}
    assert not any(e.chat for e in bench(prompt_style="raw").examples(TOKENIZER, None, None, 0))


def test_places_inside_texts_stay_text() -> None:
    context, question = template("hotpotqa").fill("a {{question}} b {{context}}", "{{context}}?")
    assert context.endswith("a {{question}} b {{context}}")
    assert "Question: {{context}}?\nAnswer:" in question


@pytest.mark.parametrize("ctx", [300, 301, 501])
@pytest.mark.parametrize("name", ["hotpotqa", "trec"])
def test_the_middle_is_cut(name: str, ctx: int) -> None:
    tokenizer = CharTokenizer(template=True)
    for whole, cut in zip(
        bench(name).examples(tokenizer, None, None, 0),
        bench(name).examples(tokenizer, ctx, None, 0),
        strict=True,
    ):
        # Eight tokens of template in the place of the BOS, which the limit counts, and four free.
        overhead = 8 - 1 + 4 if whole.chat else 0
        limit = ctx - whole.max_new_tokens - overhead
        if len(whole.prompt) + 1 <= limit:
            assert cut.prompt == whole.prompt
            continue
        half = limit // 2
        # The BOS is one of the first half, as in THUDM's own code.
        assert cut.prompt == whole.prompt[: half - 1] + whole.prompt[-half:]
        assert cut.meta["cut"]
        assert cut.question == whole.question[-half:]


def test_the_authors_own_limit_needs_no_ctx() -> None:
    cut = bench("qmsum", max_prompt_tokens=400).examples(TOKENIZER, None, 1, 0)[0]
    assert len(cut.prompt) == 399
    assert cut.meta["cut"]


def test_inst_style_keeps_its_ends_when_cut() -> None:
    cut = bench("qmsum", prompt_style="inst").examples(TOKENIZER, 1000, 1, 0)[0]
    assert cut.prompt.startswith("[INST] You are given a meeting")
    assert cut.prompt.endswith("Answer: [/INST]")
    assert len(TOKENIZER(cut.prompt).input_ids) + cut.max_new_tokens <= 1000


def test_a_context_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ctx leaves -?\d+ tokens for the prompt"):
        bench("gov_report").examples(TOKENIZER, 512, None, 0)
