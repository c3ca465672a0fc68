"""LongBench and LongBench-E: 21 and 13 data sets of real documents (arXiv 2308.14508).

Prompts with THUDM's whitespace, THUDM's metrics and truncation. Scores are 0..100; the averages are
macro: over data sets in a category, over categories in all. Deviation: where `ctx` is given, the
prompt is cut to what it leaves, not to a length by model.
"""

from __future__ import annotations

from collections import defaultdict
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from longspan.options import Count, settings
from longspan.tasks.averages import macro_average, with_interval
from longspan.tasks.base import Task
from longspan.tasks.groups import check_file_of_group
from longspan.tasks.longbench_catalogue import NO_CHAT, STOPS, category, resolve, template
from longspan.tasks.longbench_data import dataset_sha256, read_dataset
from longspan.tasks.longbench_metrics import longbench_score, plain_metrics
from longspan.tasks.prompts import PromptStyle, styled
from longspan.tasks.rows import unique
from longspan.tasks.truncation import fit_middle, prompt_limit, smaller
from longspan.types import Example

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from longspan.tasks.base import Tokenizer
    from longspan.tasks.longbench_data import LongBenchRow
    from longspan.types import Record

_BUCKETS = (("0-4k", 4000), ("4-8k", 8000))


def bucket(length: int) -> str:
    """LongBench-E's bucket of a document's length in words."""
    return next((name for name, end in _BUCKETS if length < end), "8k+")


@settings
class LongBench(Task):
    """One data set, one category (sqa, mqa, sum, fsl, st, cc) or all of them."""

    version: ClassVar[int] = 2

    dataset: str = "all"
    edition: Literal["v1", "e"] = "v1"
    skip: list[str] = Field(default_factory=list)
    """Data sets left out of a group, such as multifieldqa_zh, which RetroInfer's SQA has not."""
    path: str | None = None
    """A folder, data.zip, or for one data set its .jsonl; None: a mirror on the hub."""
    max_prompt_tokens: Count | None = None
    """THUDM's limit for a model (31500 for a 32k one); None: what ctx leaves."""
    prompt_style: PromptStyle = "auto"
    """raw: no chat template anywhere, as RetroInfer ran it; auto: LongBench's own exceptions."""

    @property
    def datasets(self) -> tuple[str, ...]:
        """The data sets asked for. ValueError where there are none, or unknown ones are skipped."""
        named = resolve(self.dataset, self.edition == "e")
        if unknown := set(self.skip) - set(resolve("all", extended=False)):
            raise ValueError(f"task.skip={sorted(unknown)}: no such data set of LongBench")
        left = tuple(name for name in named if name not in self.skip)
        if not left:
            raise ValueError(f"task.skip={self.skip}: leaves nothing of {self.dataset}")
        return left

    @property
    def label(self) -> str:
        """longbench_hotpotqa, longbench_e_sqa, longbench."""
        kind = "longbench" if self.edition == "v1" else "longbench_e"
        return kind if self.dataset == "all" else f"{kind}_{self.dataset}"

    def examples(
        self, tokenizer: Tokenizer, context_tokens: int | None, count: int | None, seed: int
    ) -> Sequence[Example]:
        """The first rows of each data set, `count` shared out evenly (the order of the files; the
        seed has no say). ValueError names a missing file, or a wrong row and field.
        """
        plain_metrics()  # what scoring lacks is said before the model reads anything
        names = self.datasets
        check_file_of_group(self.path, names)
        examples: list[Example] = []
        for place, name in enumerate(names):
            share = None if count is None else count // len(names) + (place < count % len(names))
            chosen = read_dataset(self.path, self._file(name), name)[:share]
            examples.extend(self._example(tokenizer, name, row, context_tokens) for row in chosen)
        return unique(examples, f"task.path={self.path}")

    def _file(self, name: str) -> str:
        return name if self.edition == "v1" else f"{name}_e"

    def _example(
        self, tokenizer: Tokenizer, name: str, row: LongBenchRow, context_tokens: int | None
    ) -> Example:
        prompt = template(name)
        style = "raw" if name in NO_CHAT and self.prompt_style == "auto" else self.prompt_style
        room = prompt_limit(tokenizer, style, context_tokens, prompt.max_new_tokens)
        context, question, cut = fit_middle(
            tokenizer,
            *prompt.fill(row.document, row.question),
            smaller(room, self.max_prompt_tokens),
        )
        context, question = styled(context, question, style)
        meta = {"dataset": name, "category": category(name), "length": row.length, "cut": cut}
        if row.classes:
            meta["classes"] = list(row.classes)
        return Example(
            id=f"{name}/{row.id}",
            context=context,
            question=question,
            references=row.answers,
            max_new_tokens=prompt.max_new_tokens,
            stop=STOPS.get(name, ()),
            chat=style == "auto",
            meta=meta,
        )

    def score(self, example: Example, text: str) -> float:
        """THUDM's metric of the example's data set, 0..100."""
        meta = example.meta
        return longbench_score(meta["dataset"], text, example.references, meta.get("classes", ()))

    def aggregate(self, records: Sequence[Record]) -> Mapping[str, float]:
        """`dataset/x`, and with intervals `category/x` and `overall`; of LongBench-E `bucket/x`;
        `cut`, the number of prompts that were cut.
        """
        by_dataset: dict[str, list[float]] = defaultdict(list)
        by_bucket: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for record in records:
            name = record.meta["dataset"]
            by_dataset[name].append(record.score)
            by_bucket[bucket(record.meta["length"])][name].append(record.score)
        metrics = {"cut": float(sum(bool(record.meta["cut"]) for record in records))}
        metrics |= dict(self._averages(by_dataset))
        if self.edition == "e":
            for name in sorted(by_bucket):
                metrics |= with_interval(f"bucket/{name}", [list(by_bucket[name].values())])
                for dataset, scores in by_bucket[name].items():
                    metrics[f"dataset/{dataset}/{name}"] = macro_average([[scores]])[0]
        return metrics

    def _averages(self, scores: Mapping[str, list[float]]) -> Iterator[tuple[str, float]]:
        categories: dict[str, list[list[float]]] = defaultdict(list)
        for dataset, values in scores.items():
            yield f"dataset/{dataset}", macro_average([[values]])[0]
            categories[category(dataset)].append(values)
        for name, groups in categories.items():
            yield from with_interval(f"category/{name}", [groups]).items()
        if categories:
            yield from with_interval("overall", list(categories.values())).items()

    def identity(self) -> Mapping[str, Any]:
        """The files' hashes and the versions of what scores."""
        packages = {}
        for package in ("lm_eval", "rouge", "jieba"):
            try:
                packages[package] = installed(package)
            except PackageNotFoundError:
                packages[package] = "missing"
        return {
            "data": {name: dataset_sha256(self.path, self._file(name)) for name in self.datasets},
            **packages,
        }
