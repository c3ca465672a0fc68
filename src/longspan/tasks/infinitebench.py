"""InfiniteBench: eleven tasks beyond 100k tokens (Zhang et al. 2024, arXiv 2402.13718).

Prompts and answer lengths are lm-eval's, which follow the authors' GPT-4 templates; longdialogue_qa
and longbook_qa of English are named _en here as there. As the authors do, prompts longer than the
context lose their middle, and no line break ends an answer.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from longspan.options import Count, settings
from longspan.tasks.averages import macro_average, with_interval
from longspan.tasks.base import Task
from longspan.tasks.files import file_sha256
from longspan.tasks.groups import check_file_of_group
from longspan.tasks.hub import hub_file
from longspan.tasks.infinitebench_scores import (
    CHOICES,
    check_scorable,
    infinitebench_score,
    utility,
)
from longspan.tasks.longbench_catalogue import package_yaml
from longspan.tasks.prompts import PromptStyle, styled
from longspan.tasks.references import references
from longspan.tasks.rows import field, read_rows, unique
from longspan.tasks.truncation import fit_middle, prompt_limit, smaller
from longspan.types import Example

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from longspan.tasks.base import Tokenizer
    from longspan.tasks.rows import Placed, Row
    from longspan.types import Record

DATASETS: Final = (
    *("passkey", "kv_retrieval", "number_string", "code_run", "code_debug", "math_find"),
    *("longdialogue_qa_en", "longbook_qa_en", "longbook_sum_en", "longbook_choice_en"),
    "longbook_qa_chn",
)
_ASK: Final = ("code_run", "longbook_choice", "math_find")
"""Of the prompts that a function of lm-eval's fills, those that read the question."""
_HUB: Final = "xinrongzhang2022/InfiniteBench"
_HOW: Final = (
    f"Download the .jsonl files from huggingface.co/datasets/{_HUB} and set task.path= to their "
    "folder"
)


@settings
class InfiniteBench(Task):
    """One of the eleven, or all of them."""

    version: ClassVar[int] = 2

    dataset: str = "all"
    path: str | None = None
    """A folder of .jsonl files, or for one data set its own; None: the hub."""
    max_prompt_tokens: Count | None = None
    prompt_style: PromptStyle = "auto"

    @property
    def datasets(self) -> tuple[str, ...]:
        """The data sets asked for; ValueError for an unknown one."""
        if self.dataset == "all":
            return DATASETS
        if self.dataset not in DATASETS:
            right = ", ".join(("all", *DATASETS))
            raise ValueError(f"task.dataset={self.dataset}: must be one of {right}")
        return (self.dataset,)

    @property
    def label(self) -> str:
        """infinitebench, infinitebench_passkey."""
        return "infinitebench" if self.dataset == "all" else f"infinitebench_{self.dataset}"

    def examples(
        self, tokenizer: Tokenizer, context_tokens: int | None, count: int | None, seed: int
    ) -> Sequence[Example]:
        """The first rows of each data set, `count` shared out evenly; the seed has no say."""
        names = self.datasets
        check_file_of_group(self.path, names)
        check_scorable(names)  # before the model reads anything
        examples = []
        for turn, name in enumerate(names):
            share = None if count is None else count // len(names) + (turn < count % len(names))
            prompt = package_yaml("infinitebench", f"infinitebench_{name}.yaml")
            for place, row in self._rows(name)[:share]:
                examples.append(self._example(tokenizer, name, prompt, row, place, context_tokens))
        return unique(examples, f"task.path={self.path}")

    def _rows(self, name: str) -> list[Placed]:
        if self.path is None:
            return read_rows(hub_file(_HUB, _authors_file(name), f"{_HOW}."), f"hub:{_HUB}")
        return read_rows(self._file(name))

    def _file(self, name: str) -> Path:
        path = Path(self.path or "").expanduser()
        if not path.is_dir():
            return path
        names = list(dict.fromkeys((f"{name}.jsonl", _authors_file(name))))
        for found in (path / each for each in names):
            if found.is_file():
                return found
        raise ValueError(f"task.path={path}: has no {' or '.join(names)}. {_HOW}")

    def _example(
        self, tokenizer: Tokenizer, name: str, prompt: Mapping[str, Any], row: Row, where: str,
        ctx: int | None,
    ) -> Example:  # fmt: skip
        answers = references(field(row, ["answer"], where), "answer", where)
        options = _options(row, answers[0], where) if name in CHOICES else []
        length = int(prompt["generation_kwargs"]["max_gen_toks"])
        limit = smaller(
            prompt_limit(tokenizer, self.prompt_style, ctx, length), self.max_prompt_tokens
        )
        context, question, cut = fit_middle(tokenizer, *_filled(prompt, row, where), limit)
        context, question = styled(context, question, self.prompt_style)
        return Example(
            id=f"{name}/{field(row, ['id'], where)}",
            context=context,
            question=question,
            references=answers,
            max_new_tokens=length,
            chat=self.prompt_style == "auto",
            meta={"dataset": name, "cut": cut, "options": options},
        )

    def score(self, example: Example, text: str) -> float:
        """The score of the example's data set, 0..100."""
        meta = example.meta
        return infinitebench_score(meta["dataset"], text, example.references, meta["options"])

    def aggregate(self, records: Sequence[Record]) -> Mapping[str, float]:
        """`dataset/x`, `overall` with its interval, `cut`."""
        scores: dict[str, list[float]] = defaultdict(list)
        for record in records:
            scores[record.meta["dataset"]].append(record.score)
        metrics = {"cut": float(sum(bool(record.meta["cut"]) for record in records))}
        metrics |= {f"dataset/{n}": macro_average([[each]])[0] for n, each in scores.items()}
        return metrics | (with_interval("overall", [list(scores.values())]) if scores else {})

    def identity(self) -> Mapping[str, Any]:
        """The files' hashes."""
        if self.path is None:
            return {"data": f"hub:{_HUB}"}
        return {"data": {name: file_sha256(self._file(name)) for name in self.datasets}}


def _authors_file(name: str) -> str:
    """The authors say eng where lm-eval says en."""
    return f"{name}g.jsonl" if name.endswith("_en") else f"{name}.jsonl"


def _options(row: Row, answer: str, where: str) -> list[str]:
    """The four choices. ValueError where they are not that, or the answer is none of them."""
    options = row.get("options")
    if not isinstance(options, list) or len(options) != 4:
        raise ValueError(f"{where}: field options must be four texts, found {options!r:.60}")
    if answer.strip() not in [*(str(each).strip() for each in options), *"ABCD"]:
        raise ValueError(f"{where}: field answer must be one of the options, found {answer!r:.60}")
    return [str(each) for each in options]


def _filled(prompt: Mapping[str, Any], row: Row, where: str) -> tuple[str, str]:
    """(through the end of the document, the rest)."""
    document = str(field(row, ["context"], where))
    source = str(prompt["doc_to_text"])
    asks = "{{input}}" in source or source.removeprefix("utils.doc_to_text_") in _ASK
    asked = str(field(row, ["input"], where)) if asks else ""
    if source.startswith("utils."):
        text = str(utility(source)({**row, "context": document, "input": asked}))
        end = text.index(document) + len(document)
        return text[:end], text[end:]
    before, after = source.split("{{context}}")
    description = str(prompt.get("description", ""))
    return description + before + document, after.replace("{{input}}", asked)
