"""What each option of the wave index is worth, on one and the same trajectory of queries.

A model reads examples with full attention; every variant then reads the very same queries, keys and
values, so that errors of lower layers do not mix in. See README.md.

    python experiments/wave_ablations/study.py model=nano task=ruler_vt ctx=8k samples=2
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from longspan.measures.base import Subject, feed
from longspan.methods.full import Full
from longspan.methods.oracle_topk import OracleTopK
from longspan.methods.oracle_topp import OracleTopP
from longspan.methods.retroinfer import RetroInfer
from longspan.runner import Run, prepare
from longspan.screen import Screen
from longspan.types import LayerGeometry, Partial
from longspan.workbench import Workbench

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from longspan.methods.base import LayerState, Method

CONF = Path(__file__).parents[2] / "conf"
STEPS = 32
PAPER = RetroInfer()
VARIANTS: dict[str, Method] = {
    "the paper's": PAPER,
    "no estimation": replace(PAPER, estimation="none"),
    "gaussian estimation": replace(PAPER, estimation="gaussian"),
    "tail": replace(PAPER, tail="segment_mean"),
    "gaussian, tail": replace(PAPER, estimation="gaussian", tail="segment_mean"),
    "estimation 8.2%": replace(PAPER, estimation_budget=0.082),
    "estimation 8.2%, tail": replace(PAPER, estimation_budget=0.082, tail="segment_mean"),
    "estimation 98.2%": replace(PAPER, estimation_budget=0.982),
    "vote sized": replace(PAPER, vote="sized"),
    "vote unmet": replace(PAPER, vote="unmet"),
    "vote max": replace(PAPER, vote="max"),
    "global assignment": replace(PAPER, final_assignment="global"),
    "4 rounds": replace(PAPER, kmeans_rounds=4),
    "segments of 2k": replace(PAPER, segment_tokens=2048),
    "8 tokens a cluster": replace(PAPER, tokens_per_cluster=8),
    "32 tokens a cluster": replace(PAPER, tokens_per_cluster=32),
    "retrieval 5%": replace(PAPER, retrieval_budget=0.05),
    "retrieval 10%": replace(PAPER, retrieval_budget=0.1),
    "retrieval 20%": replace(PAPER, retrieval_budget=0.2),
    "coverage 0.8": replace(PAPER, coverage=0.8),
    "coverage 0.9": replace(PAPER, coverage=0.9),
    "coverage 0.95": replace(PAPER, coverage=0.95),
    "exact top 1.8%": OracleTopK(),
    "exact top 10%": OracleTopK(budget=0.1),
    "exact mass 0.9": OracleTopP(coverage=0.9),
}


@dataclass(frozen=True)
class Layer:
    """One layer of one example: K and V of the prompt and the answer, and the answer's steps."""

    geometry: LayerGeometry
    k_GTD: Tensor
    v_GTD: Tensor
    steps: list[tuple[Tensor, Partial]]
    """Query and full attention, step by step."""


class Recorder:
    """An observer that keeps queries and results."""

    def __init__(self) -> None:
        self.steps: dict[int, list[tuple[Tensor, Partial]]] = {}

    def __call__(
        self, layer: int, row: int, state: LayerState, q_HD: Tensor, partial: Partial
    ) -> None:
        """See models.base.Observer."""
        kept = Partial(partial.out.clone(), partial.lse.clone())
        self.steps.setdefault(layer, []).append((q_HD.clone(), kept))


def layers(run: Run) -> Iterator[Layer]:
    """Read the examples with full attention, the reference answers as their continuation."""
    subject = Subject(model=run.model, method=Full(), protocol="question_dense")
    for example in run.examples:
        answer = " " + " ".join(example.references)
        tokens = list(run.model.tokenizer(answer, add_special_tokens=False).input_ids)
        tokens = (tokens * (STEPS // len(tokens) + 1))[:STEPS]
        session, logits_BV = subject.read([run.model.encode(example)], STEPS)
        recorder = Recorder()
        session.observer = recorder
        feed(session, logits_BV, [tokens])
        for geometry, states in zip(run.model.geometries, session.states, strict=True):
            parts = states[0].store.parts
            k_GTD = torch.cat([part.keys_GTD for part in parts], dim=1)
            v_GTD = torch.cat([part.values_GTD for part in parts], dim=1)
            yield Layer(geometry, k_GTD, v_GTD, recorder.steps[geometry.layer])


def replay(method: Method, layer: Layer) -> dict[str, float]:
    """Means over steps and heads of what the method reads and how far it is from full attention."""
    state = method.layer(layer.geometry)
    prompt = layer.k_GTD.shape[1] - len(layer.steps)
    state.store.append(layer.k_GTD[:, :prompt], layer.v_GTD[:, :prompt])
    state.seal()
    sums = dict.fromkeys(("exact", "estimated", "error", "bias"), 0.0)
    for step, (q_HD, right) in enumerate(layer.steps):
        state.append(layer.k_GTD[:, prompt + step], layer.v_GTD[:, prompt + step])
        found, work = state.decode(q_HD), state.work()
        error_H = (found.out - right.out).norm(dim=-1) / right.out.norm(dim=-1)
        sums["exact"] += work.exact_tokens / (prompt + step + 1)
        sums["estimated"] += work.estimated_tokens / (prompt + step + 1)
        sums["error"] += float(error_H.mean())
        sums["bias"] += float((found.lse - right.lse).mean())
    return {name: total / len(layer.steps) for name, total in sums.items()}


def compose(overrides: list[str]) -> Mapping[str, Any]:
    """The configuration of run.py."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [*overrides, "method=full", "recorder=local"])
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return {name: value for name, value in plain.items() if name != "hydra"}


def main(overrides: list[str]) -> None:
    """Print the table, in Markdown."""
    run = prepare(compose(overrides), Workbench(), Screen())
    with torch.inference_mode():
        read = list(layers(run))
        print(f"{run.model.name}, {run.task.label}, {read[0].k_GTD.shape[1]} tokens,", end=" ")
        print(f"{len(run.examples)} examples, {len(run.model.geometries)} layers, {STEPS} steps\n")
        print("| variant | read exactly % | estimated % | output error % | bias of ln mass |")
        print("|---|---:|---:|---:|---:|")
        for name, method in VARIANTS.items():
            found = [replay(method, layer) for layer in read]
            mean = {key: sum(each[key] for each in found) / len(found) for key in found[0]}
            exact, estimated, error = (100 * mean[k] for k in ("exact", "estimated", "error"))
            print(f"| {name} | {exact:.1f} | {estimated:.1f} | {error:.1f} | {mean['bias']:+.2f} |")


if __name__ == "__main__":
    main(sys.argv[1:])
