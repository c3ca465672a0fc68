"""Queries guessed a layer early: what they are, and that guessing leaves no trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.models.dense import Dense, DenseState, Load
from tests.models.test_exactness import prompts
from tests.tiny_models import EXACT
from torch import Tensor

from longspan.models.guesses import Guesses

if TYPE_CHECKING:
    from longspan.methods.base import LayerState
    from longspan.types import LayerGeometry, Partial

SWAPPED = ["full_attention", "sliding_attention", "full_attention"]


class Expecting(DenseState):
    """Attends everything, and notes what it was told."""

    told: Tensor | None = None
    broken = False

    @property
    def expects(self) -> bool:
        return True

    def expect(self, q_HD: Tensor) -> None:
        self.told = q_HD.clone()

    def decode(self, q_HD: Tensor) -> Partial:
        if self.broken:
            raise RuntimeError("on purpose")
        return super().decode(q_HD)

    def fork(self) -> LayerState:
        twin = Expecting(self.geometry)
        twin.k, twin.v = self.k, self.v
        return twin


class Asking(Dense):
    name = "asking"

    def layer(self, geometry: LayerGeometry) -> LayerState:
        return Expecting(geometry)


def seen(session: Any) -> dict[tuple[int, int], Tensor]:
    """Filled with the query of each layer and row as steps are made."""
    queries: dict[tuple[int, int], Tensor] = {}

    def observe(layer: int, row: int, state: Any, q_HD: Tensor, partial: Any) -> None:
        queries[layer, row] = q_HD.clone()

    session.observer = observe
    return queries


def guesses(session: Any) -> dict[tuple[int, int], Tensor]:
    return {
        (state.geometry.layer, row): state.told
        for layer in session.states
        for row, state in enumerate(layer)
        if state.told is not None
    }


@pytest.mark.parametrize("family", EXACT)
def test_a_layer_of_equal_weights_guesses_the_query_of_the_layer_below(
    load: Load, family: str
) -> None:
    """Rows of several lengths, and forks. The first layer of the method's has its own query, as a
    layer with a window does not know the rotary embedding of one without.
    """
    model = load(family)
    attentions, windows = model._decoder.attentions, model._decoder.windows
    for attention in attentions[1:]:
        attention.load_state_dict(attentions[0].state_dict())
    session, plain = (model.session(method, rows=3) for method in (Asking(), Dense()))
    for each in (session, plain):
        each.prefill(prompts())
    queries = seen(session)
    for token in (5, 6):
        assert torch.equal(session.decode([token] * 3), plain.decode([token] * 3))
        told = guesses(session)
        owned = [n for n in range(3) if windows[n] is None]
        assert told.keys() == {(n, row) for n in owned[1:] for row in range(3)}
        for layer, row in told:
            torch.testing.assert_close(told[layer, row], queries[layer - 1, row])
    fork, tokens = session.fork(2), [7, 8, 9, 7, 8, 9]
    assert torch.equal(fork.decode(tokens), plain.fork(2).decode(tokens))
    assert guesses(fork).keys() == {(n, row) for n in owned[1:] for row in range(6)}
    assert not any(module._forward_pre_hooks for module in attentions)


@pytest.mark.parametrize(("family", "kinds"), [("qwen3", None), ("gemma3", SWAPPED)])
def test_a_guess_is_the_layers_own_query_of_what_the_layer_below_is_given(
    load: Load, family: str, kinds: list[str] | None
) -> None:
    """By hand; Gemma's layers with a window are turned by other angles than those without."""
    options = {} if kinds is None else {"config": {"layer_types": kinds}}
    model = load(family, **options)
    session = model.session(Asking(), rows=2)
    session.prefill(prompts((30, 17)))
    below, layer = model._decoder.attentions[1:]
    given: dict[str, Tensor] = {}
    hook = below.register_forward_pre_hook(
        lambda module, args, named: given.update(x=named["hidden_states"]), with_kwargs=True
    )
    session.decode([5, 6])
    hook.remove()
    kind = [] if kinds is None else ["full_attention"]
    with torch.inference_mode():
        cos, sin = model.module.model.rotary_emb(given["x"], torch.tensor([[30], [17]]), *kind)
        q_BHD = layer.q_norm(layer.q_proj(given["x"]).view(2, 4, 32))
        half_BHD = torch.cat([-q_BHD[..., 16:], q_BHD[..., :16]], -1)
        right_BHD = q_BHD * cos + half_BHD * sin
    told = guesses(session)
    assert {number for number, _ in told} == ({1, 2} if kinds is None else {2})
    for row in range(2):
        torch.testing.assert_close(told[2, row], right_BHD[row])


def test_steps_that_expect_nothing_or_fail_leave_no_hooks(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load("llama")
    failing, plain = model.session(Asking()), model.session(Dense())
    for session in (failing, plain):
        session.prefill([prompts()[0]])
    failing.states[2][0].broken = True  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="on purpose"):
        failing.decode([5])
    assert not any(module._forward_pre_hooks for module in model._decoder.attentions)
    monkeypatch.delattr(Guesses, "_before")
    plain.decode([5])


def test_another_sessions_step_is_let_alone(load: Load) -> None:
    """Though it runs the same modules meanwhile, and half-registered hooks."""
    model = load("llama")
    session, other = model.session(Asking()), model.session(Asking())
    for each in (session, other):
        each.prefill([prompts()[0]])
    with session._forward._guesses.step():
        other._forward._run([[5]], [[33]], decoding=True)
        for module in model._decoder.attentions:
            module._forward_pre_hooks_with_kwargs.clear()  # as another thread may find them
        other._forward._run([[5]], [[34]], decoding=True)
    assert not guesses(session)
    assert not guesses(other)
    assert [state.k.shape[1] for (state,) in other.states] == [35] * 3  # type: ignore[attr-defined]
