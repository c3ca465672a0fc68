"""summary.json: stable keys; what was not measured is null, never absent and never guessed."""

from __future__ import annotations

import math
import operator
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from longspan import fingerprint
from longspan.baseline import baseline_delta
from longspan.record.files import entries, numbers
from longspan.record.jsonl import first, read_samples
from longspan.statistics import mean_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from longspan.record.jsonl import RunFolder
    from longspan.runner import Run
    from longspan.types import Record

CACHE = ("cached", "missed")
FOLLOWED = ("recall", "recovered_mass", "output_error", "kl")
"""Whose worst steps and whose change along an answer are told."""
MOST_NATS = 700.0
"""Beyond, a perplexity is no number."""


def summarise(run: Run, folder: RunFolder, seconds: float | None = None) -> dict[str, Any]:
    """Everything that the folder knows, in the keys of results/README.md."""
    answers, identity = run.task.samples_per_example, run.identity
    records = first(folder.records, answers)
    timing = folder.read("latency.json")
    pairing = fingerprint.pairing(identity)
    return {
        "task": run.task.label,
        "ctx": run.request.ctx,
        "model": run.model.name,
        "method": run.label,
        "prefill": run.prefill.name,
        "protocol": run.request.protocol,
        "fingerprint": folder.fingerprint,
        "pairing": pairing,
        "n": len(records),
        "answers": answers,
        "score": score(records),
        "metrics": dict(run.task.aggregate(records)) if records else {},
        "baseline_delta": baseline_delta(folder.path, records, pairing),
        "recall": _recall(folder.read("recall.json")),
        "work": work(records),
        "latency": _latency(entries(timing, "latency")),
        "memory": _memory(entries(timing, "memory")),
        "finish": _finishes(records),
        "corrupt_lines": len(folder.corrupt),
        "seconds": seconds,
    }


def by_example(records: Iterable[Record]) -> dict[str, float]:
    """The mean score of each example: its several answers are no independent samples."""
    scores = defaultdict(list)
    for record in records:
        scores[record.id].append(record.score)
    return {example: sum(each) / len(each) for example, each in scores.items()}


def score(records: Sequence[Record]) -> dict[str, float | None]:
    """Mean with its 95% interval, whatever the order in which a batch or shards were recorded."""
    if not records:
        return {"mean": None, "low": None, "high": None}
    ordered = sorted(records, key=lambda record: (record.id, record.sample))
    return mean_interval(list(by_example(ordered).values()))._asdict()


def refresh(folder: Path, summary: dict[str, Any]) -> dict[str, Any]:
    """A run's summary with its comparison renewed: the baseline may have run after the method. Of
    the samples, those that it sums up; a later job of the sweep may have added to them.
    """
    records = first(read_samples(folder / "samples.jsonl").records, summary["answers"])
    compared = baseline_delta(folder, records[: summary["n"]], summary["pairing"])
    return {**summary, "baseline_delta": compared}


def work(records: Sequence[Record]) -> dict[str, float | None]:
    """Means over samples of what the last decode step cost."""
    works = [record.work for record in records if record.work]

    def mean(*names: str) -> float | None:
        whole = [w for w in works if all(name in w for name in names)]
        return sum(w[name] for w in whole for name in names) / len(whole) if whole else None

    exact, context = mean("exact_tokens"), mean("context_tokens")
    hits, misses = (sum(w.get(f"{name}_tokens", 0.0) for w in works) for name in CACHE)
    bus = sum(w.get("bus_bytes", 0.0) for w in works)
    return {
        "exact_tokens": exact,
        "estimated_tokens": mean("estimated_tokens"),
        "read_fraction": exact / context if exact is not None and context else None,
        "bytes_per_token": mean("index_bytes", "kv_bytes"),
        "hit_ratio": hits / (hits + misses) if hits + misses else None,
        "bus_bytes_per_token": bus / len(works) if hits + misses else None,
        "distances": mean("distances"),
        "context_tokens": context,
    }


def _recall(kept: dict[str, Any] | None) -> dict[str, Any]:
    found = entries(kept, "found")
    mean, worst = numbers(found.get("mean")), numbers(found.get("worst_5_percent"))
    at = found.get("at", 100)
    return {
        "at_100": mean.get("recall") if at == 100 else None,
        **({} if at == 100 else {f"at_{at}": mean.get("recall")}),
        "recovered_mass": mean.get("recovered_mass"),
        "retrieved_mass": mean.get("retrieved_mass"),
        "estimated_mass": mean.get("estimated_mass"),
        "output_error": mean.get("output_error"),
        "kl": mean.get("kl"),
        "agreement": mean.get("agreement"),
        "perplexity": _perplexity(mean.get("nll")),
        "full_perplexity": _perplexity(mean.get("nll_full")),
        "worst_5_percent": {name: worst.get(name) for name in FOLLOWED},
        "drift": {name: _change(found, name, operator.sub) for name in FOLLOWED},
    }


def _perplexity(nats: float | None) -> float | None:
    """Of a mean over tokens; infinity, which JSON does not have, is None."""
    return None if nats is None or nats > MOST_NATS else math.exp(nats)


def _change(
    found: Mapping[str, Any], name: str, by: Callable[[float, float], float]
) -> float | None:
    """From the first to the last stretch of a long answer; None where there is one only."""
    stretches = found.get("by_stretch")
    kept = stretches if isinstance(stretches, list) else []
    values = [numbers(stretch).get(name) for stretch in kept]
    if len(values) < 2 or values[0] is None or values[-1] is None:
        return None
    return by(values[-1], values[0])


def _latency(found: dict[str, Any]) -> dict[str, Any]:
    ledger = (
        "build_s", "search_ms", "attend_ms", "gather_attend_ms", "fused_ms", "update_ms",
        "overlap_ms", "other_ms", "absorb_ms",
        "wait_ms", "hit_ratio", "bus_bytes", "overflows", "prefetch_bytes",
    )  # fmt: skip
    keys = (
        "ttft_s", "prefill_tokens_per_s", "ms_per_token", "ms_per_token_p10", "ms_per_token_p90",
        "ms_per_token_mean", "tokens_per_s", "rows", "context_tokens", "steps", "threads",
    )  # fmt: skip
    told, spent = numbers(found), numbers(found.get("ledger"))
    return {
        **{key: told.get(key) for key in keys},
        "steps_by": found.get("steps_by"),
        "growth": _change(found, "ms_per_token", operator.truediv),
        "ledger": {key: spent.get(key) for key in ledger},
    }


def _memory(found: dict[str, Any]) -> dict[str, Any]:
    keys = ("peak_host_bytes", "peak_device_bytes", "index_bytes", "kv_bytes")
    told = numbers(found)
    return {key: told.get(key) for key in keys}


def _finishes(records: Sequence[Record]) -> dict[str, float | None]:
    """Shares of the answers that ended at an end token, a stop string or the length limit."""
    ends = [record.finish for record in records]
    kinds = ("eos", "stop", "length")
    return {kind: ends.count(kind) / len(ends) if ends else None for kind in kinds}
