"""A dense method through the adapter against stock eager attention with the stock cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.models.dense import Dense, DenseState, Load, Lossy
from tests.tiny_models import EXACT, tiny
from torch import Tensor

from longspan.methods.full import Full
from longspan.models import checks

if TYPE_CHECKING:
    from longspan.methods.base import Method
    from longspan.models.base import Session

NEW = 64
LENGTHS = (33, 50, 9)


def prompts(lengths: tuple[int, ...] = LENGTHS, seed: int = 1) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 320, (n,), generator=generator).tolist() for n in lengths]


def continue_greedily(session: Session, logits_BV: Tensor, count: int = NEW) -> tuple[Any, Tensor]:
    seen = [logits_BV]
    for _ in range(count - 1):
        seen.append(session.decode(seen[-1].argmax(-1).tolist()))
    logits_BNV = torch.stack(seen, 1)
    return logits_BNV.argmax(-1).tolist(), logits_BNV


@torch.no_grad()
def stock(module: Any, prompt: list[int], count: int = NEW) -> tuple[list[int], Tensor]:
    """One row at a time, eager, without padding."""
    out = module(input_ids=torch.tensor([prompt]), use_cache=True)
    seen = [out.logits[0, -1]]
    for _ in range(count - 1):
        token = seen[-1].argmax()[None, None]
        out = module(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
        seen.append(out.logits[0, -1])
    logits_NV = torch.stack(seen)
    return logits_NV.argmax(-1).tolist(), logits_NV


@pytest.mark.parametrize("method", [Dense(), Full()], ids=["dense", "full"])
@pytest.mark.parametrize("family", EXACT)
def test_equals_eager_over_64_tokens(load: Load, family: str, method: Method) -> None:
    """Three rows of different lengths; chunks of 7 leave a last chunk of one token (50 = 7 * 7 +
    1).
    """
    module = tiny(family)
    model = load(family, prefill_chunk_tokens=7)
    session = model.session(method, rows=3)
    tokens, logits_BNV = continue_greedily(session, session.prefill(prompts()))
    for row, prompt in enumerate(prompts()):
        right_tokens, right_NV = stock(module, prompt)
        assert tokens[row] == right_tokens
        error = (logits_BNV[row] - right_NV).abs().max() / right_NV.abs().max()
        assert error < 2e-5
    for states in session.states:
        assert [_stored(state) for state in states] == [n + NEW - 1 for n in LENGTHS]
    assert list(session.lengths) == [n + NEW - 1 for n in LENGTHS]


def _stored(state: Any) -> int:
    return state.k.shape[1] if isinstance(state, DenseState) else len(state.store)


def test_a_lossy_method_is_seen(load: Load) -> None:
    session = load("llama").session(Lossy(), rows=3)
    _, logits_BNV = continue_greedily(session, session.prefill(prompts()), 4)
    _, right_NV = stock(tiny("llama"), prompts()[0], 4)
    assert torch.allclose(logits_BNV[0, 0], right_NV[0], atol=1e-4)
    assert (logits_BNV[0, 1:] - right_NV[1:]).abs().max() > 0.05


@pytest.mark.parametrize("chunk", [1, 16, 50, 8192])
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_chunks_change_nothing(load: Load, family: str, chunk: int) -> None:
    right_BV = load(family).session(Dense(), rows=3).prefill(prompts())
    logits_BV = load(family, prefill_chunk_tokens=chunk).session(Dense(), rows=3).prefill(prompts())
    assert torch.allclose(logits_BV, right_BV, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "qwen2_sliding", "gemma2", "gpt_oss"])
def test_a_ragged_second_turn(load: Load, family: str) -> None:
    """Rows grow by 9, 0 and 4 tokens after an answer; the untouched row keeps its logits."""
    session = load(family, prefill_chunk_tokens=4).session(Dense(), rows=3)
    answer, logits_BNV = continue_greedily(session, session.prefill(prompts()), 6)
    second = prompts((9, 0, 4), seed=2)
    second[0].insert(0, answer[0][-1])
    second[2].insert(0, answer[2][-1])
    again_BV = session.prefill(second)
    assert torch.equal(again_BV[1], logits_BNV[1, -1])
    tokens, _ = continue_greedily(session, again_BV, 20)
    whole = [a + b + c for a, b, c in zip(prompts(), [r[:5] for r in answer], second, strict=True)]
    for row, prompt in enumerate(whole):
        right_tokens, _ = stock(tiny(family), prompt, 20)
        assert tokens[row] == right_tokens


def test_seals_the_rows_that_were_read(load: Load) -> None:
    session = load("llama").session(Dense(), rows=2)
    session.prefill([[5, 6], [7]])
    session.decode([8, 9])
    session.prefill([[], [10]])
    assert [[state.seals for state in states] for states in session.states] == [[1, 2]] * 3


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_runs_in_16_bits(load: Load, dtype: str) -> None:
    for family in ("llama", "gemma2", "gpt_oss"):
        model = load(family, dtype=dtype)
        assert str(model.dtype) == f"torch.{dtype}"
        session = model.session(Dense(), rows=3)
        _, logits_BNV = continue_greedily(session, session.prefill(prompts()), 3)
        assert logits_BNV.dtype == torch.float32
        assert session.states[0][0].k.dtype == model.dtype
        _, right_NV = stock(tiny(family), prompts()[0], 1)
        assert (logits_BNV[0, 0] - right_NV[0]).norm() < 0.1 * right_NV.norm()


def test_accelerate_places_the_model(load: Load) -> None:
    """With one device it sets no hooks of its own, so they are forced: what counts is no harm."""
    from accelerate import dispatch_model

    model = load("gemma2", device_map="auto", prefill_chunk_tokens=16)
    dispatch_model(model.module, {"": "cpu"}, force_hooks=True)
    assert hasattr(model.module.model.layers[0], "_hf_hook")
    session = model.session(Dense(), rows=3)
    tokens, _ = continue_greedily(session, session.prefill(prompts()), 8)
    for row, prompt in enumerate(prompts()):
        assert tokens[row] == stock(tiny("gemma2"), prompt, 8)[0]


def test_weights_that_wait_elsewhere(load: Load) -> None:
    """accelerate brings the weights of a module in when it runs; ids then go to the CPU."""
    from accelerate import cpu_offload

    model = load("llama")
    right_BV = model.session(Dense()).prefill(prompts()[:1])
    cpu_offload(model.module, execution_device=torch.device("cpu"))
    assert model.module.get_input_embeddings().weight.device.type == "meta"
    assert checks.input_device(model.module).type == "cpu"
    assert torch.equal(model.session(Dense()).prefill(prompts()[:1]), right_BV)
