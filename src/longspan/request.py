"""What the user asked for, beside the parts: checked at the door, one line an error."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from longspan.build import checked
from longspan.options import Count, Gigabytes, Number, Seconds, Seed, Tokens, settings
from longspan.types import Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNIT = {"": 1, "k": 1024, "m": 1024**2}
PARTS = ("model", "method", "prefill", "task", "recorder")


@settings
class RecallSizes:
    """How much the recall pass looks at."""

    enabled: bool = True
    samples: Number = 2
    steps: Number = 16
    at: Count = 100
    every: Count = 1
    """Of the steps, each so many-th is observed."""
    tokens: Literal["reference", "generated"] = "reference"
    """What is decoded: the reference answer, the same for all methods, or what the method and the
    sampling choose, past the end token.
    """


@settings
class LatencySizes:
    """How long the latency pass decodes."""

    enabled: bool = True
    warmup: Tokens = 4
    steps: Number = 32
    rows: Number = 1
    """Sequences decoded together."""


@settings
class Measures:
    """Which passes run."""

    quality: bool = True
    recall: RecallSizes = RecallSizes()
    latency: LatencySizes = LatencySizes()


@settings
class Request:
    """A run, less its parts: how much, how, and what to measure."""

    ctx: Count | None = None
    """Context length in tokens; None: what the task prefers."""
    samples: Number | None = 10
    """None: all that the task has."""
    seed: Seed = 0
    protocol: Protocol = "question_dense"
    batch: Number = 1
    max_new_tokens: Count | None = None
    """None: what the task says."""
    measure: Measures = Measures()
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    results: str = "results"
    debug: bool = False
    partial_seconds: Seconds = 5.0
    """How often an unfinished generation is written down."""
    partial_states: bool = True
    """Whether K and V of its tokens are written with it."""
    prompts_gb: Gigabytes | None = None
    """Host memory in which what was read is kept for the recall pass and for a sweep's next jobs;
    None: a quarter of what is free.
    """

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> Request:
        """The request in a resolved configuration; raises ValueError naming the field."""
        for name in (*PARTS, "generation"):
            if name not in config:
                raise ValueError(f"{name} is missing: right would be a group of settings")
        fields = {key: value for key, value in config.items() if key not in PARTS}
        fields["ctx"] = parse_tokens("ctx", fields.get("ctx"))
        fields["max_new_tokens"] = _max_new_tokens(fields.pop("generation", {}))
        fields["measure"] = _measures(fields.get("measure", {}))
        return checked(cls, fields, "")


def _max_new_tokens(generation: Any) -> int | None:
    """The rest of the group is the sampling, which the models' room checks."""
    if not hasattr(generation, "items"):
        raise ValueError(f"generation = {generation!r}: right would be generation.temperature=...")
    value = generation.get("max_new_tokens")
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ValueError(
        f"generation.max_new_tokens = {value!r}: right would be a count from 1, or null for the "
        "task's own"
    )


def _measures(fields: Any) -> Measures:
    if not hasattr(fields, "items"):
        return checked(Measures, fields, "measure")
    nested: dict[str, type[Any]] = {"recall": RecallSizes, "latency": LatencySizes}
    built = {
        key: checked(nested[key], value, f"measure.{key}") if key in nested else value
        for key, value in fields.items()
    }
    return checked(Measures, built, "measure")


def parse_tokens(name: str, value: object) -> int | None:
    """A token count from 131072, "128k" (1024s) or "1m"; None stays None.

    Raises ValueError naming the field.
    """
    if value is None:
        return None
    match = re.fullmatch(r"([1-9]\d*)([km]?)", str(value).strip().lower())
    if isinstance(value, bool) or match is None:
        raise ValueError(
            f"{name} = {value!r}: not a token count; right would be 131072, 128k, 1m or null"
        )
    return int(match[1]) * _UNIT[match[2]]


def tokens_label(tokens: int | None) -> str:
    """The shortest way to write a token count: 131072 is 128k, 120000 stays; None is "native"."""
    if tokens is None:
        return "native"
    for unit in ("m", "k"):
        if tokens % _UNIT[unit] == 0:
            return f"{tokens // _UNIT[unit]}{unit}"
    return str(tokens)
