"""Where the data sets of the tasks come from, for get_data.py."""

from __future__ import annotations

from dataclasses import dataclass

HUB = "https://huggingface.co/datasets"


@dataclass(frozen=True)
class Part:
    """One file: from `url`, or the rows of a split of a data set on the Hugging Face hub."""

    file: str
    url: str = ""
    hub: str = ""
    config: str | None = None
    split: str = "train"


@dataclass(frozen=True)
class Source:
    """What a name stands for."""

    parts: tuple[Part, ...]
    use: str
    """The command that reads it; {to} is the folder."""
    page: str
    licence: str
    by_hand: str


SOURCES = {
    "longbench": Source(
        (Part("data.zip", url=f"{HUB}/THUDM/LongBench/resolve/main/data.zip"),),
        "task=longbench task.path={to}/data.zip",
        f"{HUB}/THUDM/LongBench",
        "by data set; see the page",
        "download data.zip (LongBench and LongBench-E, about 110 MB); it need not be unpacked",
    ),
    "longbench_v2": Source(
        (Part("data.json", url=f"{HUB}/THUDM/LongBench-v2/resolve/main/data.json"),),
        "task=longbench_v2 task.path={to}/data.json",
        f"{HUB}/THUDM/LongBench-v2",
        "Apache-2.0",
        "download data.json (about 460 MB)",
    ),
    "pg19": Source(
        (Part("pg19.jsonl", hub="emozilla/pg19-test", split="test"),),
        "task=perplexity task.path={to}/pg19.jsonl",
        f"{HUB}/emozilla/pg19-test",
        "the books are in the public domain",
        "download the test split's .parquet; task.path takes it as it is, or a folder of .txt",
    ),
    "aime24": Source(
        (Part("aime24.jsonl", hub="HuggingFaceH4/aime_2024"),),
        "task=aime24 task.path={to}/aime24.jsonl",
        f"{HUB}/HuggingFaceH4/aime_2024",
        "the problems are the Mathematical Association of America's",
        "write the 30 problems as lines of {id, problem, answer} to aime24.jsonl",
    ),
    "aime25": Source(
        (Part("aime25.jsonl", hub="math-ai/aime25", split="test"),),
        "task=aime25 task.path={to}/aime25.jsonl",
        f"{HUB}/math-ai/aime25",
        "the problems are the Mathematical Association of America's",
        "write the 30 problems as lines of {id, problem, answer} to aime25.jsonl",
    ),
    "math500": Source(
        (Part("math500.jsonl", hub="HuggingFaceH4/MATH-500", split="test"),),
        "task=math500 task.path={to}/math500.jsonl",
        f"{HUB}/HuggingFaceH4/MATH-500",
        "MIT (of MATH)",
        "download test.jsonl and name it math500.jsonl",
    ),
    "gpqa": Source(
        tuple(
            Part(f"gpqa_{name}.jsonl", hub="Idavidrein/gpqa", config=f"gpqa_{name}")
            for name in ("main", "diamond")
        ),
        "task=gpqa_diamond task.path={to}/gpqa_diamond.jsonl",
        f"{HUB}/Idavidrein/gpqa",
        "CC BY 4.0, gated: do not put its questions on line, in plain text or in pictures",
        "accept the terms on the page, then `hf auth login` and run this again, or download "
        "gpqa_main.csv and gpqa_diamond.csv (task.path= takes the .csv)",
    ),
    "infinitebench": Source(
        tuple(
            Part(
                f"{name}.jsonl",
                url=f"{HUB}/xinrongzhang2022/InfiniteBench/resolve/main/{name}.jsonl",
            )
            for name in (
                *("passkey", "kv_retrieval", "number_string", "code_run", "code_debug"),
                *("math_find", "longdialogue_qa_eng", "longbook_qa_eng", "longbook_sum_eng"),
                *("longbook_choice_eng", "longbook_qa_chn"),
            )
        ),
        "task=infinitebench ctx=128k task.path={to}",
        f"{HUB}/xinrongzhang2022/InfiniteBench",
        "by task; see the page",
        "download its .jsonl files (about 3 GB; each task needs only its own)",
    ),
    "squad": Source(
        (
            Part(
                "dev-v2.0.json",
                url="https://rajpurkar.github.io/SQuAD-explorer/dataset/dev-v2.0.json",
            ),
        ),
        "task=ruler_qa_1 task.data={to}/dev-v2.0.json",
        "https://rajpurkar.github.io/SQuAD-explorer",
        "CC BY-SA 4.0",
        "download the development set v2.0",
    ),
    "hotpotqa": Source(
        (
            Part(
                "hotpot_dev_distractor_v1.json",
                # lm-eval's mirror: the authors' own server is gone.
                url=f"{HUB}/namlh2004/hotpotqa/resolve/7e54db4656209750ff487f6fdf8e39a66dba136b/"
                "hotpot_dev_distractor_v1.json",
            ),
        ),
        "task=ruler_qa_2 task.data={to}/hotpot_dev_distractor_v1.json",
        "https://hotpotqa.github.io",
        "CC BY-SA 4.0",
        "download the dev set (distractor)",
    ),
    "essays": Source(
        (Part("PaulGrahamEssays.json", hub="baber/paul_graham_essays"),),
        "task=ruler_niah_single_2 task.haystack=path task.haystack_path={to}/PaulGrahamEssays.json",
        f"{HUB}/baber/paul_graham_essays",
        "the essays are Paul Graham's: for your own use",
        "or run NVIDIA/RULER's download_paulgraham_essay.py, which writes the same file",
    ),
}
