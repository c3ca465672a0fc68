"""The files of an attention graph index."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from longspan_kernels.attention_graph import AttentionGraph

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FORMAT, VERSION, FILE = "longspan.graph_index", "1", "index.json"


def write(
    folder: Path, graphs: Sequence[AttentionGraph], first_slot: int, walk: dict[str, Any]
) -> None:
    """Write a file a graph and one about them all."""
    folder.mkdir(parents=True, exist_ok=True)
    for row, graph in enumerate(graphs):
        graph.save(folder / f"graph_{row}.safetensors")
    facts = {
        "format": FORMAT,
        "version": VERSION,
        "graphs": len(graphs),
        "first_slot": first_slot,
        "walk": walk,
    }
    (folder / FILE).write_text(json.dumps(facts))


def read(folder: Path) -> tuple[tuple[AttentionGraph, ...], int, dict[str, Any]]:
    """Graphs, first slot and walk options that `write` wrote. Raises ValueError naming a file that
    is not what it should be.
    """
    facts = read_facts(folder / FILE)
    rows = range(facts["graphs"])
    graphs = tuple(AttentionGraph.load(folder / f"graph_{row}.safetensors") for row in rows)
    return graphs, facts["first_slot"], facts["walk"]


def read_facts(path: Path) -> dict[str, Any]:
    """What `save` wrote about the graphs."""
    try:
        facts: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} is no graph index: {error}; it should be what `save` wrote"
        ) from error
    if (found := (facts.get("format"), facts.get("version"))) != (FORMAT, VERSION):
        raise ValueError(
            f"{path} has format {found[0]!r} version {found[1]!r}; it should be {FORMAT!r} version"
            f" {VERSION!r}: build the index again"
        )
    return facts
