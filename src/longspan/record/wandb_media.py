"""What W&B shows beside numbers: the samples as a table, charts of the ledger and of recall; and
where it keeps them.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from longspan.types import Record

SHOWN = 2000
"""Letters of a prediction; the whole is in samples.jsonl."""
UNSET = [name for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR") if name not in os.environ]
FILES = ("summary.json", "config.yaml", "environment.json")


def stage_in(folder: Path) -> None:
    """Let wandb keep what it sends, and its logs, there and not below the home folder, unless the
    environment says where.
    """
    os.environ.update(dict.fromkeys(UNSET, str(folder.resolve())))


def samples(records: Sequence[Record]) -> Any:
    """A table of what was answered."""
    import wandb

    columns = ["id", "sample", "score", "prediction", "references", "prompt_tokens", "new_tokens"]
    rows = [
        [
            record.id, record.sample, record.score, record.prediction[:SHOWN],
            " | ".join(record.references)[:SHOWN], record.prompt_tokens, record.new_tokens,
        ]
        for record in records
    ]  # fmt: skip
    return wandb.Table(columns=columns, data=rows)


def charts(summary: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """By name, of what was measured: milliseconds a token by part, recovered attention by layer."""
    import wandb

    found: dict[str, Any] = {}
    ledger = (summary.get("latency") or {}).get("ledger") or {}
    parts = [[name, value] for name, value in ledger.items() if name.endswith("_ms") and value]
    if parts:
        table = wandb.Table(columns=["part", "ms"], data=parts)
        found["latency/ledger_chart"] = wandb.plot.bar(table, "part", "ms", "ms a token by part")
    path = folder / "recall.json"
    table_of = json.loads(path.read_text()).get("found") if path.exists() else None
    if table_of:
        heads = table_of["by_layer_and_head"]["recovered_mass"]
        rows = [
            [str(layer), sum(each) / len(each)]
            for layer, each in zip(table_of["layers"], heads, strict=True)
        ]
        table = wandb.Table(columns=["layer", "recovered_mass"], data=rows)
        found["recall/by_layer_chart"] = wandb.plot.bar(
            table, "layer", "recovered_mass", "recovered attention by layer"
        )
    return found


def artifact(folder: Path) -> Any:
    """The summary and what led to it, as files."""
    import wandb

    name = re.sub(r"[^\w.-]", "-", folder.name)  # as retroinfer+minference
    made = wandb.Artifact(name, type="summary")
    for file in FILES:
        if (folder / file).exists():
            made.add_file(str(folder / file))
    return made
