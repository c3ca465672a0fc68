"""FAISS itself, imported when it is needed, and the files of its indexes."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from longspan.indexes.files import read_facts, write_facts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

KIND, VERSION = "longspan.faiss", "1"
FaissDevice = Literal["cpu", "gpu"]
"""Where FAISS searches; it builds on the CPU."""
MOST_ON_GPU = 2048
"""Keys that FAISS finds for a query on a GPU at most."""


def import_faiss() -> Any:
    """The faiss module. Raises ValueError naming the extra that brings it."""
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise ValueError(
            "faiss is not installed; this index needs it: pip install 'longspan[faiss]', or"
            " faiss-gpu from conda on a CUDA machine"
        ) from error


def check_device(device: FaissDevice) -> None:
    """ValueError where FAISS cannot search there."""
    if device not in get_args(FaissDevice):
        raise ValueError(
            f"method.device is {device!r}; right is one of {', '.join(get_args(FaissDevice))}"
        )
    faiss = import_faiss()
    if device == "gpu" and not hasattr(faiss, "StandardGpuResources"):
        raise ValueError(
            "method.device is 'gpu', but this faiss is built for CPUs; use method.device=cpu, or"
            " faiss-gpu from conda"
        )
    if device == "gpu" and not faiss.get_num_gpus():
        raise ValueError("method.device is 'gpu', but faiss finds no GPU; use method.device=cpu")


@dataclass(frozen=True, slots=True)
class Stretch:
    """The FAISS index of one KV head over `tokens` keys, and what makes its scores inner
    products.
    """

    index: Any
    tokens: int
    mean_D: Tensor | None = None
    """Taken off the keys before they were added."""
    square_radius: float | None = None
    """Squared norm to which the keys were lengthened, where distance stands for product."""
    on_gpu: Any = None
    """A copy of `index` that is searched in its place."""


def placed(stretch: Stretch, device: FaissDevice) -> Stretch:
    """The stretch where it is to be searched."""
    if device == "cpu":
        return stretch
    faiss = import_faiss()
    resources = faiss.StandardGpuResources()
    return replace(stretch, on_gpu=faiss.index_cpu_to_gpu(resources, 0, stretch.index))


def written_size(stretch: Stretch) -> int:
    """Bytes of the index as FAISS would write it."""
    faiss = import_faiss()
    counter = faiss.VectorIOWriter()
    faiss.write_index(stretch.index, counter)
    return int(counter.data.size())


def write(
    folder: Path,
    stretches_NG: Sequence[Sequence[Stretch]],
    kind: str,
    first_slot: int,
    facts: dict[str, Any],
) -> None:
    """Write FAISS's own files and one about them all."""
    faiss = import_faiss()
    folder.mkdir(parents=True, exist_ok=True)
    about = []
    for n, made in enumerate(stretches_NG):
        for g, stretch in enumerate(made):
            faiss.write_index(stretch.index, str(folder / f"{n}_{g}.faiss"))
            mean = None if stretch.mean_D is None else stretch.mean_D.tolist()
            about.append([stretch.tokens, mean, stretch.square_radius])
    head = {
        "facts": facts,
        "first_slot": first_slot,
        "groups": len(stretches_NG[0]),
        "stretches": about,
    }
    write_facts(folder, f"{KIND}.{kind}", VERSION, head)


def read(folder: Path, kind: str) -> tuple[tuple[tuple[Stretch, ...], ...], int, dict[str, Any]]:
    """Stretches, first slot and facts that `write` wrote. Raises ValueError naming a file that is
    not what it should be.
    """
    head = read_facts(folder, f"{KIND}.{kind}", VERSION)
    groups: int = head["groups"]
    stretches = [
        Stretch(
            read_faiss(folder / f"{i // groups}_{i % groups}.faiss", tokens),
            tokens,
            None if mean is None else torch.tensor(mean),
            radius,
        )
        for i, (tokens, mean, radius) in enumerate(head["stretches"])
    ]
    rows = range(0, len(stretches), groups)
    return tuple(tuple(stretches[n : n + groups]) for n in rows), head["first_slot"], head["facts"]


def read_faiss(path: Path, tokens: int) -> Any:
    """FAISS's own file."""
    try:
        index = import_faiss().read_index(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ValueError(
            f"{path} is no FAISS file: {reason}; it should be what `save` wrote"
        ) from error
    if index.ntotal != tokens:
        raise ValueError(f"{path} holds {index.ntotal} keys; it should hold {tokens}")
    return index
