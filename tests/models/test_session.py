"""Forks, views, limits and observers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.models.dense import Dense, DenseState, Load
from tests.models.test_exactness import continue_greedily, prompts, stock
from tests.tiny_models import tiny

from longspan.methods.streaming_llm import StreamingLLM
from longspan.models import room
from longspan.models.cache import CacheLayer
from longspan.models.session import PIECE
from longspan.prefill.full import FullPrefill


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_fork_shares_the_prompt_and_diverges(load: Load, family: str) -> None:
    session = load(family).session(Dense(), rows=2)
    session.prefill(prompts()[:2])
    prompt_keys = session.states[0][0].k
    copies = session.fork(2)
    assert list(copies.lengths) == [33, 33, 50, 50]
    assert copies.states[0][1].k is prompt_keys
    apart_BV = copies.decode([5, 6, 7, 8])
    whole = [prompts()[0] + [5], prompts()[0] + [6], prompts()[1] + [7], prompts()[1] + [8]]
    for logits_V, prompt in zip(apart_BV, whole, strict=True):
        right_NV = stock(tiny(family), prompt, 1)[1]
        assert torch.allclose(logits_V, right_NV[0], atol=1e-5)
    assert list(session.lengths) == [33, 50]
    assert session.states[0][0].k.shape[1] == 33
    again_BV = session.decode([6, 8])
    assert torch.allclose(again_BV, apart_BV[[1, 3]], atol=1e-5)


def test_a_view_feeds_a_ragged_batch_in_parts(load: Load) -> None:
    """The question goes through the method token by token; the rows have questions of 3 and 1
    tokens.
    """
    session = load("llama").session(Dense(), rows=3)
    session.prefill(prompts())
    session.decode([5, 6, 7])
    part = session.select([2, 0])
    part.decode([9, 10])
    last_BV = part.decode([11, 12])
    assert list(session.lengths) == [36, 51, 12]
    for logits_V, prompt in zip(
        last_BV, [prompts()[2] + [7, 9, 11], prompts()[0] + [5, 10, 12]], strict=True
    ):
        assert torch.allclose(logits_V, stock(tiny("llama"), prompt, 1)[1][0], atol=1e-5)
    logits_BV = session.prefill([[], [20, 21], []])
    right_NV = stock(tiny("llama"), prompts()[1] + [6, 20, 21], 1)[1]
    assert torch.allclose(logits_BV[1], right_NV[0], atol=1e-5)
    assert torch.equal(logits_BV[[2, 0]], last_BV)


def test_only_the_observer_sees_the_queries(load: Load) -> None:
    session = load("gemma3").session(Dense(), rows=2)
    session.prefill(prompts()[:2])
    seen: list[tuple[int, int, int]] = []

    def observe(layer: int, row: int, state: Any, q_HD: Any, partial: Any) -> None:
        out_HD = state.decode(q_HD).out
        assert torch.equal(out_HD, partial.out)
        seen.append((layer, row, state.k.shape[1]))

    session.observer = observe
    session.decode([5, 6])
    # layer 0 slides, so the method does not own it
    assert seen == [(1, 0, 34), (1, 1, 51), (2, 0, 34), (2, 1, 51)]
    session.observer = None
    session.decode([5, 6])
    assert len(seen) == 4


def test_the_method_gets_its_layers_only(load: Load) -> None:
    model = load("gemma2")
    assert [(g.layer, g.softcap) for g in model.geometries] == [(1, 2.0)]
    geometry = load("qwen3").geometries[2]
    assert (geometry.layer, geometry.query_heads, geometry.kv_heads) == (2, 4, 2)
    assert (geometry.head_size, geometry.scale) == (32, pytest.approx(32**-0.5))
    assert (geometry.dtype, geometry.device.type) == (torch.float32, "cpu")


def test_a_window_keeps_no_more_than_it_can_see(load: Load) -> None:
    session = load("qwen2_sliding").session(Dense())
    session.prefill([prompts((200,))[0]])
    for token in range(100):
        session.decode([token])
    windows = [s for s in session._rows[0].states if hasattr(s, "window")]
    assert len(windows) == 2
    assert all(s._k_GTD.shape[1] <= 12 + 64 for s in windows)
    assert len(session.states) == 1


def test_windows_need_little_room(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of three layers slide; the third alone needs what it holds."""
    model, method = load("qwen2_sliding"), StreamingLLM()
    each = 900 * 2 * 2 * 16 * 4
    monkeypatch.setattr(room, "available", lambda device: each * 3 // 2)
    model.session(method).prefill([prompts((900,))[0]])
    monkeypatch.setattr(room, "available", lambda device: each)
    with pytest.raises(ValueError, match="keys and values of 1 rows"):
        model.session(method).prefill([prompts((900,))[0]])


def test_progress_counts_tokens(load: Load) -> None:
    seen: list[int] = []
    session = load("llama", prefill_chunk_tokens=20).session(Dense(), rows=3)
    session.prefill(prompts(), seen.append)
    assert seen == [20, 40, 50]


def test_limits(load: Load) -> None:
    model = load("llama")
    session = model.session(Dense(), rows=2, max_tokens=12)
    with pytest.raises(ValueError, match="row 0 has no token"):
        session.prefill([[], [5]])
    with pytest.raises(ValueError, match="1 rows of tokens for a session of 2 rows"):
        session.prefill([[5]])
    with pytest.raises(ValueError, match="row 1 would hold 13 tokens; the session takes 12"):
        session.prefill([[5], [5] * 13])
    session.prefill([[5], [5] * 12])
    with pytest.raises(ValueError, match="row 1 would hold 13 tokens"):
        session.decode([5, 5])
    with pytest.raises(ValueError, match="row 0 would hold 1025 tokens; the session takes 1024"):
        model.session(Dense()).prefill([[5] * 1025])
    beyond = model.session(Dense(), max_tokens=1025)
    beyond.prefill([[5] * 1024])
    beyond.decode([5])
    with pytest.raises(ValueError, match="row 0 would hold 1026 tokens; the session takes 1025"):
        beyond.decode([5])
    with pytest.raises(ValueError, match=r"rows is \[0, 0\]; it should name rows of 0..1 once"):
        session.select([0, 0])
    with pytest.raises(ValueError, match="copies is 0"):
        session.fork(0)


@pytest.mark.parametrize("phase", ["prefill", "decode", "seal"])
def test_what_was_left_half_read_is_not_read_on(
    load: Load, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of three layers is interrupted; a row that was not in it goes on."""
    session = load("llama", prefill_chunk_tokens=20).session(Dense(), rows=2)
    session.prefill([prompts()[0], [5]])
    owner = DenseState if phase == "seal" else CacheLayer
    inner, calls = getattr(owner, phase), []

    def interrupted(self: Any, *given: Any) -> Any:
        calls.append(self)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return inner(self, *given)

    one = session.select([0])
    with monkeypatch.context() as patch:
        patch.setattr(owner, phase, interrupted)
        with pytest.raises(KeyboardInterrupt):
            one.decode([7]) if phase == "decode" else one.prefill([[7, 8]])
    for use in (
        lambda: session.prefill([[5], [5]]),
        lambda: session.decode([5, 5]),
        lambda: session.fork(1),
        lambda: session.logits_after(0, [5]),
        lambda: session.replay(0, 0, b""),
    ):
        with pytest.raises(RuntimeError, match="left half-read by an error"):
            use()
    assert session.select([1]).decode([6]).isfinite().all()


def test_a_table_of_positions_ends(load: Load) -> None:
    session = load("gpt2").session(Dense(), max_tokens=1030)
    session.prefill([[5] * 1023])
    session.decode([5])
    with pytest.raises(
        ValueError, match=r"would hold 1025 tokens; the session takes 1024, as many"
    ):
        session.decode([5])


def test_a_window_wider_than_the_positions_is_none(load: Load) -> None:
    session = load("phi3_wide_window").session(Dense())
    tokens, _ = continue_greedily(session, session.prefill(prompts()[:1]), 10)
    assert len(session.states) == 3
    assert tokens[0] == stock(tiny("phi3_wide_window"), prompts()[0], 10)[0]


def test_two_sessions_do_not_mix(load: Load) -> None:
    model = load("llama")
    one, other = model.session(Dense()), model.session(Dense(), rows=2)
    one.prefill(prompts()[:1])
    other.prefill(prompts()[1:])
    logits_BV = one.decode([5])
    other.decode([6, 7])
    assert torch.allclose(
        logits_BV[0], stock(tiny("llama"), prompts()[0] + [5], 1)[1][0], atol=1e-5
    )


class Counted(FullPrefill):
    """Full attention that counts what it is given."""

    chunks = 0

    def attend(self, *given: Any) -> Any:
        type(self).chunks += 1
        return super().attend(*given)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3"])
def test_what_full_attention_expects_is_known_beside_the_method(load: Load, family: str) -> None:
    """In pieces, while the session goes on with its method and notices nothing."""
    tokens = torch.randint(3, 300, (PIECE + 9,), generator=torch.Generator().manual_seed(3))
    taught = tokens.tolist()
    with torch.no_grad():
        whole_TV = tiny(family)(torch.tensor([prompts()[1] + taught])).logits[0, -len(taught) :]
    narrow = StreamingLLM(sink_tokens=1, window_tokens=4)
    session = load(family).session(narrow, rows=2, prefill=Counted())
    session.prefill(prompts()[:2])
    alone, read = session.fork(1), Counted.chunks
    expected = session.logits_after(1, taught)
    differs = False
    for token, full_V in zip(taught, whole_TV, strict=True):
        logits_BV = session.decode([token, token])
        assert torch.equal(logits_BV, alone.decode([token, token]))
        torch.testing.assert_close(next(expected), full_V, atol=2e-5, rtol=1e-4)
        differs |= not torch.allclose(logits_BV[1], full_V, atol=0.01)
    assert differs
    assert next(expected, None) is None
    assert Counted.chunks == read
    assert list(session.lengths) == [33 + len(taught), 50 + len(taught)]
    with pytest.raises(ValueError, match="row 0 would hold 1025 tokens; the session takes 1024"):
        session.logits_after(0, [5] * (1025 - 33 - len(taught)))
