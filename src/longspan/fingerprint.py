"""What identifies a run: a digest of all that can change its numbers, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields, is_dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import longspan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from longspan.methods.base import Method
    from longspan.models.base import Model
    from longspan.prefill.base import Prefill
    from longspan.request import Request
    from longspan.tasks.base import Task

DIGITS = 10
"""Of the digest in folder names."""
FULL = "full"
"""The prefill that every run has unless it says otherwise."""


def identity(
    model: Model,
    method: Method,
    task: Task,
    request: Request,
    sampling: Any,
    prefill: Prefill | None = None,
) -> dict[str, Any]:
    """Everything that can change a sample's number.

    Not in it: how many samples and answers to each, which passes, the batch, threads, recorder,
    places of files. Full prefill is not named, so that runs from before there was another keep
    their digest. Of any other the size of the chunks by which it chooses is a setting too.
    """
    read: dict[str, Any] = {}
    if prefill is not None and prefill.name != FULL:
        read["prefill"] = {**described(prefill), "chunk_tokens": model.chunk_tokens}
    return {
        "model": dict(model.identity()),
        "device": model.device.type,
        "method": described(method),
        **read,
        "task": {
            **_elsewhere(described(task), task.chooses),
            "label": task.label,
            "version": task.version,
            **dict(task.identity()),
        },
        "ctx": request.ctx,
        "seed": request.seed,
        "protocol": request.protocol,
        "sampling": {**asdict(sampling), "max_new_tokens": request.max_new_tokens},
        "packages": {"longspan": longspan.__version__, "torch": metadata.version("torch")},
    }


def _elsewhere(settings: dict[str, Any], chooses: Sequence[str]) -> dict[str, Any]:
    """Without the places of files, as the task's own identity says what is in them, and without
    what chooses among the examples.
    """
    places = ("path", "data", "_dir", "folder", "cache")
    return {
        name: value
        for name, value in settings.items()
        if not name.endswith(places) and name not in chooses
    }


def digest(identity: dict[str, Any]) -> str:
    """SHA-256 over the canonical JSON of an identity."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def pairing(identity: dict[str, Any]) -> str:
    """The digest without method and prefill: runs that share it can be compared sample by
    sample.
    """
    compared = ("method", "prefill")
    return digest({key: value for key, value in identity.items() if key not in compared})


def described(part: Any) -> dict[str, Any]:
    """The class and the settings of a part, nested parts included."""
    return {"class": f"{type(part).__module__}.{type(part).__qualname__}", **_fields(part)}


def _fields(part: Any) -> dict[str, Any]:
    settings = fields(part) if is_dataclass(part) else ()
    return {each.name: _value(getattr(part, each.name)) for each in settings}


def _value(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return described(value)
    if isinstance(value, list | tuple):
        return [_value(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _value(each) for key, each in value.items()}
    return value
