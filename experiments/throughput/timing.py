"""What is timed: decode steps, what of them is the device's, the logits, reading a prompt."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from model import filled

from longspan.methods.full import Full

if TYPE_CHECKING:
    from cells import Sizes

    from longspan.models.decoder import Decoder
    from longspan.models.session import StoreSession


def wait() -> float:
    """The time, when every device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def stepped(session: StoreSession, rows: int, sizes: Sizes) -> dict[str, Any]:
    """Median seconds of a decode step of the batch; where all of it is in CUDA graphs, also those
    that the device was busy with it.
    """
    taken = []
    for step in range(sizes.warmup + sizes.steps):
        begun = wait()
        session.decode([(7 * step + row) % 400 for row in range(rows)])
        if step >= sizes.warmup:
            taken.append(wait() - begun)
    static = session._rows[0].static
    pieces = None if static is None else static.pieces
    found: dict[str, Any] = {"step_s": median(taken), "graph": pieces is not None}
    if static is not None and pieces is not None and static.buffered:
        static.settle()  # replays read the lists that a wave buffer still writes behind a step
        found["device_s"] = replayed(pieces, sizes.steps)
    return found


def replayed(pieces: Any, times: int) -> float:
    """Seconds a replay, one after the other: the host is ahead and costs nothing."""
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    first.record()
    for _ in range(times):
        pieces.replay()
    last.record()
    wait()
    return float(first.elapsed_time(last)) / 1e3 / times


def traffic(session: StoreSession, steps: int) -> dict[str, float]:
    """What a wave buffer found in its cache and brought over the bus; nothing elsewhere."""
    states: list[Any] = [state for layer in session.states for state in layer]
    seen = [getattr(getattr(state, "placement", None), "traffic", None) for state in states]
    counts = [each for each in seen if each is not None]
    hits, misses = (sum(getattr(c, f"{n}_entries") for c in counts) for n in ("hit", "miss"))
    if not hits + misses:
        return {}
    bus = sum(c.bus_bytes for c in counts) / steps / len(session.states)
    return {"hit ratio %": 100 * hits / (hits + misses), "bus MB a step and layer": bus / 1e6}


def head_s(base: Decoder, rows: int, vocabulary: int) -> float:
    """Seconds of the whole vocabulary's logits, from those of the part that is there."""
    head = base.module.lm_head
    x_BD = torch.zeros(rows, head.in_features, dtype=head.weight.dtype, device=head.weight.device)
    taken = []
    for _ in range(5):
        begun = wait()
        head(x_BD)
        taken.append(wait() - begun)
    return float(median(taken) * vocabulary / head.out_features)


def prefill_s(base: Decoder, tokens: int, sizes: Sizes) -> float:
    """Seconds in which the layers that are there read a prompt: its first and its last chunk are
    timed, and the ones between lie on the line through them.
    """
    chunk, taken = min(sizes.chunk, tokens // 2), []
    for before in (0, tokens - chunk):
        session, _ = filled(base, Full(), max(before, 1), 1, chunk)
        begun = wait()
        session.prefill([[5] * chunk])
        taken.append(wait() - begun)
    return tokens / chunk * sum(taken) / 2
