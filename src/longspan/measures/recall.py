"""The recall pass: what a method retrieves and how far its output is from full attention.

Teacher-forced: every method is fed the same tokens, those of the reference answer, so that their
queries can be compared.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch

from longspan.measures.base import feed
from longspan.measures.exact import compare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from longspan.measures.base import Subject
    from longspan.methods.base import LayerState
    from longspan.models.base import Model
    from longspan.types import Example, Partial

MEASURES = ("recall", "recovered_mass", "retrieved_mass", "estimated_mass", "output_error")


class Tally:
    """An observer that compares every step with full attention."""

    def __init__(self, model: Model, at: int) -> None:
        self.at = at
        self.by_layer: dict[int, dict[str, list[Tensor]]] = {}
        self._geometry = {geometry.layer: geometry for geometry in model.geometries}

    def __call__(
        self, layer: int, row: int, state: LayerState, q_HD: Tensor, partial: Partial
    ) -> None:
        """See models.base.Observer."""
        found = compare(self._geometry[layer], state, q_HD, partial, self.at)
        steps = self.by_layer.setdefault(layer, defaultdict(list))
        for name, value_H in found.items():
            steps[name].append(value_H.cpu())

    def table(self) -> dict[str, Any]:
        """Means over all layers, heads and steps, the worst twentieth, and means by layer and
        head.
        """
        layers = sorted(self.by_layer)
        steps = {
            name: [torch.stack(self.by_layer[layer][name]) for layer in layers]  # [steps, H]
            for name in MEASURES
        }
        flat = {name: torch.cat([each.flatten() for each in steps[name]]) for name in MEASURES}
        return {
            "layers": layers,
            "mean": {name: _mean(value) for name, value in flat.items()},
            "worst_5_percent": {name: _worst(name, value) for name, value in flat.items()},
            "by_layer_and_head": {
                name: [each.nanmean(0).tolist() for each in values]
                for name, values in steps.items()
            },
            "by_step": {
                name: torch.cat(values, dim=1).nanmean(1).tolist() for name, values in steps.items()
            },
        }


def recall(
    subject: Subject,
    examples: Sequence[Example],
    *,
    steps: int,
    at: int,
    done: Callable[[int], None] | None = None,
) -> dict[str, Any] | None:
    """The table of `examples`, `steps` teacher-forced tokens each; None where the method owns no
    layer.
    """
    tally = Tally(subject.model, at)
    fed = 0
    for count, (example, tokens) in enumerate(_lessons(subject.model, examples, steps), start=1):
        prompt = subject.encode(example, 0)
        if (most := subject.model.max_positions) is not None:
            tokens = tokens[: most - sum(map(len, prompt))]
        session, logits_BV = subject.read([prompt], len(tokens))
        session.observer = tally
        feed(session, logits_BV, [tokens])
        fed += len(tokens)
        if done is not None:
            done(count)
    if not tally.by_layer:
        return None
    return {"at": at, "examples": len(examples), "tokens": fed, **tally.table()}


def _lessons(
    model: Model, examples: Sequence[Example], steps: int
) -> Iterator[tuple[Example, list[int]]]:
    """Examples with the tokens of their reference answers, `steps` of them, repeated where
    short.
    """
    for example in examples:
        answer = " " + " ".join(example.references)
        ids = list(model.tokenizer(answer, add_special_tokens=False).input_ids)
        if ids:
            yield example, (ids * -(-steps // len(ids)))[:steps]


def _mean(value: Tensor) -> float | None:
    mean = float(value.nanmean())
    return None if mean != mean else mean


def _worst(name: str, value: Tensor) -> float | None:
    """The 5% quantile, or the 95% quantile of what should be small."""
    known = value[~value.isnan()]
    if not len(known):
        return None
    ordered = known.sort().values
    share = 0.95 if name == "output_error" else 0.05
    return float(ordered[round(share * (len(ordered) - 1))])
