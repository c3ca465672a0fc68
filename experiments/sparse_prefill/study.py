"""What a sparse prefill leaves out of the attention, and the time that it takes. See README.md.

python experiments/sparse_prefill/study.py --out experiments/sparse_prefill
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from longspan.measures.base import Subject
from longspan.methods.full import Full
from longspan.prefill.base import Prefill
from longspan.prefill.full import FullPrefill
from longspan.prefill.minference import MInference
from longspan.prefill.xattention import XAttention
from longspan.studies.plots import curves, panels
from longspan.studies.study import begin, launch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from longspan.placement.part import Part
    from longspan.runner import Run
    from longspan.types import LayerGeometry, Partial

# The authors' budgets are for 128k and more: a sixteenth to a ninth of them for 8k to 32k.
SHORT = {
    "vertical_tokens": 64, "slash_tokens": 384, "init_tokens": 64, "local_tokens": 384, "blocks": 8,
}  # fmt: skip
PREFILLS: dict[str, Prefill] = {
    "xattention 0.8": XAttention(threshold=0.8),
    "xattention 0.9": XAttention(threshold=0.9),
    "xattention 0.95": XAttention(threshold=0.95),
    "xattention 0.9, stride 16": XAttention(threshold=0.9, stride=16),
    "minference, small": MInference(**SHORT),  # type: ignore[arg-type]
    "vertical-slash, small": MInference(**SHORT, pattern="vertical_slash"),
    "A-shape, small": MInference(**SHORT, pattern="a_shape"),
    "block-sparse, small": MInference(**SHORT, pattern="block_sparse"),
    "minference": MInference(),
}


@dataclass(frozen=True)
class Sizes:
    """Defaults of the command line."""

    ctx: tuple[int, ...] = (8192, 16384, 32768)
    task: str = "ruler_niah_multikey_1"
    examples: int = 2


@dataclass
class Measured(Prefill):
    """Attends a chunk both ways and goes on with the full one, so that errors do not add up."""

    name: ClassVar[str] = "measured"

    sparse: Prefill
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(
        ("mass", "worst", "error", "full_s", "sparse_s", "chunks"), 0.0
    ))  # fmt: skip

    def attend(
        self, geometry: LayerGeometry, q_HQD: Tensor, chunk: Part, past: Iterable[Part]
    ) -> Partial:
        """See Prefill."""
        parts = list(past)
        begun = time.perf_counter()
        right = FullPrefill().attend(geometry, q_HQD, chunk, parts)
        between = time.perf_counter()
        found = self.sparse.attend(geometry, q_HQD, chunk, parts)
        self.sums["sparse_s"] += time.perf_counter() - between
        self.sums["full_s"] += between - begun
        mass_H = (found.lse - right.lse).exp().mean(1)
        error_HQ = (found.out - right.out).norm(dim=-1) / right.out.norm(dim=-1)
        self.sums["mass"] += float(mass_H.mean())
        self.sums["worst"] += float(mass_H.min())
        self.sums["error"] += float(error_HQ.mean())
        self.sums["chunks"] += 1
        return right


def measure(run: Run, name: str) -> list[dict[str, Any]]:
    """Means over layers, chunks and examples."""
    measured = Measured(PREFILLS[name])
    for example in run.examples:
        subject = Subject(
            model=run.model, method=Full(), protocol="question_dense", prefill=measured
        )
        subject.read([subject.encode(example, 1)], 1)
    sums = measured.sums
    mean = {key: sums[key] / sums["chunks"] for key in ("mass", "worst", "error")}
    return [
        {
            "context": run.request.ctx,
            "prefill": name,
            "mass recovered %": 100 * mean["mass"],
            "of the worst head %": 100 * mean["worst"],
            "output error %": 100 * mean["error"],
            "attention s": sums["sparse_s"] / len(run.examples),
            "full attention s": sums["full_s"] / len(run.examples),
            "faster": sums["full_s"] / sums["sparse_s"],
        }
    ]


def main(arguments: list[str]) -> None:
    """Measure what is missing; write table and figure."""
    study, sizes = begin(__file__, __doc__, Sizes(), arguments)
    units = [(ctx, name) for ctx in sizes.ctx for name in PREFILLS]
    with torch.inference_mode():
        runs = {
            ctx: study.run(method="full", task=sizes.task, ctx=ctx, samples=sizes.examples)
            for ctx in sizes.ctx
        }
        model = runs[sizes.ctx[0]].model
        frame = study.rows(units, lambda unit: measure(runs[unit[0]], unit[1]), model=model)
    figure, (left, right) = panels(2)
    curves(left, frame, "context", "mass recovered %", "prefill")
    curves(right, frame, "context", "faster", "prefill")
    right.legend()
    study.save(figure=figure)
    about = f"{model.name}, {sizes.task}, {sizes.examples} examples a context"
    study.table(frame, about, {"Attention of a prompt, all layers": frame})


if __name__ == "__main__":
    sys.exit(launch(main))
