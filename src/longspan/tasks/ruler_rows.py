"""Finished RULER rows from a file in NVIDIA's format, for parity with any version or paper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from longspan.tasks.lengths import count_tokens, style_tokens
from longspan.tasks.rows import read_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from longspan.tasks.base import Tokenizer
    from longspan.tasks.ruler import Ruler
    from longspan.types import Example

_PREFIXES = ("answer_prefix", "gen_prefix")


def examples_from_rows(
    task: Ruler, tokenizer: Tokenizer, context_tokens: int | None, count: int | None
) -> Sequence[Example]:
    """The first `count` rows of `task.data` (None: all) as they are.

    Raises ValueError naming the file and line of a row that lacks a field or is longer than the
    context.
    """
    pairs = read_rows(str(task.data), "task.data")
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


def _row(number: int, place: str, found: dict[str, Any]) -> dict[str, Any]:
    text, outputs = found.get("input"), found.get("outputs")
    if not isinstance(text, str) or not text:
        raise ValueError(f"{place}: field 'input' must be a text")
    if isinstance(outputs, str):
        outputs = [outputs]
    if not isinstance(outputs, list) or not outputs:
        raise ValueError(f"{place}: field 'outputs' must be a text or a list of texts")
    prefix = next((found[name] for name in _PREFIXES if name in found), "")
    return {
        "index": number,
        "input": text,
        "outputs": [str(output) for output in outputs],
        "prefix": str(prefix).strip(),
    }
