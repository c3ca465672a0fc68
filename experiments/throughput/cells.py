"""The cells of the table: one geometry, context, batch and method each."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, get_args

import torch
from model import GEOMETRIES, decoder, filled
from stock import Stock, kernels

from longspan.measures.memory import peak_host_bytes
from longspan.methods.full import Full
from longspan.methods.retrieval_attention import RetrievalAttention
from longspan.methods.retroinfer import RetroInfer
from longspan.placement.base import PlacementName

if TYPE_CHECKING:
    from longspan.models.decoder import Decoder
    from longspan.models.session import StoreSession

FITS = "largest"
SPARE = 0.9
"""Share of the memory that weights and caches may take."""


@dataclass(frozen=True)
class Sizes:
    """Defaults of the command line. `layers` are measured and scaled to those of the model;
    `memory_gb` 0: what the machine has; `batches`: numbers, or `largest`, the one that the whole
    model would hold, but `most`.
    """

    geometries: tuple[str, ...] = ("llama3_8b", "qwen25_7b", "qwen25_72b")
    contexts: tuple[int, ...] = (30_000, 60_000, 120_000, 1_000_000)
    batches: tuple[str, ...] = ("1", FITS)
    methods: tuple[str, ...] = ("full", "retroinfer", "retrieval_attention")
    layers: int = 2
    warmup: int = 3
    steps: int = 24
    new: int = 100
    """Tokens of an answer, in the end-to-end time."""
    chunk: int = 8192
    device: str = "auto"
    memory_gb: float = 0.0
    most: int = 128


Unit = tuple[str, int, str, str]


def method(name: str, rows: int, capacity: int) -> Any:
    """By its name in the table: full:sdpa, retroinfer:cpu, ..."""
    kind, _, how = name.partition(":")
    if kind == "full":
        return Full() if how == "ours" else Stock(how, rows, capacity)
    made = {"retroinfer": RetroInfer, "retrieval_attention": RetrievalAttention}[kind]
    return made(placement=how)  # type: ignore[call-arg]


def names(wanted: tuple[str, ...], device: str) -> list[str]:
    """Every method in every placement and kernel that makes a difference here."""
    placements = get_args(PlacementName) if device == "cuda" else ("cpu", "wave_buffer")
    ways: dict[str, Any] = {"full": ["ours", *kernels(device)], "retroinfer": placements}
    return [f"{kind}:{how}" for kind in wanted for how in ways.get(kind, ("cpu",))]


def wait() -> float:
    """The time, when every device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def stepped(session: StoreSession, rows: int, sizes: Sizes) -> float:
    """Median seconds of a decode step of the batch."""
    taken = []
    for step in range(sizes.warmup + sizes.steps):
        begun = wait()
        session.decode([(7 * step + row) % 400 for row in range(rows)])
        if step >= sizes.warmup:
            taken.append(wait() - begun)
    return median(taken)


def head_s(base: Decoder, rows: int, vocabulary: int) -> float:
    """Seconds of the whole vocabulary's logits, from those of the part that is there."""
    head = base.module.lm_head
    x_BD = torch.zeros(rows, head.in_features, dtype=head.weight.dtype, device=head.weight.device)
    taken = []
    for _ in range(5):
        begun = wait()
        head(x_BD)
        taken.append(wait() - begun)
    return median(taken) * vocabulary / head.out_features


def prefill_s(base: Decoder, tokens: int, sizes: Sizes) -> float:
    """Seconds in which the layers that are there read a prompt: its first and its last chunk are
    timed, and the ones between lie on the line through them.
    """
    chunk, taken = min(sizes.chunk, tokens // 2), []
    for before in (0, tokens - chunk):
        session, _ = filled(base, Full(), max(before, 1), 1)
        begun = wait()
        session.prefill([[5] * chunk])
        taken.append(wait() - begun)
    return tokens / chunk * sum(taken) / 2


def largest(name: str, geometry: str, held: int, sizes: Sizes) -> int:
    """Rows that the whole model's memory holds, where a row of a layer takes `held` bytes."""
    shape = GEOMETRIES[geometry]
    memory = sizes.memory_gb * 1e9 or memory_bytes(sizes.device)
    elsewhere = sizes.device == "cuda" and name.split(":")[1] in ("cpu", "wave_buffer")
    room = SPARE * memory_bytes("cpu") if elsewhere else SPARE * memory - shape.weight_bytes
    return min(sizes.most, max(0, int(room // (held * shape.layers))))


def memory_bytes(device: str) -> int:
    """Of the device, or of the host."""
    if device == "cuda":
        return torch.cuda.get_device_properties(0).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def measure(unit: Unit, sizes: Sizes) -> list[dict[str, Any]]:
    """The row of one cell; what does not fit is a row that says so."""
    geometry, context, batch, name = unit
    shape, base = GEOMETRIES[geometry], decoder(unit[0], sizes.layers, sizes.device)
    row = {"geometry": geometry, "context": context, "asked": batch, "method": name}
    try:
        one, _ = filled(base, method(name, 1, context + 256), context, 1)
        one.states[0][0].seal()
        memory = one.states[0][0].memory()
        fits = largest(name, geometry, sum(memory.values()), sizes)
        rows = fits if batch == FITS else int(batch)
        row |= {"largest batch": fits, "batch": rows}
        if not rows:
            return [{**row, "note": "no row fits beside the weights"}]
        del one
        session, _ = filled(base, method(name, rows, context + 256), context, rows)
        begun = wait()
        for state in (state for layer in session.states for state in layer):
            state.seal()
        build_s = (wait() - begun) / rows * shape.layers / sizes.layers
        step_s, part_s = (
            stepped(session, rows, sizes),
            head_s(base, rows, 1) * base.module.lm_head.out_features,
        )
    except (torch.OutOfMemoryError, MemoryError) as error:
        return [{**row, "note": f"out of memory: {str(error)[:80]}"}]
    layer_s = (step_s - part_s) / sizes.layers
    whole_s = layer_s * shape.layers + head_s(base, rows, shape.vocabulary)
    return [
        {
            **row,
            "measured ms a step": 1e3 * step_s,
            "ms a layer": 1e3 * layer_s,
            "ms a step": 1e3 * whole_s,
            "tokens/s": rows / whole_s,
            "build s a prompt": build_s,
            "KV GB a prompt": memory["kv_bytes"] * shape.layers / 1e9,
            "index GB a prompt": memory["index_bytes"] * shape.layers / 1e9,
            "peak host GB": peak_host_bytes() / 1e9,
            "note": "" if rows <= fits else "would not fit as a whole",
        }
    ]
