"""Compiled layers: the steps they take say the same, and nothing else runs through them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.models.test_exactness import prompts

from longspan.methods.infinigen import InfiniGen
from longspan.methods.retroinfer import RetroInfer
from longspan.models.compiled import CompiledLayers
from longspan.models.huggingface import HuggingFace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.models.dense import Load

    from longspan.models.session import StoreSession

LENGTHS = (60, 25)
METHOD = RetroInfer(
    update_tokens=16, local_tokens=8, segment_tokens=32, tokens_per_cluster=4,
    retrieval_budget=0.2, estimation_budget=0.4,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _counted() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def session(load: Load, family: str, backend: str | None, layers: int = 3) -> StoreSession:
    """Two rows that decode on fixed buffers."""
    model = load(family, graphs="eager", layers=layers, compile=backend is not None)
    if backend is not None:
        compiled = CompiledLayers(model.module, layers, backend)
        model._decoder = replace(model._decoder, compiled=compiled)
    opened = model.session(METHOD, len(LENGTHS))
    opened.prefill(prompts(LENGTHS))
    return opened


def greedy(session: StoreSession, steps: int = 20) -> torch.Tensor:
    said, tokens = [], [5] * len(LENGTHS)
    for _ in range(steps):
        said.append(session.decode(tokens))
        tokens = said[-1].argmax(-1).tolist()
    return torch.stack(said)


def graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


@pytest.mark.parametrize("family", ["llama", "qwen3", "phi3", "gemma", "gpt2"])
def test_the_traced_layers_say_what_the_layers_say(load: Load, family: str) -> None:
    """To the last bit, where what was traced runs as it stands; an update lies on the way."""
    right = greedy(session(load, family, None))
    opened = session(load, family, "aot_eager")
    assert torch.equal(greedy(opened), right)
    assert graphs() > 0
    assert opened.steps_by == "buffers, compiled"


def test_what_asks_within_a_layer_is_refused(load: Load) -> None:
    opened = load("llama", graphs="eager", compile=True).session(InfiniGen())
    opened.prefill([[5, 6]])
    with pytest.raises(ValueError, match=r"'eager': model\.compile = true hides what .*infinigen"):
        opened.decode([7])


def test_torchs_own_compiler_says_so_too(load: Load) -> None:
    right = greedy(session(load, "llama", None, layers=1))
    found = greedy(session(load, "llama", "inductor", layers=1))
    torch.testing.assert_close(found, right, atol=2e-4, rtol=1e-4)


def test_layers_alike_share_what_is_compiled(load: Load) -> None:
    """All but the part that ends where keys and values are handed over, with the layer's number."""
    greedy(session(load, "llama", "eager", 1))
    one = graphs()
    greedy(session(load, "llama", "eager", 3))
    assert one >= 3
    assert graphs() == one + 2


def test_only_steps_run_through_them(load: Load) -> None:
    """Neither the prompt, nor what is read after an answer has begun, nor steps of the states."""
    opened = session(load, "llama", "eager")
    assert graphs() == 0
    opened.decode([5, 6])
    seen = graphs()
    assert seen > 0
    opened.prefill([[7, 8, 9], []])
    list(opened.logits_after(0, [5, 6, 7]))
    opened.observer = lambda *_: None
    opened.decode([5, 6])
    assert graphs() == seen
    assert not any("forward" in vars(layer) for layer in opened._decoder.module.model.layers)


def test_what_replaced_a_forward_before_does_so_after(load: Load) -> None:
    """accelerate's hooks are such."""
    model = load("llama", graphs="eager", compile=True)
    layer = model.module.model.layers[1]
    hook = layer.forward
    layer.forward = hook
    with CompiledLayers(model.module, 3, "eager").installed():
        assert layer.forward is not hook
    assert vars(layer).pop("forward") is hook


def test_layers_that_do_not_compile_are_a_clear_error(load: Load) -> None:
    def backend(*_: Any) -> Any:
        raise RuntimeError("no such device")

    opened = session(load, "llama", backend)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"model\.compile = true: .* no such device"):
        opened.decode([5, 6])


def test_layers_that_are_in_no_list(load: Load) -> None:
    with pytest.raises(ValueError, match=r"model\.compile = true: its 7 layers are not in one"):
        CompiledLayers(load("llama").module, 7)


@pytest.mark.parametrize("graphs", ["off", "auto"])
def test_without_steps_of_fixed_shape_there_is_nothing_to_compile(graphs: Any) -> None:
    with pytest.raises(ValueError, match=rf"model\.graphs = '{graphs}' there are none here"):
        HuggingFace(path="nano", device="cpu", graphs=graphs, compile=True).load()
