"""Strict settings and the one vocabulary of their fields.

A component's settings are the fields of its `@settings` class: frozen, keyword-only, checked when
built, unknown
names refused. `*_budget` is a fraction of the context, `*_tokens` a count.
"""

from __future__ import annotations

from typing import Annotated, TypeVar, cast, dataclass_transform

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Fraction = Annotated[float, Field(gt=0, le=1)]
"""A share of the context in (0, 1]."""
Share = Annotated[float, Field(ge=0, le=1)]
"""A share that may be nothing, in [0, 1]."""
Fractions = Annotated[tuple[Fraction, ...], Field(min_length=1, strict=False)]
"""One share a layer, from the first."""
Slack = Annotated[float, Field(ge=1)]
"""How many times what is wanted."""
MOST = 2**31 - 1
"""More than any context has: what counts tokens in 32 or 64 bits need not mind larger ones."""
Tokens = Annotated[int, Field(ge=0, le=MOST)]
"""A count of tokens, 0 allowed."""
Layers = Annotated[tuple[Tokens, ...], Field(strict=False)]
"""Numbers of layers, from 0."""
Count = Annotated[int, Field(ge=1, le=MOST)]
"""A count of at least one."""
Number = Annotated[Count, Field(le=1_000_000)]
"""How many of what a run goes through one by one: a run of more would never begin."""
SEEDS = 2**31
"""How many seeds there are: NumPy's have 32 bits, and data that do not fit are drawn anew from
seeds beyond.
"""
Seed = Annotated[int, Field(ge=0, lt=SEEDS)]
Folder = Annotated[str, Field(min_length=1)]
"""A path; an empty one would be where the program was started."""
Bytes = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
Gigabytes = Annotated[float, Field(ge=0)]

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
def settings(cls: type[T]) -> type[T]:
    """Make `cls` a frozen, keyword-only dataclass whose fields are validated strictly."""
    config = ConfigDict(
        extra="forbid", strict=True, arbitrary_types_allowed=True, allow_inf_nan=False
    )
    return cast("type[T]", dataclass(cls, frozen=True, kw_only=True, config=config))
