"""Finished RULER rows from a file, for parity with any version or paper: in NVIDIA's format (input,
outputs, answer_prefix) or with the columns of kvpress' data set (context, question, answer,
answer_prefix, task), whose prompt is context and question as they stand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from longspan.tasks.lengths import count_tokens, style_tokens
from longspan.tasks.references import references
from longspan.tasks.rows import field, read_rows, text_field

if TYPE_CHECKING:
    from collections.abc import Sequence

    from longspan.tasks.base import Tokenizer
    from longspan.tasks.rows import Placed
    from longspan.tasks.ruler import Ruler
    from longspan.types import Example

_PREFIXES = ("answer_prefix", "gen_prefix")


def examples_from_rows(
    task: Ruler, tokenizer: Tokenizer, context_tokens: int | None, count: int | None
) -> Sequence[Example]:
    """The first `count` rows of `task.data` (None: all) as they are; where rows name a task, as
    kvpress' file of all 13 does, those of this one.

    Raises ValueError naming the file and line of a row with a field that is missing or wrong, or
    that is longer than the context.
    """
    pairs = _of_task(task)
    overhead = style_tokens(tokenizer, task.prompt_style)
    examples = []
    for number, (place, found) in enumerate(pairs[:count]):
        row = _row(number, place, found)
        tokens = count_tokens(tokenizer, f"{row['input']} {row['prefix']}".rstrip()) + overhead
        example = task.example(row, tokens, context_tokens)
        if context_tokens is not None and tokens + example.max_new_tokens > context_tokens:
            raise ValueError(
                f"{place}: {tokens} prompt tokens and {example.max_new_tokens} new ones are more "
                f"than ctx={context_tokens}"
            )
        examples.append(example)
    return examples


def _of_task(task: Ruler) -> list[Placed]:
    pairs = read_rows(str(task.data), "task.data")
    chosen = [pair for pair in pairs if pair[1].get("task", task.name) == task.name]
    if not chosen:
        raise ValueError(f"task.data={task.data}: all rows are of other tasks than {task.name}")
    return chosen


def _row(number: int, where: str, found: dict[str, Any]) -> dict[str, Any]:
    names = ["context", "question"] if "input" not in found and "context" in found else ["input"]
    texts = [text_field(found, [name], where) for name in names]
    prefix = next((found[name] for name in _PREFIXES if found.get(name) is not None), "")
    if not isinstance(prefix, str):
        raise ValueError(f"{where}: field answer_prefix must be text, found {prefix!r:.60}")
    return {
        "index": number,
        "input": "".join(texts),
        "parts": tuple(texts) if len(texts) == 2 else None,
        "outputs": list(references(field(found, ["outputs", "answer"], where), "outputs", where)),
        "prefix": prefix.strip(),
    }
