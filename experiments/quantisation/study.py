"""What keys and values of fewer bits cost, and save. See README.md.

python experiments/quantisation/study.py --out experiments/quantisation
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from longspan.methods.full import Full
from longspan.studies.plots import key, panels
from longspan.studies.quantised import FORMATS, WHICH, Quantised
from longspan.studies.scored import compared, scored
from longspan.studies.study import Study, begin, launch
from longspan.studies.timing import best_seconds
from longspan.studies.trace import Trace
from longspan_kernels.dense_decode import dense_decode

sys.path.append(str(Path(__file__).parents[2] / "kernels" / "bench"))
from inputs import topic_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from torch import Tensor

    from longspan.methods.base import Method
    from longspan.types import LayerGeometry


BASE = ("not rounded", "both")


@dataclass(frozen=True)
class Sizes:
    """Defaults of the command line."""

    tasks: tuple[str, ...] = ("ruler_niah_multikey_1", "ruler_niah_multiquery")
    ctx: int = 4096
    examples: int = 6
    replayed: int = 2
    steps: int = 16
    answer: int = 64
    """Tokens of an answer at most: a wrong one would go on to what the task allows."""
    timed: int = 65_536
    """Tokens of a layer of an 8B model's shape that is timed."""
    rounds: int = 40


def methods() -> dict[tuple[str, str], Method]:
    """By format and what it holds."""
    found: dict[tuple[str, str], Method] = {BASE: Full()}
    for form in FORMATS:
        for which in WHICH:
            found[form.name, which] = Quantised(form, which)
    return found


def errors(method: Method, trace: Trace) -> dict[str, float]:
    """Of the output, and of the attention: the mass that moved."""
    state = trace.state(method)
    error, moved = 0.0, 0.0
    for step, (q_HD, right) in enumerate(trace.steps):
        token = trace.prompt + step
        state.append(trace.k_GTD[:, token], trace.v_GTD[:, token])
        out_HD = state.decode(q_HD).out
        error += float(((out_HD - right.out).norm(dim=-1) / right.out.norm(dim=-1)).mean())
        keys_GTD = torch.cat([part.keys_GTD for part in state.store.parts], dim=1)
        twin = Trace(trace.geometry, keys_GTD, keys_GTD, [(q_HD, state.decode(q_HD))])
        difference_HT = twin.weights_HT(0) - trace.weights_HT(step)
        moved += float(difference_HT.abs().sum(-1).mean()) / 2
    return {"error": error / len(trace.steps), "moved": moved / len(trace.steps)}


def times(tokens: int, rounds: int) -> list[dict[str, Any]]:
    """Milliseconds of attending all tokens of a layer, where a kernel reads the format."""
    keys_GTD = topic_keys(8, tokens, 128)[0]
    queries = cycle(torch.randn(8, 32, 128).bfloat16())
    inputs: dict[str, dict[str, Tensor]] = {
        "float32": {"keys_GTD": keys_GTD.float()},
        "bfloat16": {"keys_GTD": keys_GTD},
        "float16": {"keys_GTD": keys_GTD.half()},
    }
    scale_GT = keys_GTD.float().abs().amax(-1) / 127
    codes_GTD = (keys_GTD.float() / scale_GT[..., None]).round().to(torch.int8)
    inputs["int8"] = {"keys_GTD": codes_GTD, "scale_GT": scale_GT}

    def call(given: dict[str, Tensor]) -> Callable[[], object]:
        keys_GTD, scales = given["keys_GTD"], given.get("scale_GT")
        return lambda: dense_decode(
            next(queries),
            keys_GTD,
            keys_GTD,
            scale=128**-0.5,
            key_scale_GT=scales,
            value_scale_GT=scales,
        )

    calls = {name: call(given) for name, given in inputs.items()}
    seconds = best_seconds(calls, rounds)
    return [{"group": name, "value": "both", "ms": 1e3 * taken} for name, taken in seconds.items()]


def rows(study: Study, sizes: Sizes) -> tuple[pd.DataFrame, LayerGeometry]:
    """All tasks and examples, then the times; and a layer of the model."""
    limit = {"generation.max_new_tokens": sizes.answer}
    runs = [
        study.run(task=each, ctx=sizes.ctx, samples=sizes.examples, **limit) for each in sizes.tasks
    ]

    def unit(which: Sequence[int]) -> list[dict[str, Any]]:
        if not which:
            return times(sizes.timed, sizes.rounds)
        task, number = which
        asked = errors if number < sizes.replayed else None
        return scored(runs[task], number, methods(), asked, sizes.steps)

    units: list[Sequence[int]] = [
        (task, number) for number in range(sizes.examples) for task in range(len(runs))
    ]
    with torch.inference_mode():
        frame = study.rows([*units, ()], unit, model=runs[0].model)
    return frame, runs[0].model.geometries[0]


def summary(frame: pd.DataFrame, layer: LayerGeometry) -> pd.DataFrame:
    """A row a format and what it holds."""
    names = {"group": "format", "value": "of"}
    own = frame["task"].notna()
    timed = frame[~own].rename(columns=names)[["format", "of", "ms"]]
    shown = compared(frame[own].drop(columns="ms"), BASE, "difference").rename(columns=names)
    shown = shown.merge(timed, how="outer", on=["format", "of"])
    whole = 8.0 * layer.dtype.itemsize
    bits = {
        BASE[0]: whole,
        "float32": 32.0,
        **{form.name: form.bits(layer.head_size) for form in FORMATS},
    }
    both = shown["format"].map(bits)
    # what is not rounded stays as it is
    shown["bits a number"] = both.where(shown["of"] == "both", (both + whole) / 2)
    shown["output error %"] = 100 * shown["error"]
    shown["attention moved %"] = 100 * shown["moved"]
    shown["order"] = shown["format"].map(list(bits).index)
    columns = ["bits a number", "output error %", "attention moved %", "score", "difference", "ms"]
    return shown.sort_values(["order", "of"])[["format", "of", *columns]]


def main(arguments: Sequence[str]) -> None:
    """Measure what is missing, write table and figure."""
    study, sizes = begin(__file__, __doc__, Sizes(), arguments)
    frame, layer = rows(study, sizes)
    shown = summary(frame, layer)
    figure, grid = panels(2)
    for axes, value in zip(grid, ("output error %", "score"), strict=True):
        for which in WHICH:
            each = shown[(shown["of"] == which) & shown["output error %"].gt(0)]
            axes.plot(each["format"], each[value], marker="o", ms=4, lw=1, label=which)
        axes.set(ylabel=value)
        axes.tick_params(axis="x", labelrotation=30)
    grid[0].set_yscale("log")
    key(grid[0])
    study.save(quantisation=figure)
    about = (
        f"{', '.join(sizes.tasks)}; {sizes.ctx} tokens, {sizes.examples} examples each, errors of "
        f"{sizes.replayed}; ms: full attention over {sizes.timed} tokens, 32 heads on 8 KV heads "
        f"of 128, {torch.get_num_threads()} threads"
    )
    study.table(frame.round(5), about, {"By format": shown})


if __name__ == "__main__":
    sys.exit(launch(main))
