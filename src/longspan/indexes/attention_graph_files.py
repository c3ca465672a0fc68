"""The files of an attention graph index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from longspan.indexes.files import read_facts, write_facts
from longspan_kernels.attention_graph import AttentionGraph

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

KIND, VERSION = "longspan.graph_index", "1"


def write(
    folder: Path, graphs: Sequence[AttentionGraph], first_slot: int, walk: dict[str, Any]
) -> None:
    """Write a file a graph and one about them all."""
    for row, graph in enumerate(graphs):
        graph.save(folder / f"graph_{row}.safetensors")
    facts = {"graphs": len(graphs), "first_slot": first_slot, "walk": walk}
    write_facts(folder, KIND, VERSION, facts)


def read(folder: Path) -> tuple[tuple[AttentionGraph, ...], int, dict[str, Any]]:
    """Graphs, first slot and walk options that `write` wrote. Raises ValueError naming a file that
    is not what it should be.
    """
    facts = read_facts(folder, KIND, VERSION)
    rows = range(facts["graphs"])
    graphs = tuple(AttentionGraph.load(folder / f"graph_{row}.safetensors") for row in rows)
    return graphs, facts["first_slot"], facts["walk"]
