"""An example read once: the answer of any method, and the queries, keys and values of full
attention, which any method can be replayed on.

In a replay every method sees the same queries, so errors of lower layers do not mix in; in an
answer they do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from longspan.measures.base import Subject, feed
from longspan.measures.exact import compare
from longspan.measures.next_token import expectation
from longspan.models.generation import Sampling, Stream, generate
from longspan.studies.once import Once, OnceState, adopted, branch
from longspan.types import LayerGeometry, Partial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from longspan.methods.base import LayerState, Method
    from longspan.models.base import Model
    from longspan.types import Example

EXPECTED = ("kl", "agreement")


@dataclass(frozen=True)
class Trace:
    """One layer of one example: keys and values of the prompt and of the steps behind it."""

    geometry: LayerGeometry
    k_GTD: Tensor
    v_GTD: Tensor
    steps: Sequence[tuple[Tensor, Partial]]
    """Query [H, D] and full attention, step by step."""
    queries_HSD: Tensor | None = None
    """A sample of the prompt's queries, in order."""

    @property
    def prompt(self) -> int:
        """Tokens before the first step."""
        return self.k_GTD.shape[1] - len(self.steps)

    def state(self, method: Method) -> LayerState:
        """A state of `method` at the end of the prompt."""
        prompt = (self.k_GTD[:, : self.prompt], self.v_GTD[:, : self.prompt])
        return adopted(method, self.geometry, prompt, self.queries_HSD)

    def weights_HT(self, step: int) -> Tensor:
        """float32: full attention of a step, over the prompt and the steps up to it."""
        q_HD, right = self.steps[step]
        keys_GTD = self.k_GTD[:, : self.prompt + step + 1].float()
        q_GRD = q_HD.float().reshape(len(keys_GTD), -1, q_HD.shape[1])
        score_HT = (q_GRD @ keys_GTD.mT).flatten(0, 1) * self.geometry.scale
        if (cap := self.geometry.softcap) is not None:
            score_HT = cap * torch.tanh(score_HT / cap)
        return (score_HT - right.lse[:, None]).exp()


class Recorder:
    """An observer that keeps queries and results."""

    def __init__(self) -> None:
        self.steps: dict[int, list[tuple[Tensor, Partial]]] = {}

    def __call__(
        self, layer: int, row: int, state: LayerState, q_HD: Tensor, partial: Partial
    ) -> None:
        """See models.base.Observer."""
        kept = Partial(partial.out.float().clone(), partial.lse.clone())
        self.steps.setdefault(layer, []).append((q_HD.clone(), kept))


class Read:
    """An example that the model has read, once."""

    def __init__(
        self, model: Model, example: Example, steps: int = 0, max_new_tokens: int | None = None
    ) -> None:
        """`steps`: as many as `traces` will be asked for. `max_new_tokens`: of an answer; None:
        what the example says.
        """
        self.model, self.example = model, example
        self._limit = max_new_tokens or example.max_new_tokens
        self._subject = Subject(model=model, method=Once(), protocol="question_dense")
        prompt = self._subject.encode(example, max(steps, self._limit))
        self._session, self._logits_BV = self._subject.read([prompt], max(steps, self._limit))
        self._full: list[Tensor] = []
        """Full attention's logits after each token of the reference, as far as asked for."""

    def answer(self, method: Method) -> str:
        """What the model says, greedily, with `method` from the first new token on."""
        example = self.example
        (length,) = self._session.lengths
        stream = Stream(prompt_tokens=length, max_new_tokens=self._limit, stop=example.stop)
        for _ in generate(
            branch(self._session, method),
            self._logits_BV,
            [stream],
            tokenizer=self.model.tokenizer,
            eos_ids=self.model.eos_ids,
            sampling=Sampling(),
        ):
            pass
        return stream.text(self.model.tokenizer)

    def expectations(self, method: Method, steps: int) -> dict[str, float]:
        """Means over `steps` tokens of the reference answers, fed through `method`: `kl` and
        `agreement` of what the model expects next, against full attention.
        """
        lesson = self._subject.lesson(self.example, steps).tokens
        if len(self._full) < len(lesson):
            self._full = list(self._session.logits_after(0, lesson))
        session = branch(self._session, method)
        found = [
            expectation(session.decode([token])[0], full_V, None)
            for token, full_V in zip(lesson, self._full, strict=False)
        ]
        return {name: sum(each[name] for each in found) / len(found) for name in EXPECTED}

    def traces(self, steps: int) -> list[Trace]:
        """Every layer, `steps` tokens of the reference answers, repeated where they are short, fed
        one by one.
        """
        session = self._session.fork(1)
        recorder = Recorder()
        session.observer = recorder
        feed(session, self._logits_BV, [self._subject.lesson(self.example, steps).tokens])
        traces = []
        for geometry, (state,) in zip(self.model.geometries, session.states, strict=True):
            assert isinstance(state, OnceState)
            parts = state.store.parts
            k_GTD = torch.cat([part.keys_GTD for part in parts], dim=1)
            v_GTD = torch.cat([part.values_GTD for part in parts], dim=1)
            taken = recorder.steps[geometry.layer]
            traces.append(Trace(geometry, k_GTD, v_GTD, taken, state.queries_HSD))
        return traces


def replay(method: Method, trace: Trace, at: int = 100) -> dict[str, float]:
    """Means over steps and heads: shares of the context read exactly, by summaries and scored in
    the search (`exact`, `estimated`, `scanned`), `bytes` a step, and how far that is from full
    attention: `recall`@at, `mass` read exactly, `error` of the output, `bias` of ln of the
    softmax's denominator.
    """
    state = trace.state(method)
    rows = []
    for step, (q_HD, right) in enumerate(trace.steps):
        tokens = trace.prompt + step + 1
        state.append(trace.k_GTD[:, tokens - 1], trace.v_GTD[:, tokens - 1])
        partial, work = state.decode(q_HD), state.work()
        found = compare(trace.geometry, state, q_HD, partial, at)
        rows.append(
            {
                "exact": work.exact_tokens / tokens,
                "estimated": work.estimated_tokens / tokens,
                "scanned": work.distances / tokens,
                "bytes": work.index_bytes + work.kv_bytes,
                "recall": float(found["recall"].nanmean()),
                "mass": float(found["recovered_mass"].mean()),
                "error": float(found["output_error"].mean()),
                "bias": float((partial.lse - right.lse).mean()),
            }
        )
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
