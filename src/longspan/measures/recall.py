"""The recall pass: what a method retrieves and how far its output is from full attention.

Teacher-forced, every method is fed the same tokens, those of the reference answer, so that their
queries can be compared. Or it goes on with the tokens that it chooses itself, for the drift of an
index that a long answer keeps changing.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from longspan.measures.base import feed
from longspan.measures.exact import compare
from longspan.measures.next_token import expectation
from longspan.measures.stretches import stretches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from longspan.measures.base import Lesson, Subject, Voice
    from longspan.methods.base import LayerState
    from longspan.models.base import Model, Session
    from longspan.types import Example, Partial

HEADS = ("recall", "recovered_mass", "retrieved_mass", "estimated_mass", "output_error")
"""What is measured of every layer and head."""

SMALL = ("output_error", "kl", "nll", "nll_full")
"""What should be small."""


class Tally:
    """An observer that compares every step with full attention."""

    def __init__(self, model: Model, at: int) -> None:
        self.at = at
        self.steps: list[int] = []
        """Of each observation, in their order."""
        self.by_layer: dict[int, dict[str, list[Tensor]]] = {}
        self.by_name: dict[str, list[float]] = defaultdict(list)
        self._geometry = {geometry.layer: geometry for geometry in model.geometries}

    def __call__(
        self, layer: int, row: int, state: LayerState, q_HD: Tensor, partial: Partial
    ) -> None:
        """See models.base.Observer."""
        found = compare(self._geometry[layer], state, q_HD, partial, self.at)
        steps = self.by_layer.setdefault(layer, defaultdict(list))
        for name, value_H in found.items():
            steps[name].append(value_H.cpu())

    def step(self, number: int, found: Mapping[str, float]) -> None:
        """Step `number` was observed; `found` of it by measure, whatever the layer."""
        self.steps.append(number)
        for name, value in found.items():
            self.by_name[name].append(value)

    def table(self) -> dict[str, Any]:
        """Means over all layers, heads and steps, the worst twentieth, and means by layer and
        head.
        """
        layers = sorted(self.by_layer)
        steps = {
            name: [torch.stack(self.by_layer[layer][name]) for layer in layers]  # [steps, H]
            for name in HEADS
        }
        seen = {name: torch.cat(values, dim=1) for name, values in steps.items()}
        seen |= {name: torch.tensor(values)[:, None] for name, values in self.by_name.items()}
        places: dict[int, list[int]] = {step: [] for step in sorted(set(self.steps))}
        for place, step in enumerate(self.steps):
            places[step].append(place)
        return {
            "layers": layers,
            "mean": {name: _mean(value) for name, value in seen.items()},
            "worst_5_percent": {name: _worst(name, value) for name, value in seen.items()},
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
            if (found := next(moves, None)) is None:
                break
            fed += 1
            subject.decoded(step + 1, steps)
            if session.observer is not None:
                tally.step(step, found)
        if done is not None:
            done(count)
    if not tally.by_layer:
        return None
    return {"at": at, "examples": len(examples), "tokens": fed, **tally.table()}


def _moves(
    subject: Subject, example: Example, steps: int, voice: Voice | None
) -> tuple[Session, Iterator[dict[str, float]]]:
    """A session that has read the prompt, and what decodes one more token of it at every `next` and
    tells what is found by it, whatever the layer.
    """
    prompt = subject.encode(example, 0)
    length = sum(map(len, prompt))
    if (most := subject.model.max_positions) is not None:
        steps = min(steps, most - length)
    session, logits_BV, (unread,) = subject.begin([prompt], steps)
    if voice is None:
        lesson = subject.lesson(example, steps)
        full = session.logits_after(0, [*unread, *lesson.tokens])
        feed(session, logits_BV, [unread])
        return session, _taught(session, lesson, islice(full, len(unread), None))
    stream = voice.stream(
        prompt_tokens=length, max_new_tokens=steps + 1, key=f"{example.id}/recall"
    )
    moves = voice.generate(session, feed(session, logits_BV, [unread]), [stream])
    next(moves)  # the first token comes from the prompt
    return session, ({} for _ in moves)


def _taught(session: Session, lesson: Lesson, full: Iterator[Tensor]) -> Iterator[dict[str, float]]:
    """The reference is weighed once: how likely it is to begin anew, or to be copied, is nothing of
    it.
    """
    for number, (token, full_V) in enumerate(zip(lesson.tokens, full, strict=True), start=1):
        following = lesson.tokens[number] if number < lesson.own else None
        yield expectation(session.decode([token])[0], full_V, following)


def _mean(value: Tensor) -> float | None:
    mean = float(value.nanmean())
    return None if mean != mean else mean


def _worst(name: str, value: Tensor) -> float | None:
    """The 5% quantile, or the 95% quantile of what should be small."""
    known = value[~value.isnan()]
    if not len(known):
        return None
    ordered = known.sort().values
    share = 0.95 if name in SMALL else 0.05
    return float(ordered[round(share * (len(ordered) - 1))])
