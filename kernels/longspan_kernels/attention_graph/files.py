"""The file of an attention graph: safetensors, versioned."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from longspan_kernels.attention_graph.options import GraphOptions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

FORMAT, VERSION = "longspan.attention_graph", "1"
PARTS = (
    "mean",
    "to_codes",
    "to_queries",
    "step",
    "codes",
    "half_norms",
    "edges",
    "entries",
    "token_of",
)


def write(path: Path, arrays: Mapping[str, Tensor], options: GraphOptions) -> None:
    """Write a graph; the file appears whole or not at all."""
    from safetensors.torch import save_file

    head = {"format": FORMAT, "version": VERSION, "options": json.dumps(asdict(options))}
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    save_file({name: arrays[name].contiguous() for name in PARTS}, draft, metadata=head)
    draft.replace(path)


def read(path: Path) -> tuple[dict[str, Tensor], GraphOptions]:
    """What `write` wrote.

    Raises ValueError naming the file where it is missing, truncated, of another version or no
    attention graph.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            head = file.metadata() or {}
            if (found := (head.get("format"), head.get("version"))) != (FORMAT, VERSION):
                raise ValueError(
                    f"{path} has format {found[0]!r} version {found[1]!r}; it should be {FORMAT!r}"
                    f" version {VERSION!r}: build the graph again"
                )
            arrays = {name: file.get_tensor(name) for name in PARTS}
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is no attention graph: {error}; it should be a complete file that `save` wrote"
        ) from error
    return arrays, GraphOptions(**json.loads(head["options"]))
