"""The latency pass: nothing else runs, nothing observes, the threads are fixed.

The ledger, which says where a step's time goes, is taken in further steps after the timed ones:
its clocks would be part of what they measure.
"""

from __future__ import annotations

import gc
import time
from collections import defaultdict
from contextlib import contextmanager
from itertools import count
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from longspan.measures.clocks import clocked
from longspan.measures.memory import held, peaks
from longspan.measures.stretches import stretches
from longspan.measures.traffic import between, traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from longspan.measures.base import Subject
    from longspan.methods.base import LayerState
    from longspan.models.base import Session
    from longspan.types import Example


ATTENTION = ("search_ms", "attend_ms", "gather_attend_ms")
STEP = ("update_ms", *ATTENTION, "together_ms", "fused_ms")
"""What a decode step is clocked for."""
CLOCKED_STEPS = 8
"""Decoded behind the timed steps."""


def latency(
    subject: Subject,
    examples: Sequence[Example],
    *,
    warmup: int,
    steps: int,
    ledger_steps: int = CLOCKED_STEPS,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(latency, memory) of the summary: one session of a row per example, decoded greedily.

    Milliseconds a token are those of a step of the whole batch; tokens_per_s counts its rows.
    """
    with _quiet(), peaks(subject.model.device) as peak:
        ledger: dict[str, float] = defaultdict(float)
        start = time.perf_counter()
        session, logits_BV = _read(subject, examples, warmup + steps + ledger_steps, ledger)
        tokens = logits_BV.argmax(-1).tolist()
        ttft_s = time.perf_counter() - start
        past, most = count(1), warmup + steps + ledger_steps

        def told() -> None:
            subject.decoded(next(past), most)

        tokens = _decode(session, tokens, warmup, told)[0]
        taken_in: dict[str, float] = defaultdict(float)
        before = traffic(_states(session))
        with clocked(session, taken_in, ("absorb_ms",)):
            tokens, step_ms, absorb_ms = _decode_clocked(session, tokens, steps, told, taken_in)
        cache = between(before, traffic(_states(session)), steps)
        with clocked(session, ledger, STEP):
            _, ledger_ms = _decode(session, tokens, ledger_steps, told)
    build_s = ledger.pop("build_s", None)
    parts = {name: value / ledger_steps for name, value in ledger.items()}
    if parts:
        together_ms = parts.pop("together_ms", None)
        parts["other_ms"] = sum(ledger_ms) / ledger_steps - sum(parts.values())
        if together_ms is not None:  # search and attention that went on at once count once
            parts["overlap_ms"] = sum(parts.get(name, 0.0) for name in ATTENTION) - together_ms
            parts["other_ms"] += parts["overlap_ms"]
    prompts = [length - warmup - steps - ledger_steps for length in session.lengths]
    timing = {
        "ttft_s": ttft_s,
        "prefill_tokens_per_s": sum(prompts) / ttft_s,
        **_per_token(step_ms, len(examples)),
        "rows": len(examples),
        "context_tokens": max(prompts),
        "steps": steps,
        "threads": torch.get_num_threads(),
        "steps_by": session.steps_by,
        "by_stretch": _by_stretch(step_ms, absorb_ms),
        "ledger": {
            "build_s": build_s,
            **parts,
            **cache,
            "absorb_ms": sum(absorb_ms) / steps if taken_in else None,
        },
    }
    return timing, {**peak, **held(_states(session))}


def _states(session: Session) -> list[LayerState]:
    """Of all layers and rows. To ask a session for them closes the accounts of its last step."""
    return [state for layer in session.states for state in layer]


def _per_token(step_ms: Sequence[float], rows: int) -> dict[str, float]:
    ordered = sorted(step_ms)
    middle = median(ordered)
    return {
        "ms_per_token": middle,
        "ms_per_token_p10": ordered[len(ordered) // 10],
        "ms_per_token_p90": ordered[len(ordered) * 9 // 10],
        "ms_per_token_mean": sum(ordered) / len(ordered),
        "tokens_per_s": rows * 1000 / middle,
    }


def _read(
    subject: Subject, examples: Sequence[Example], new_tokens: int, ledger: dict[str, float]
) -> tuple[Session, torch.Tensor]:
    """Prefill with the question, whatever the protocol: latency is about context and answer.

    A prompt that leaves no room for the steps loses its beginning.
    """
    pairs = [subject.encode(example, 0) for example in examples]
    rows = [[*context, *question] for context, question in pairs]
    if (most := subject.model.max_positions) is not None:
        rows = [row[max(0, len(row) + new_tokens - most) :] for row in rows]
    longest = max(map(len, rows))
    session = subject.open(len(rows), longest + new_tokens)
    with clocked(session, ledger, ("build_s",)):
        logits_BV = session.prefill(rows, subject.read_so_far)
    return session, logits_BV


def _by_stretch(step_ms: Sequence[float], absorb_ms: Sequence[float]) -> list[dict[str, float]]:
    """The timed steps by stretches: the median step, the slowest, and the mean share of the index's
    updates.
    """
    rows = []
    for bounds, places in stretches(range(len(step_ms))):
        ordered = sorted(step_ms[place] for place in places)
        rows.append(
            {
                **bounds,
                "ms_per_token": median(ordered),
                "ms_per_token_mean": sum(ordered) / len(ordered),
                "ms_per_token_max": ordered[-1],
                "absorb_ms": sum(absorb_ms[place] for place in places) / len(places),
            }
        )
    return rows


def _decode_clocked(
    session: Session,
    tokens: list[int],
    steps: int,
    told: Callable[[], None],
    spent: dict[str, float],
) -> tuple[list[int], list[float], list[float]]:
    """As `_decode`, with what `spent` has of "absorb_ms" by step: that happens too seldom for its
    clock to be felt.
    """
    step_ms: list[float] = []
    absorb_ms: list[float] = []
    for _ in range(steps):
        before = spent.get("absorb_ms", 0.0)
        tokens, (ms,) = _decode(session, tokens, 1, told)
        step_ms.append(ms)
        absorb_ms.append(spent.get("absorb_ms", 0.0) - before)
    return tokens, step_ms, absorb_ms


def _decode(
    session: Session, tokens: list[int], steps: int, told: Callable[[], None]
) -> tuple[list[int], list[float]]:
    """`told` is called between steps."""
    step_ms = []
    for _ in range(steps):
        start = time.perf_counter()
        tokens = session.decode(tokens).argmax(-1).tolist()  # .tolist() waits for the device
        step_ms.append((time.perf_counter() - start) * 1000)
        told()
    return tokens, step_ms


@contextmanager
def _quiet() -> Iterator[None]:
    """No garbage collection between two steps."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
