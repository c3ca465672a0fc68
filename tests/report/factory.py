"""Results folders as the runner leaves them, without a model: for tests of what reads them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from longspan.record.jsonl import RunFolder
from longspan.request import tokens_label
from longspan.statistics import mean_interval
from longspan.types import Record

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Made:
    """A run to be made up."""

    task: str = "ruler_vt"
    ctx: int = 8192
    model: str = "nano"
    method: str = "full"
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    share: float = 1.0
    """Of the context read; scores and recall fall with it."""
    samples: int = 30
    layers: int = 6
    heads: int = 8
    needle: bool = False
    latency: bool = True
    rows: int = 1
    """Sequences decoded together."""


def make(root: Path, run: Made) -> Path:
    """Write its folder."""
    conditions = {
        "model": {"path": run.model, "dtype": "float32"}, "device": "cpu", "ctx": run.ctx,
        "seed": run.seed, "protocol": "question_dense", "task": {"label": run.task, "version": 1},
    }  # fmt: skip
    pairing = hashlib.sha256(json.dumps(conditions).encode()).hexdigest()
    method = {"class": f"longspan.methods.{run.method}.X", **run.settings}
    digest = hashlib.sha256(json.dumps([conditions, method]).encode()).hexdigest()
    path = root / run.task / tokens_label(run.ctx) / run.model / f"{run.method}-{digest[:10]}"
    rng = np.random.default_rng(int(digest[:8], 16))
    with RunFolder(path, digest) as folder:
        for number in range(run.samples):
            folder.append(_record(run, number))
        folder.write_yaml("config.yaml", {"ctx": run.ctx})
        folder.write("environment.json", ENVIRONMENT)
        folder.write("fingerprint.json", {"pairing": pairing, **conditions, "method": method})
        folder.write("recall.json", _recall(run, rng))
        folder.write("summary.json", _summary(run, folder, digest, pairing))
    return path


ENVIRONMENT = {"hardware": {"cpu": "A processor"}, "gpus": [], "threads": {"torch": 2}}


def _record(run: Made, number: int) -> Record:
    hard = np.random.default_rng(number).random()  # the same example is as hard for every method
    chance = min(1.0, 0.55 + 0.5 * run.share**0.2 - run.ctx / 2e5)
    score = float(100 * (hard < chance)) if number % 3 else float(round(100 * chance / 20) * 20)
    meta = {"length": run.ctx >> (number % 2), "depth": 25.0 * (number % 5)} if run.needle else {}
    read = run.share * run.ctx
    work = {
        "exact_tokens": read, "estimated_tokens": 0.0, "context_tokens": float(run.ctx),
        "distances": run.ctx / 16 if run.method != "full" else 0.0, "index_bytes": 0.0,
        "kv_bytes": read * 1024 * run.layers,
    }  # fmt: skip
    return Record(f"e{number}", 0, "an answer", ("right",), score, run.ctx, 9, "eos", 0, work, meta)


def _recall(run: Made, rng: np.random.Generator) -> dict[str, Any]:
    mass = 1 - (1 - run.share**0.08) * rng.random((run.layers, run.heads))
    none = [[None] * run.heads] * run.layers
    table = {
        "at": 100, "examples": 2, "tokens": 32, "layers": list(range(run.layers)),
        "mean": {"recall": float(mass.mean() ** 2), "recovered_mass": float(mass.mean())},
        "worst_5_percent": {"recovered_mass": float(mass.min())},
        "by_layer_and_head": {
            "recall": (mass**2).tolist(), "recovered_mass": mass.tolist(), "estimated_mass": none,
            "output_error": (1 - mass).tolist(),
        },
        "by_step": {"recall": [0.5] * 16, "recovered_mass": rng.random(16).tolist()},
    }  # fmt: skip
    return {"sizes": {"samples": 2, "steps": 16, "at": 100}, "found": table}


def _summary(run: Made, folder: RunFolder, digest: str, pairing: str) -> dict[str, Any]:
    recall = (folder.read("recall.json") or {})["found"]["mean"]
    scores = [record.score for record in folder.records]
    attend = 4.0 * run.share * run.ctx / 8192
    ledger = {"build_s": 0.3, "search_ms": 0.4, "attend_ms": 0.2, "gather_attend_ms": attend,
              "update_ms": 0.1, "other_ms": 2.0}  # fmt: skip
    timing = {"ttft_s": run.ctx / 9000, "ms_per_token": 2.8 + attend, "tokens_per_s": 200.0,
              "rows": run.rows, "steps": 32, "threads": 2, "ledger": ledger}  # fmt: skip
    none: dict[str, Any] = {**dict.fromkeys(timing), "ledger": dict.fromkeys(ledger)}
    interval: Any = mean_interval(scores)._asdict() if scores else {}
    return {
        "task": run.task, "ctx": run.ctx, "model": run.model, "method": run.method,
        "protocol": "question_dense", "fingerprint": digest, "pairing": pairing, "n": len(scores),
        "score": interval or {"mean": None, "low": None, "high": None}, "metrics": {},
        "baseline_delta": {"mean": None, "low": None, "high": None, "n": None},
        "recall": {"at_100": recall["recall"], "recovered_mass": recall["recovered_mass"],
                   "output_error": 1 - recall["recovered_mass"]},
        "work": {"exact_tokens": run.share * run.ctx, "estimated_tokens": 0.0,
                 "read_fraction": run.share, "context_tokens": float(run.ctx),
                 "distances": 0.0 if run.method == "full" else run.ctx / 16,
                 "bytes_per_token": run.share * run.ctx * 1024 * run.layers},
        "latency": timing if run.latency else none,
        "memory": dict.fromkeys(("peak_host_bytes", "index_bytes", "kv_bytes")),
        "corrupt_lines": 0, "seconds": 3.0,
    }  # fmt: skip


def sweep(root: Path) -> list[Path]:
    """Twenty-four runs: two tasks, two lengths, six ways to read."""
    ways: list[dict[str, Any]] = [
        {"method": "full"},
        *(
            {"method": "retroinfer", "settings": {"retrieval_budget": share}, "share": share}
            for share in (0.005, 0.018, 0.05)
        ),
        {"method": "streaming_llm", "settings": {"budget": 0.018}, "share": 0.001},
        {"method": "oracle_topk", "settings": {"budget": 0.018}, "share": 0.019},
    ]
    return [
        make(root, Made(task=task, ctx=ctx, needle=task == "needle", **way))
        for task in ("ruler_vt", "needle")
        for ctx in (8192, 16384)
        for way in ways
    ]
