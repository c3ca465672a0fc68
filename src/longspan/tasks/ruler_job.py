"""What is asked of RULER's generators, and what they give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from longspan.tasks.ruler_specs import SPECS, RulerName, Spec

Haystack = Literal["synthetic", "path", "hub"]
Splitter = Literal["untrained", "punkt_tab"]

Row: TypeAlias = dict[str, Any]
"""index, input, outputs, prefix, tokens (of the whole prompt), stream."""

SHORT_TOKENS = 4096
"""Below RULER's shortest length its steps are too coarse for the room, so ours are finer; from here
on all bytes are RULER's.
"""
GENERATOR_VERSION = 3
"""Rises whenever the rows for the same job change; part of every cache key."""


@dataclass(frozen=True, slots=True)
class Job:
    """Everything the rows depend on, but for the tokenizer. JSON types only."""

    task: RulerName
    context_tokens: int
    overhead_tokens: int
    """What chat template and special tokens add to the prompt."""
    max_new_tokens: int
    count: int
    seed: int
    haystack: Haystack | None = None
    """None where the task's haystack is the benchmark's own noise."""
    splitter: Splitter = "untrained"
    path: str | None = None
    """The essay file, or the questions of qa_1 and qa_2."""

    @property
    def spec(self) -> Spec:
        """The parameters of the task."""
        return SPECS[self.task]

    def too_short(self, needed: int) -> ValueError:
        """The error for a context that cannot hold the task."""
        return ValueError(
            f"ctx={self.context_tokens}: ruler_{self.task} needs about {needed} tokens at least"
        )
