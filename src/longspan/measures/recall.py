"""The recall pass: what a method retrieves and how far its output is from full attention.

Teacher-forced, every method is fed the same tokens, those of the reference answer, so that their
queries can be compared. Or it goes on with the tokens that it chooses itself, for the drift of an
index that a long answer keeps changing.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch

from longspan.measures.exact import compare
from longspan.measures.stretches import stretches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from longspan.measures.base import Subject, Voice
    from longspan.methods.base import LayerState
    from longspan.models.base import Model, Session
    from longspan.types import Example, Partial

MEASURES = ("recall", "recovered_mass", "retrieved_mass", "estimated_mass", "output_error")


class Tally:
    """An observer that compares every step with full attention."""

    def __init__(self, model: Model, at: int) -> None:
        self.at = at
        self.steps: list[int] = []
        """Of each observation, in their order."""
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
        seen = {name: torch.cat(values, dim=1) for name, values in steps.items()}
        places: dict[int, list[int]] = {step: [] for step in sorted(set(self.steps))}
        for place, step in enumerate(self.steps):
            places[step].append(place)
        return {
            "layers": layers,
            "mean": {name: _mean(value) for name, value in flat.items()},
            "worst_5_percent": {name: _worst(name, value) for name, value in flat.items()},
            "by_layer_and_head": {
                name: [each.nanmean(0).tolist() for each in values]
                for name, values in steps.items()
            },
            "steps": list(places),
            "by_step": {
                name: [_mean(value[rows]) for rows in places.values()]
                for name, value in seen.items()
            },
            "by_stretch": [
                {**bounds, **{name: _mean(value[rows]) for name, value in seen.items()}}
                for bounds, rows in stretches(self.steps)
            ],
        }


def recall(
    subject: Subject,
    examples: Sequence[Example],
    *,
    steps: int,
    at: int,
    every: int = 1,
    voice: Voice | None = None,
    done: Callable[[int], None] | None = None,
) -> dict[str, Any] | None:
    """The table of `examples`, `steps` tokens each, of which each `every`th is observed; None where
    the method owns no layer.

    The tokens are those of the reference answer, or what `voice` chooses.
    """
    tally = Tally(subject.model, at)
    fed = 0
    for count, example in enumerate(examples, start=1):
        session, moves = _moves(subject, example, steps, voice)
        for step in range(steps):
            session.observer = None if step % every else tally
            if next(moves, None) is None:
                break
            fed += 1
            if session.observer is not None:
                tally.steps.append(step)
        if done is not None:
            done(count)
    if not tally.by_layer:
        return None
    return {"at": at, "examples": len(examples), "tokens": fed, **tally.table()}


def _moves(
    subject: Subject, example: Example, steps: int, voice: Voice | None
) -> tuple[Session, Iterator[object]]:
    """A session that has read the prompt, and what decodes one more token of it at every `next`."""
    prompt = subject.encode(example, 0)
    length = sum(map(len, prompt))
    if (most := subject.model.max_positions) is not None:
        steps = min(steps, most - length)
    session, logits_BV = subject.read([prompt], steps)
    if voice is None:
        lesson = _lesson(subject.model, example, steps)
        return session, (session.decode([token]) for token in lesson)
    stream = voice.stream(
        prompt_tokens=length, max_new_tokens=steps + 1, key=f"{example.id}/recall"
    )
    moves = voice.generate(session, logits_BV, [stream])
    next(moves)  # the first token comes from the prompt
    return session, moves


def _lesson(model: Model, example: Example, steps: int) -> list[int]:
    """The tokens of the reference answer, `steps` of them, repeated where short."""
    answer = " " + " ".join(example.references)
    ids = list(model.tokenizer(answer, add_special_tokens=False).input_ids)
    return (ids * -(-steps // len(ids)))[:steps] if ids else []


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
