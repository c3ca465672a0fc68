"""LongBench v2: 503 four-choice questions over 8k to 2M words (Bai et al. 2024, arXiv 2412.15204).

The prompt is lm-eval's, which is the authors' but for its end ("Answer:"); `ending` takes theirs.
The answer is generated and its letter taken, so that decoding is exercised (lm-eval compares
likelihoods instead). Chance is 25.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from longspan.options import Count, settings
from longspan.tasks.answers import published_letter
from longspan.tasks.averages import with_interval
from longspan.tasks.base import Task
from longspan.tasks.files import file_sha256
from longspan.tasks.longbench_catalogue import package_yaml
from longspan.tasks.prompts import PromptStyle, styled
from longspan.tasks.rows import field, hub_rows, read_rows, text_field, unique
from longspan.tasks.truncation import fit_middle, prompt_limit, smaller
from longspan.types import Example

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from longspan.tasks.base import Tokenizer
    from longspan.tasks.rows import Placed, Row
    from longspan.types import Record

_HUB: Final = "THUDM/LongBench-v2"
_HOW: Final = (
    "Get data.json with `python scripts/get_data.py longbench_v2 --to DIR`, or by hand from "
    "huggingface.co/datasets/THUDM/LongBench-v2, and set task.path=DIR/data.json"
)
_ENDING: Final = "Answer:"
_GROUPS: Final = ("difficulty", "length", "domain")


@settings
class LongBenchV2(Task):
    """All questions, or those of one length or difficulty."""

    version: ClassVar[int] = 2

    path: str | None = None
    """data.json, a .jsonl, or a folder with data.json in it; None: the hub."""
    length: str | None = None
    """short, medium or long; None: all."""
    ending: str = _ENDING
    """The last words of the prompt."""
    max_new_tokens: Count = 128
    max_prompt_tokens: Count | None = None
    """The authors cut at 120000; None: what ctx leaves."""
    prompt_style: PromptStyle = "auto"

    @property
    def label(self) -> str:
        """longbench_v2, longbench_v2_short."""
        return "longbench_v2" if self.length is None else f"longbench_v2_{self.length}"

    def examples(
        self, tokenizer: Tokenizer, context_tokens: int | None, count: int | None, seed: int
    ) -> Sequence[Example]:
        """The first `count` questions of the file; long prompts lose their middle."""
        if self.length not in (None, "short", "medium", "long"):
            raise ValueError(f"task.length={self.length}: must be short, medium, long or null")
        where = _HUB if self.path is None else f"task.path={self._file()}"
        template: str = package_yaml("longbench2", "_longbench_common_yaml")["doc_to_text"]
        chosen = [
            (place, row)
            for place, row in self._rows()
            if self.length in (None, field(row, ["length"], place))
        ]
        if not chosen:
            raise ValueError(f"{where}: has no question of task.length={self.length}")
        examples = [
            self._example(tokenizer, template, row, place, context_tokens)
            for place, row in chosen[:count]
        ]
        return unique(examples, where)

    def _rows(self) -> list[Placed]:
        if self.path is None:
            return hub_rows(_HUB, None, "train", f"{_HOW}.")
        return read_rows(self._file())

    def _file(self) -> Path:
        path = Path(self.path or "").expanduser()
        path = path / "data.json" if path.is_dir() else path
        if not path.is_file():
            raise ValueError(f"task.path={path}: no such file. {_HOW}")
        return path

    def _example(
        self, tokenizer: Tokenizer, template: str, row: Row, where: str, ctx: int | None
    ) -> Example:
        document, rest = _filled(template, row, where)
        rest = rest.removesuffix(_ENDING) + self.ending
        room = prompt_limit(tokenizer, self.prompt_style, ctx, self.max_new_tokens)
        limit = smaller(room, self.max_prompt_tokens)
        context, question, cut = fit_middle(tokenizer, document, rest, limit)
        context, question = styled(context, question, self.prompt_style)
        right = text_field(row, ["answer"], where).strip()
        if right not in ("A", "B", "C", "D"):
            raise ValueError(f"{where}: field answer must be A, B, C or D, found {right!r:.20}")
        groups = {name: text_field(row, [name], where) for name in _GROUPS}
        return Example(
            id=text_field(row, ["_id", "id"], where),
            context=context,
            question=question,
            references=(right,),
            max_new_tokens=self.max_new_tokens,
            chat=self.prompt_style == "auto",
            meta={**groups, "cut": cut},
        )

    def score(self, example: Example, text: str) -> float:
        """100 for the right letter; an answer without a letter is wrong."""
        return 100.0 * (published_letter(text) == example.references[0])

    def aggregate(self, records: Sequence[Record]) -> Mapping[str, float]:
        """Accuracy with intervals by difficulty, length and domain; `unparsed_rate`; `cut`."""
        groups: dict[str, list[float]] = defaultdict(list)
        for record in records:
            for name in _GROUPS:
                groups[f"{name}/{record.meta[name]}"].append(record.score)
        metrics = {"cut": float(sum(bool(record.meta["cut"]) for record in records))}
        if records:
            unparsed = sum(published_letter(record.prediction) is None for record in records)
            metrics["unparsed_rate"] = 100 * unparsed / len(records)
        for name, scores in sorted(groups.items()):
            metrics |= with_interval(name, [[scores]])
        return metrics

    def identity(self) -> Mapping[str, Any]:
        """The file's hash, or the data set's name on the hub."""
        return {"data": f"hub:{_HUB}" if self.path is None else file_sha256(self._file())}


def _filled(template: str, row: Row, where: str) -> tuple[str, str]:
    """(through the end of the document, the rest)."""
    values = {"{{question.strip()}}": text_field(row, ["question"], where).strip()}
    choices = row.get("choices")
    for i, name in enumerate("ABCD"):
        given = choices[i] if isinstance(choices, list) and len(choices) == 4 else None
        values[f"{{{{choices[{i}]}}}}"] = given or text_field(row, [f"choice_{name}"], where)
    before, after = template.split("{{context}}")
    # Each place once and from the left, so that a place written inside a text stays text.
    done = ""
    for place, value in values.items():
        left, found, after = after.partition(place)
        if not found:
            raise ValueError(f"lm-eval's prompt of LongBench v2 is not the one of 0.4.13: {place}")
        done += left + value
    return before + text_field(row, ["context"], where), done + after
