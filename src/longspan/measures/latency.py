"""The latency pass: nothing else runs, nothing observes, the threads are fixed.

The ledger, which says where a step's time goes, is taken in further steps after the timed ones:
its clocks would be part of what they measure.
"""

from __future__ import annotations

import gc
import time
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from longspan.measures.memory import held, peaks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from longspan.measures.base import Subject
    from longspan.methods.base import LayerState
    from longspan.models.base import Session
    from longspan.types import Example

PROBES = (
    ("build_s", ("seal",)),
    ("update_ms", ("append",)),
    ("search_ms", ("index", "search")),
    ("attend_ms", ("placement", "attend_ranges")),
    ("gather_attend_ms", ("placement", "attend_runs")),
)
"""What is clocked: (name in the ledger, where it is found on a layer's state)."""


def latency(
    subject: Subject,
    examples: Sequence[Example],
    *,
    warmup: int,
    steps: int,
    ledger_steps: int = 8,
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
        tokens = _decode(session, tokens, warmup)[0]
        tokens, step_ms = _decode(session, tokens, steps)
        with clocked(session, ledger, ("update_ms", "search_ms", "attend_ms", "gather_attend_ms")):
            _, ledger_ms = _decode(session, tokens, ledger_steps)
        states = [state for layer in session.states for state in layer]
    build_s = ledger.pop("build_s", None)
    parts = {name: value / ledger_steps for name, value in ledger.items()}
    if parts:
        parts["other_ms"] = sum(ledger_ms) / ledger_steps - sum(parts.values())
    prompt = max(session.lengths) - warmup - steps - ledger_steps
    timing = {
        "ttft_s": ttft_s,
        "prefill_tokens_per_s": len(examples) * prompt / ttft_s,
        **_per_token(step_ms, len(examples)),
        "rows": len(examples),
        "context_tokens": prompt,
        "steps": steps,
        "threads": torch.get_num_threads(),
        "ledger": {"build_s": build_s, **parts},
    }
    return timing, {**peak, **held(states)}


def _per_token(step_ms: Sequence[float], rows: int) -> dict[str, float]:
    ordered = sorted(step_ms)
    middle = ordered[len(ordered) // 2]
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
    session = subject.model.session(subject.method, len(rows), longest + new_tokens)
    with clocked(session, ledger, ("build_s",)):
        logits_BV = session.prefill(rows, subject.tell)
    return session, logits_BV


def _decode(session: Session, tokens: list[int], steps: int) -> tuple[list[int], list[float]]:
    step_ms = []
    for _ in range(steps):
        start = time.perf_counter()
        tokens = session.decode(tokens).argmax(-1).tolist()  # .tolist() waits for the device
        step_ms.append((time.perf_counter() - start) * 1000)
    return tokens, step_ms


@contextmanager
def clocked(session: Session, ledger: dict[str, float], names: Sequence[str]) -> Iterator[None]:
    """Add up in `ledger` what the named probes take, until the end of the block; leaves no trace.

    A state without such a part is not probed, and the name stays absent.
    """
    hung: list[tuple[Any, str]] = []
    try:
        for state in (state for layer in session.states for state in layer):
            for name, where in PROBES:
                if name in names:
                    hung += _hang(state, where, ledger, name)
        yield
    finally:
        for owner, attribute in hung:
            delattr(owner, attribute)


def _hang(
    state: LayerState, where: Sequence[str], ledger: dict[str, float], name: str
) -> list[tuple[Any, str]]:
    owner: Any = state
    for attribute in where[:-1]:
        owner = getattr(owner, attribute, None)
    act = getattr(owner, where[-1], None)
    if act is None or where[-1] in getattr(owner, "__dict__", {where[-1]}):
        return []
    unit = 1.0 if name.endswith("_s") else 1000.0
    setattr(owner, where[-1], _timed(act, ledger, name, unit))
    return [(owner, where[-1])]


def _timed(
    act: Callable[..., Any], ledger: dict[str, float], name: str, unit: float
) -> Callable[..., Any]:
    def timed(*arguments: Any, **named: Any) -> Any:
        _wait()
        start = time.perf_counter()
        result = act(*arguments, **named)
        _wait()
        ledger[name] += (time.perf_counter() - start) * unit
        return result

    return timed


def _wait() -> None:
    """Until every device has done what it was given; K and V may be elsewhere than the model."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextmanager
def _quiet() -> Iterator[None]:
    """No garbage collection between two steps."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
