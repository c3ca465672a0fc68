"""What this machine gives the kernels; tables of several machines can be joined. See README.md.

python experiments/hardware/study.py --out experiments/hardware
python experiments/hardware/study.py --join a.csv,b.csv --out .
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from longspan.studies.plots import MARKS, key, panels
from longspan.studies.study import Study, begin, launch, machine
from longspan.studies.timing import best_seconds
from longspan_kernels.dense_decode import dense_decode
from longspan_kernels.dispatch import native
from longspan_kernels.sparse_decode import sparse_decode
from longspan_kernels.types import Runs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
HEADS, GROUPS, WIDTH = 32, 8, 128
RUN_TOKENS = 16


@dataclass(frozen=True)
class Sizes:
    """Defaults of the command line; the shape is that of a layer of an 8B model."""

    tokens: int = field(default=32_768, metadata={"least": RUN_TOKENS})
    megabytes: int = 256
    """What is read or copied to find the bandwidth."""
    threads: tuple[int, ...] = field(default=(0,), metadata={"least": 0, "most": 1024})
    """0: 1, 2, 4 ... and as many as there are."""
    rounds: int = 25
    join: str = ""
    """Tables of other machines, comma-separated, in place of measuring."""


Call = tuple[str, str, int, "Callable[[], object]"]
"""What, dtype, bytes touched (or, of a product, operations), call."""


def memory(sizes: Sizes, device: torch.device, threads: int) -> list[Call]:
    """Reading and copying, with nothing else to do."""
    words = torch.ones(sizes.megabytes * 2**20 // 8, dtype=torch.int64, device=device)
    target = torch.empty_like(words)
    found: list[Call] = [("copy", "int64", 2 * words.nbytes, lambda: target.copy_(words))]
    if device.type == "cpu" and native is not None:
        read = partial(native.read, words, threads, "native")
        found.append(("read", "int64", words.nbytes, read))
    return found


def attention(sizes: Sizes, device: torch.device, threads: int) -> list[Call]:
    """Everything, and 5% of it in clusters, by dtype."""
    found: list[Call] = []
    wanted = max(1, sizes.tokens // 20 // RUN_TOKENS)
    start_GK = torch.stack(
        [torch.randperm(sizes.tokens // RUN_TOKENS)[:wanted] for _ in range(GROUPS)]
    )
    start_GK = (start_GK * RUN_TOKENS).int().to(device)
    runs = Runs(
        start_GK, torch.full_like(start_GK, RUN_TOKENS), torch.full_like(start_GK[:, 0], wanted)
    )
    rest: Any = {"scale": WIDTH**-0.5, "threads": threads}
    for name, dtype in DTYPES.items():
        shape = (2, GROUPS, sizes.tokens, WIDTH)
        keys_GTD, values_GTD = torch.randn(*shape, device=device).to(dtype)
        query = cycle(torch.randn(8, HEADS, WIDTH, device=device).to(dtype))

        def full(k: Tensor = keys_GTD, v: Tensor = values_GTD, q: Any = query) -> object:
            return dense_decode(next(q), k, v, **rest)

        def some(k: Tensor = keys_GTD, v: Tensor = values_GTD, q: Any = query) -> object:
            return sparse_decode(next(q), k, v, runs, **rest)

        read = 2 * GROUPS * wanted * RUN_TOKENS * WIDTH * dtype.itemsize
        found.append(("full attention", name, 2 * keys_GTD.nbytes, full))
        found.append(("5% in clusters", name, read, some))
    return found


def products(device: torch.device) -> list[Call]:
    """What prefill lives on."""
    size = 1024 if device.type == "cpu" else 8192
    found: list[Call] = []
    for name in ("float32", "bfloat16"):
        a = torch.randn(size, size, device=device).to(DTYPES[name])
        found.append(("matrix product", name, 2 * size**3, partial(torch.matmul, a, a)))
    return found


def measure(sizes: Sizes, device: torch.device, threads: int) -> list[dict[str, Any]]:
    """A row a call: thousand millions of bytes, or operations, a second."""
    torch.set_num_threads(threads)
    rows = []
    for make in (memory, attention):
        rows += timed(make(sizes, device, threads), sizes.rounds, device)
    rows += timed(products(device), sizes.rounds, device)
    names = {"machine": machine(), "device": device.type, "threads": threads}
    return [{**names, **row} for row in rows]


def timed(calls: list[Call], rounds: int, device: torch.device) -> list[dict[str, Any]]:
    """The best of calls that took turns."""

    def whole(call: Callable[[], object]) -> None:
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()

    acts = {f"{what} {dtype}": partial(whole, call) for what, dtype, _, call in calls}
    seconds = best_seconds(acts, rounds)
    return [
        {
            "what": what, "dtype": dtype, "ms": 1e3 * seconds[f"{what} {dtype}"],
            "giga_a_s": amount / seconds[f"{what} {dtype}"] / 1e9,
        }
        for what, dtype, amount, _ in calls
    ]  # fmt: skip


def rows(study: Study, sizes: Sizes) -> pd.DataFrame:
    """By device and number of threads."""
    most = torch.get_num_threads()
    counts = [n for n in sizes.threads if n] or sorted(
        {1, most, *(2**n for n in range(9) if 2**n < most)}
    )
    units = [("cpu", threads) for threads in counts]
    if torch.cuda.is_available():
        units.append(("cuda", most))
    with torch.inference_mode():
        return study.rows(
            units, lambda unit: measure(sizes, torch.device(unit[0]), unit[1]), model=None
        )


def joined(paths: Sequence[str]) -> pd.DataFrame:
    """Tables of other machines, one below the other. Raises ValueError for a file that is none."""
    frames = []
    for path in paths:
        frame = pd.read_csv(path)
        if not {"machine", "what", "dtype", "threads", "giga_a_s"} <= set(frame):
            raise ValueError(f"--join: {path} is no table.csv of this study")
        frames.append(frame)
    return pd.concat(frames, ignore_index=True).drop_duplicates()


def main(arguments: Sequence[str]) -> None:
    """Measure, or join, and write table and figure."""
    study, sizes = begin(__file__, __doc__, Sizes(), arguments)
    frame = joined(sizes.join.split(",")) if sizes.join else rows(study, sizes)
    frame["where"] = frame["machine"] + ", " + frame["device"]
    kinds = [name for name in dict.fromkeys(frame["what"]) if name != "matrix product"]
    figure, grid = panels(len(kinds), width=2.6)
    for axes, kind in zip(grid, kinds, strict=True):
        each = frame[frame["what"] == kind]
        for place, ((where, dtype), line) in enumerate(
            each.groupby(["where", "dtype"], sort=False)
        ):
            label = dtype if frame["where"].nunique() == 1 else f"{where}, {dtype}"
            axes.plot(
                line["threads"], line["giga_a_s"], marker=MARKS[place % 10], ms=4, label=label
            )
        axes.set(title=kind, xlabel="threads", ylabel="GB/s")
        axes.set_xticks(sorted(set(each["threads"])))
        axes.set_ylim(bottom=0)
        key(axes)
    study.save(hardware=figure)
    shown = frame.pivot_table(
        index=["where", "what", "dtype"], columns="threads", values="giga_a_s", sort=False
    )
    shown.columns = [f"{each} threads" for each in shown.columns]
    about = f"{sizes.tokens} tokens, {HEADS} heads on {GROUPS} KV heads of {WIDTH}"
    title = "GB a second (of matrix products: thousand million operations)"
    study.table(frame.drop(columns="where").round(4), about, {title: shown.reset_index()})


if __name__ == "__main__":
    sys.exit(launch(main))
