"""What LongBench consists of, and its prompts (Bai et al. 2023, arXiv 2308.14508).

The prompt texts and answer lengths are read from lm-eval's package data, which differs from THUDM's
own in whitespace only, in six data sets; those are repaired here.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

CATEGORIES: Final[dict[str, tuple[str, ...]]] = {
    "sqa": ("narrativeqa", "qasper", "multifieldqa_en", "multifieldqa_zh"),
    "mqa": ("hotpotqa", "2wikimqa", "musique", "dureader"),
    "sum": ("gov_report", "qmsum", "multi_news", "vcsum"),
    "fsl": ("trec", "triviaqa", "samsum", "lsht"),
    "st": ("passage_count", "passage_retrieval_en", "passage_retrieval_zh"),
    "cc": ("lcc", "repobench-p"),
}
"""Single- and multi-document questions, summaries, few-shot learning, synthetic tasks, code."""
DATASETS: Final = tuple(name for names in CATEGORIES.values() for name in names)
_NOT_IN_E: Final = {
    *("narrativeqa", "multifieldqa_zh", "musique", "dureader", "qmsum", "vcsum", "lsht"),
    "passage_retrieval_zh",
}
DATASETS_E: Final = tuple(name for name in DATASETS if name not in _NOT_IN_E)
"""The 13 of LongBench-E, whose documents are spread evenly over the lengths."""

FIRST_LINE: Final = frozenset({"trec", "triviaqa", "samsum", "lsht"})
"""Only the first line of an answer counts."""
NO_CHAT: Final = FIRST_LINE | {"lcc", "repobench-p"}
"""Never put into a chat template."""
STOPS: Final[dict[str, tuple[str, ...]]] = {"samsum": ("\n",)}
METRIC: Final[dict[str, str]] = {
    **dict.fromkeys(DATASETS, "qa_f1"),
    **dict.fromkeys(("gov_report", "qmsum", "multi_news", "samsum"), "rouge"),
    **dict.fromkeys(("dureader", "vcsum"), "rouge_zh"),
    **dict.fromkeys(("trec", "lsht"), "classification"),
    **dict.fromkeys(CATEGORIES["cc"], "code_sim"),
    "multifieldqa_zh": "qa_f1_zh",
    "passage_count": "count",
    "passage_retrieval_en": "retrieval",
    "passage_retrieval_zh": "retrieval_zh",
}

# Where lm-eval's text leaves THUDM's: (its end, the right end).
_FEW_SHOT = ("{{context}}\n{{question}}", "{{context}}\n\n{{question}}")
_REPAIRS: Final[dict[str, tuple[str, str]]] = {
    "triviaqa": _FEW_SHOT,
    "samsum": _FEW_SHOT,
    "passage_count": ("is:", "is: "),
    "passage_retrieval_en": ("is:", "is: "),
    "lcc": ("code:", "code:\n"),
    "repobench-p": ("code:", "code:\n"),
}


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt with places for the document and the question."""

    text: str
    max_new_tokens: int

    def fill(self, document: str, question: str) -> tuple[str, str]:
        """(through the end of the document, the rest); their concatenation is the prompt."""
        before, after = self.text.split("{{context}}")
        # One pass, so that a place written inside a document stays text.
        return (
            before.replace("{{question}}", question) + document,
            after.replace("{{question}}", question),
        )


def category(dataset: str) -> str:
    """The category of a data set."""
    return next(name for name, members in CATEGORIES.items() if dataset in members)


def resolve(dataset: str, extended: bool) -> tuple[str, ...]:
    """The data sets that a name stands for: one, a category, or "all"; of LongBench-E if
    `extended`. ValueError for another name.
    """
    known = DATASETS_E if extended else DATASETS
    chosen = DATASETS if dataset == "all" else CATEGORIES.get(dataset, (dataset,))
    members = tuple(name for name in chosen if name in known)
    if not members:
        right = ", ".join(("all", *CATEGORIES, *known))
        raise ValueError(f"task.dataset={dataset}: must be one of {right}")
    return members


@cache
def template(dataset: str) -> Template:
    """The prompt of a data set with THUDM's whitespace. LongBench-E has the same."""
    data = package_yaml("longbench", f"{dataset}.yaml")
    text: str = data["doc_to_text"]
    if dataset in _REPAIRS:
        wrong, right = _REPAIRS[dataset]
        if not text.endswith(wrong):
            raise ValueError(f"lm-eval's prompt of {dataset} is not the one of 0.4.13: {text!r}")
        text = text.removesuffix(wrong) + right
    if text.count("{{context}}") != 1 or re.findall(r"\{\{(?!context|question)|\{%", text):
        raise ValueError(f"lm-eval's prompt of {dataset} has unknown places: {text!r}")
    return Template(text, int(data["generation_kwargs"]["max_gen_toks"]))


def package_yaml(folder: str, name: str) -> dict[str, Any]:
    """A YAML file of lm-eval's tasks, read without importing lm-eval; `!function` stays a string.

    ValueError where lm-eval is not installed or has no such file.
    """
    import yaml

    spec = importlib.util.find_spec("lm_eval")
    if spec is None or spec.origin is None:
        raise ValueError("the prompts come with lm-eval: pip install 'longspan[eval]'")
    path = Path(spec.origin).parent / "tasks" / folder / name
    if not path.is_file():
        raise ValueError(f"lm-eval has no {folder}/{name}: version 0.4.13 is right")

    class Loader(yaml.SafeLoader):
        """Knows lm-eval's one tag."""

    Loader.add_constructor("!function", lambda _, node: node.value)
    data: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader)  # a SafeLoader
    return data
