"""The cells of the table: one geometry, context, batch and method each."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, get_args

import torch
from model import CAPACITY, GEOMETRIES, decoder, filled
from stock import Stock, kernels
from timing import head_s, stepped, traffic, wait

from longspan.measures.memory import peak_host_bytes
from longspan.methods.full import Full
from longspan.methods.retrieval_attention import RetrievalAttention
from longspan.methods.retroinfer import RetroInfer
from longspan.models.compiled import NotCompiled
from longspan.models.decoder import Graphs, fixed_shapes
from longspan.placement.base import PlacementName
from longspan.studies.sizes import one_of

if TYPE_CHECKING:
    from longspan.models.decoder import Decoder
    from longspan.models.session import StoreSession

FITS = "largest"
CACHED = 0.06
"""Of keys and values in host memory, what their cache and its tables take near the model."""
SPARE = 0.9
"""Share of the memory that weights and caches may take."""


@dataclass(frozen=True)
class Sizes:
    """Defaults of the command line. `layers` are measured and scaled to those of the model;
    `warmup` may be 0; `memory_gb` 0: what the machine has; `batches`: numbers, or `largest`, the
    one that the whole model would hold, but `most`.
    """

    geometries: tuple[str, ...] = field(
        default=("llama3_8b", "qwen25_7b", "qwen25_72b"), metadata={"among": GEOMETRIES}
    )
    contexts: tuple[int, ...] = field(
        default=(30_000, 60_000, 120_000, 1_000_000), metadata={"least": 2}
    )
    batches: tuple[str, ...] = ("1", FITS)
    methods: tuple[str, ...] = ("full", "retroinfer", "retrieval_attention")
    """Kinds, or single rows such as retroinfer:gpu."""
    layers: int = 2
    warmup: int = field(default=3, metadata={"least": 0})
    steps: int = 24
    new: int = 100
    """Tokens of an answer, in the end-to-end time."""
    chunk: int = 8192
    device: str = field(default="auto", metadata={"among": ("auto", "cpu", "cuda")})
    memory_gb: float = field(default=0.0, metadata={"least": 0})
    most: int = 128
    graphs: str = field(default="auto", metadata={"among": get_args(Graphs)})
    """See Graphs; eager: the steps of a graph, without one, also on a CPU."""
    compile: str = field(default="no", metadata={"among": ("yes", "no")})
    """Whether layers are compiled, in steps of fixed shape, for every contender."""

    def __post_init__(self) -> None:
        for batch in self.batches:
            if batch != FITS and not re.fullmatch(r"[1-9]\d*", batch):
                raise ValueError(f"--batches = {batch!r}: right would be a number or {FITS}")
        if self.warmup + self.steps > CAPACITY:
            right = f"{CAPACITY} at most, with --warmup = {self.warmup} before them"
            raise ValueError(f"--steps = {self.steps}: right would be {right}")

    def here(self) -> Sizes:
        """With the device that `auto` is. Raises ValueError where there is none."""
        cuda = torch.cuda.is_available()
        if self.device == "cuda" and not cuda:
            raise ValueError("--device = 'cuda': there is none here; right would be cpu")
        device = ("cuda" if cuda else "cpu") if self.device == "auto" else self.device
        if self.graphs == "on" and device == "cpu":
            raise ValueError("--graphs = 'on': a CPU has none; right would be auto, off or eager")
        if self.compile == "yes" and not fixed_shapes(self.graphs, cuda=device == "cuda"):
            raise ValueError(
                f"--compile = 'yes': with --graphs = {self.graphs!r} no step has a fixed shape on"
                f" {device}; right would be --graphs eager"
            )
        return replace(self, device=device)

    def decoder(self, geometry: str) -> Decoder:
        """The layers that are measured."""
        compiled = self.compile == "yes"
        return decoder(geometry, self.layers, self.device, self.graphs, compiled=compiled)


Unit = tuple[str, int, str, str]
KINDS = {"retroinfer": RetroInfer, "retrieval_attention": RetrievalAttention}


def method(name: str, rows: int, capacity: int) -> Any:
    """By its name in the table: full:sdpa, retroinfer:cpu, ..."""
    kind, _, how = name.partition(":")
    if kind == "full":
        return Full() if how == "ours" else Stock(how, rows, capacity)
    return KINDS[kind](placement=how)  # type: ignore[call-arg]


def names(wanted: tuple[str, ...], device: str) -> list[str]:
    """Every method in every placement and kernel that makes a difference here. Raises ValueError
    for what is neither a method nor a single row.
    """
    every, full = get_args(PlacementName), ["ours", *kernels(device)]
    placements = every if device == "cuda" else ("cpu", "wave_buffer")
    ways: dict[str, Any] = {"full": full, "retroinfer": placements}
    for name in wanted:
        kind, colon, how = name.partition(":")
        possible = {"full": full, **dict.fromkeys(KINDS, every)}
        if kind not in possible:
            raise ValueError(f"--methods = {name!r}: right would be {one_of(possible)}")
        if colon and how not in possible[kind]:
            right = one_of(f"{kind}:{each}" for each in possible[kind])
            raise ValueError(f"--methods = {name!r}: right would be {kind}, {right} on {device}")
    return [
        name
        for kind in wanted
        for name in ([kind] if ":" in kind else [f"{kind}:{x}" for x in ways.get(kind, ("cpu",))])
    ]


def largest(name: str, geometry: str, kv: int, index: int, sizes: Sizes) -> int:
    """Rows that the memory of device and host holds of the whole model, where a row of a layer
    takes so many bytes of keys and values, and of its index.
    """
    shape = GEOMETRIES[geometry]
    memory = sizes.memory_gb * 1e9 or memory_bytes(sizes.device)
    near, host = kv + index, 0.0
    placement = name.split(":")[1] if sizes.device == "cuda" else ""
    if placement == "cpu":
        near, host = 0, kv + index
    if placement == "wave_buffer":
        near, host = index + round(CACHED * kv), kv
    rooms = ((SPARE * memory - shape.weight_bytes, near), (SPARE * memory_bytes("cpu"), host))
    fits = (room // (held * shape.layers) for room, held in rooms if held)
    return min(sizes.most, max(0, int(min(fits))))


def memory_bytes(device: str) -> int:
    """Of the device, or of the host."""
    if device == "cuda":
        return torch.cuda.get_device_properties(0).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def measure(unit: Unit, sizes: Sizes) -> list[dict[str, Any]]:
    """The row of one cell; what does not fit is a row that says so."""
    geometry, context, batch, name = unit
    torch._dynamo.reset()  # its limit of shapes is one of the process
    base = sizes.decoder(geometry)
    row: dict[str, Any] = {"geometry": geometry, "context": context, "asked": batch, "method": name}
    try:
        return [row | cell(unit, sizes, base, row)]
    except (torch.OutOfMemoryError, MemoryError) as error:
        return [{**row, "note": f"out of memory: {str(error)[:80]}"}]
    except (
        NotCompiled,
        torch._dynamo.exc.BackendCompilerFailed,
        torch._dynamo.exc.FailOnRecompileLimitHit,  # a shape a step, where there are no graphs
    ) as error:
        return [{**row, "note": f"does not compile here: {str(error).splitlines()[0][:80]}"}]


def cell(unit: Unit, sizes: Sizes, base: Decoder, row: dict[str, Any]) -> dict[str, Any]:
    """The columns of a row that is measured; fills `row` with the batch as soon as it is known."""
    geometry, context, batch, name = unit
    shape = GEOMETRIES[geometry]
    session, build_s = sealed(base, name, context, 1)
    memory = session.states[0][0].memory()
    fits = largest(name, geometry, memory["kv_bytes"], memory["index_bytes"], sizes)
    rows = fits if batch == FITS else int(batch)
    row |= {"largest batch": fits, "batch": rows}
    if not rows:
        return {"note": "no row fits beside the weights"}
    if rows > 1:
        del session
        session, build_s = sealed(base, name, context, rows)
    found = stepped(session, rows, sizes)
    part_s = head_s(base, rows, 1) * base.module.lm_head.out_features
    layer_s = (found["step_s"] - part_s) / sizes.layers
    whole_s = layer_s * shape.layers + head_s(base, rows, shape.vocabulary)
    host_s = found["step_s"] - found["device_s"] if "device_s" in found else None
    return {
        "graph": found["graph"],
        "measured ms a step": 1e3 * found["step_s"],
        "ms a layer": 1e3 * layer_s,
        "ms a step": 1e3 * whole_s,
        "tokens/s": rows / whole_s,
        "beside the kernels %": None if host_s is None else 100 * host_s / whole_s,
        "build s a prompt": build_s * shape.layers / sizes.layers,
        "KV GB a prompt": memory["kv_bytes"] * shape.layers / 1e9,
        "index GB a prompt": memory["index_bytes"] * shape.layers / 1e9,
        "peak host GB": peak_host_bytes() / 1e9,
        **traffic(session, sizes.warmup + sizes.steps),
        "note": "" if rows <= fits else "would not fit as a whole",
    }


def sealed(base: Decoder, name: str, context: int, rows: int) -> tuple[StoreSession, float]:
    """A session of contexts in place, and the seconds a row that its indexes took."""
    made = method(name, rows, context + CAPACITY)
    session, _ = filled(base, made, context, rows)
    begun = wait()
    for state in (state for layer in session.states for state in layer):
        state.seal()
    return session, (wait() - begun) / rows
