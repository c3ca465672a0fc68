"""Prompts that are read once for many methods: as reading them again would be, to the last bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.models.dense import Dense
from tests.models.test_exactness import prompts

from longspan.methods.faiss_flat import FaissFlat
from longspan.methods.full import Full
from longspan.methods.h2o import H2O
from longspan.methods.hybrid import Hybrid
from longspan.methods.infinigen import InfiniGen
from longspan.methods.infllm import InfLLM
from longspan.methods.loki import Loki
from longspan.methods.magicpig import MagicPIG
from longspan.methods.oracle_topk import OracleTopK
from longspan.methods.pqcache import PQCache
from longspan.methods.prompt import LayerPrompt
from longspan.methods.queries import QuerySample
from longspan.methods.quest import Quest
from longspan.methods.retrieval_attention import RetrievalAttention
from longspan.methods.retroinfer import RetroInfer
from longspan.methods.shadowkv import ShadowKV
from longspan.methods.snapkv import SnapKV
from longspan.methods.streaming_llm import StreamingLLM
from longspan.models import session as sessions
from longspan.models import static
from longspan.models.prompts import Prompts
from longspan.models.window import WindowState

if TYPE_CHECKING:
    from tests.models.dense import Load

    from longspan.methods.base import Method
    from longspan.models.session import StoreSession

LENGTHS = (150, 97, 3)
SMALL: dict[str, Any] = {"update_tokens": 20, "local_tokens": 8}
TOP: dict[str, Any] = {**SMALL, "dense_layers": (), "top_tokens": 20, "query_window": 30}
METHODS: dict[str, Method] = {
    "full": Full(),
    "retroinfer": RetroInfer(segment_tokens=64, tokens_per_cluster=4, **SMALL),
    "retroinfer, wave_buffer": RetroInfer(
        segment_tokens=64, tokens_per_cluster=4, placement="wave_buffer", cache_budget=0.5, **SMALL
    ),
    "quest": Quest(page_tokens=4, update_tokens=16, dense_layers=(0,)),
    "shadowkv": ShadowKV(update_tokens=30),
    "snapkv": SnapKV(budget=0.3, window_tokens=8),
    "streaming_llm": StreamingLLM(budget=0.3, sink_tokens=2),
    "loki": Loki(query_tokens=40, query_window=10, dense_layers=(), **SMALL),
    "infinigen": InfiniGen(dense_layers=(0,), top_tokens=20, **SMALL),
    "hybrid": Hybrid(query_tokens=50, **TOP),
    "retrieval_attention": RetrievalAttention(query_tokens=50, **TOP),
    "magicpig": MagicPIG(dense_layers=(), local_tokens=8),
    "pqcache": PQCache(dense_layers=(), local_tokens=8),
    "faiss_flat": FaissFlat(dense_layers=(), top_tokens=20, **SMALL),
    "oracle_topk": OracleTopK(budget=0.2),
}
THEMSELVES: dict[str, Method] = {
    "h2o": H2O(budget=0.3),
    "infllm": InfLLM(dense_layers=(), **SMALL),
    "loki, of more queries": Loki(query_window=513, dense_layers=(), **SMALL),
    "snapkv, of a wider window": SnapKV(window_tokens=600),
    "another": Dense(),
}
"""Those that see more of a prompt than is kept."""


def opened(
    load: Load, method: Method, known: Prompts | None, family: str = "llama"
) -> StoreSession:
    model = load(family, prefill_chunk_tokens=64, layers=2 if family == "llama" else 3)
    return model.session(method, len(LENGTHS), prompts=known)


def said(session: StoreSession, steps: int = 16) -> torch.Tensor:
    """Logits of the prompt and of greedy steps; a further turn half-way."""
    seen = [session.prefill(prompts(LENGTHS))]
    for step in range(steps):
        if step == steps // 2:
            seen.append(session.prefill([[5, 6, 7], [], [8]]))
        seen.append(session.decode(seen[-1].argmax(-1).tolist()))
    return torch.stack(seen)


def known_by(load: Load, method: Method, family: str = "llama") -> Prompts:
    """What another method has read."""
    found = Prompts(1 << 30, LayerPrompt)
    opened(load, method, found, family).prefill(prompts(LENGTHS))
    assert (found.given, found.left_out) == (0, 0)
    return found


@pytest.mark.parametrize("name", METHODS)
def test_a_method_goes_on_from_what_another_has_read(load: Load, name: str) -> None:
    if name.startswith("faiss"):
        pytest.importorskip("faiss", reason="no faiss extra")
    right = said(opened(load, METHODS[name], None))
    for other in (H2O(budget=0.5), METHODS["retroinfer"]):
        known = known_by(load, other)
        found = said(opened(load, METHODS[name], known))
        assert known.given == len(LENGTHS)
        assert torch.equal(found, right)


@pytest.mark.parametrize("name", THEMSELVES)
def test_a_method_that_sees_more_of_a_prompt_reads_it(load: Load, name: str) -> None:
    right = said(opened(load, THEMSELVES[name], None))
    known = known_by(load, Full())
    assert torch.equal(said(opened(load, THEMSELVES[name], known)), right)
    assert known.given == 0


@pytest.mark.parametrize("family", ["gemma3", "gpt_oss", "gpt2"])
def test_sliding_windows_and_sinks_are_taken_over_too(load: Load, family: str) -> None:
    right = said(opened(load, Full(), None, family))
    known = known_by(load, Full(), family)
    for _ in range(2):  # what was given once is as it was
        assert torch.equal(said(opened(load, Full(), known, family)), right)
    assert known.given == 2 * len(LENGTHS)


def test_another_length_has_other_frequencies(load: Load) -> None:
    model, known = load("llama_dynamic", prefill_chunk_tokens=64), Prompts(1 << 30, LayerPrompt)
    for length in (200, 400, 400):
        session = model.session(Full(), 1, None, None, length, known)
        right = model.session(Full(), 1, None, None, length).prefill([[5] * 40])
        assert torch.equal(session.prefill([[5] * 40]), right)
    assert known.given == 1


def test_a_fork_and_a_prompt_that_was_interrupted(load: Load) -> None:
    known = Prompts(1 << 30, LayerPrompt)

    def stop(tokens: int) -> None:
        if tokens > 64:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(load, Full(), known).prefill(prompts(LENGTHS), stop)
    assert known.nbytes == 0
    said(opened(load, Full(), known).fork(1))  # of nothing; it keeps what it reads
    session = opened(load, Full(), known)
    session.prefill(prompts(LENGTHS))
    right = session.fork(2).decode([5] * 6)
    again = opened(load, Full(), known)
    again.prefill(prompts(LENGTHS))
    assert known.given == 2 * len(LENGTHS)
    assert torch.equal(again.fork(2).decode([5] * 6), right)


def test_rows_alike_are_kept_once_and_mix_with_new_ones(load: Load) -> None:
    known, one = Prompts(1 << 30, LayerPrompt), prompts((40,))[0]
    first = load("llama").session(Full(), 2, prompts=known)
    first.prefill([one, one])
    layer_bytes = 2 * 2 * 40 * 16 * 4 + 2 * 4 * 40 * 16 * 4  # the queries are in both samples
    assert known.nbytes == 3 * layer_bytes
    told: list[int] = []
    second = load("llama").session(Full(), 3, prompts=known)
    logits_BV = second.prefill([one, [7] * 5, one], told.append)
    assert (known.given, told) == (2, [5])
    assert torch.equal(logits_BV[0], first.decode([9, 9])[0]) is False
    assert torch.equal(logits_BV[0], logits_BV[2])
    alone = load("llama").session(Full()).prefill([[7] * 5])
    assert torch.equal(logits_BV[1], alone[0])


def test_what_finds_no_room_is_counted_and_read_again(load: Load) -> None:
    token_bytes = 2 * (2 * 2 + 2 * 4) * 16 * 4  # the queries are in both samples
    known = Prompts(249 * token_bytes, LayerPrompt)
    right = said(opened(load, Full(), known))
    assert (known.nbytes, *known.counts) == (0, 0, 3)  # 1 token is too many, and all are read again
    assert torch.equal(said(opened(load, Full(), known)), right)
    assert known.counts == (0, 6)
    load("llama", layers=2).session(Full(), prompts=known).prefill(prompts((249,)))
    assert (known.nbytes, known.left_out) == (known.most_bytes, 6)
    first = Prompts(1 << 30, LayerPrompt, most=2)
    for _ in range(2):
        opened(load, Full(), first).prefill(prompts(LENGTHS))
    assert first.counts == (2, 0)


def test_windows_of_the_model_count_and_lie_in_host_memory(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[Any] = []
    inner = WindowState.fork

    def fork(self: WindowState, device: torch.device | None = None) -> WindowState:
        moved.append(device)
        return inner(self, device)

    monkeypatch.setattr(WindowState, "fork", fork)
    model, host = load("gemma3"), torch.device("cpu")  # one layer of three slides, over 12 tokens
    known = Prompts(1 << 30, LayerPrompt)
    session = model.session(Full(), prompts=known)
    session.prefill([[5] * 40])
    assert moved == [host]
    window_bytes = 2 * 2 * (12 + 64) * 32 * 4
    assert known.nbytes == 2 * (2 * 2 + 2 * 4) * 40 * 32 * 4 + window_bytes
    model.session(Full(), prompts=known).prefill([[5] * 40])
    assert moved == [host, model.geometries[0].device]
    short = Prompts(known.nbytes - 1, LayerPrompt)
    model.session(Full(), prompts=short).prefill([[5] * 40])
    assert (short.nbytes, short.left_out) == (0, 1)


def test_a_prompt_that_needs_the_room_has_it(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    known, inner = known_by(load, Full()), sessions.check_room

    def check(*facts: Any) -> None:
        if known.nbytes:
            raise ValueError("not enough")
        inner(*facts)

    monkeypatch.setattr(sessions, "check_room", check)
    opened(load, Full(), known).prefill([[5], [6], [7]])
    assert known.given == 0
    monkeypatch.setattr(known, "clear", lambda: None)  # it was not for what is kept
    session = opened(load, Full(), known)
    with pytest.raises(ValueError, match="not enough"):
        session.prefill([[5], [6], [7]])


def test_buffers_that_need_the_room_have_it(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = static.check_pools

    def check(*facts: Any) -> None:
        if known.nbytes:
            raise ValueError("not enough")
        inner(*facts)

    monkeypatch.setattr(static, "check_pools", check)
    for copies in (1, 2):  # the fork asks
        known = Prompts(1 << 30, LayerPrompt)
        session = load("llama", graphs="eager").session(Full(), prompts=known)
        session.prefill([[5, 6, 7]])
        assert known.nbytes
        session = session.fork(copies)
        session.decode([5] * copies)
        assert (known.nbytes, session.steps_by) == (0, "buffers")


@pytest.mark.parametrize("seed", range(12))
def test_a_smaller_sample_is_cut_out_of_a_larger(seed: int) -> None:
    noise = torch.Generator().manual_seed(seed)

    def drawn(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=noise))

    whole = QuerySample(drawn(20, 60), drawn(50, 90))
    small = QuerySample(drawn(0, whole.window), drawn(0, whole.cap))
    for _ in range(drawn(1, 6)):
        q_HQD = torch.randn(2, drawn(1, 80), 4, generator=noise)
        whole.add(q_HQD)
        small.add(q_HQD)
    found, right = whole.narrowed(small, torch.device("cpu")).queries(), small.queries()
    assert whole.covers(small)
    assert (found is None) == (right is None)
    assert found is None or right is None or torch.equal(found, right)
    assert not whole.covers(QuerySample(whole.window + 1, 0))
    assert not whole.covers(QuerySample(0, whole.cap + 1))
