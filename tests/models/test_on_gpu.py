"""The embedded model on a GPU: every placement, with and without graphs, says what a CPU says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from accelerate import dispatch_model
from tests.tiny_models import save_tiny

from longspan.methods.full import Full
from longspan.methods.infinigen import InfiniGen
from longspan.methods.loki import Loki
from longspan.methods.magicpig import MagicPIG
from longspan.methods.oracle_topk import OracleTopK
from longspan.methods.pqcache import PQCache
from longspan.methods.prompt import LayerPrompt
from longspan.methods.quest import Quest
from longspan.methods.retrieval_attention import RetrievalAttention
from longspan.methods.retroinfer import RetroInfer
from longspan.methods.shadowkv import ShadowKV
from longspan.methods.snapkv import SnapKV
from longspan.methods.streaming_llm import StreamingLLM
from longspan.models.huggingface import HuggingFace
from longspan.models.prompts import Prompts
from longspan.prefill.minference import MInference
from longspan.prefill.xattention import XAttention

if TYPE_CHECKING:
    from pathlib import Path

    from longspan.methods.base import Method
    from longspan.prefill.base import Prefill

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
LENGTHS = (1400, 700, 9)
STEPS = 64
SMALL: dict[str, Any] = {
    "retrieval_budget": 0.1, "estimation_budget": 0.3, "local_tokens": 16, "update_tokens": 40,
}  # fmt: skip


def prompts() -> list[list[int]]:
    noise = torch.Generator().manual_seed(7)
    return [torch.randint(2, 8000, (n,), generator=noise).tolist() for n in LENGTHS]


def said(
    method: Method, device: Any, graphs: Any = "off", *, compile: bool = False
) -> tuple[list[list[int]], Any]:
    """Greedy tokens of three rows, and the session."""
    options: dict[str, Any] = {"device": device, "graphs": graphs, "compile": compile}
    model = HuggingFace(path="nano", dtype="float32", **options).load()
    session = model.session(method, len(LENGTHS))
    return greedy(session), session


def greedy(session: Any) -> list[list[int]]:
    logits_BV = session.prefill(prompts())
    tokens = []
    for _ in range(STEPS):
        tokens.append(logits_BV.argmax(-1).tolist())
        logits_BV = session.decode(tokens[-1])
    return tokens


@pytest.fixture(scope="module")
def right() -> list[list[int]]:
    return said(RetroInfer(placement="cpu", **SMALL), "cpu")[0]


@pytest.mark.parametrize("graphs", ["off", "eager", "on"])
def test_retroinfer_beside_the_model(right: list[list[int]], graphs: str) -> None:
    tokens, session = said(RetroInfer(placement="gpu", **SMALL), "cuda", graphs)
    assert tokens == right
    step = session._rows[0].static
    assert (step is not None) == (graphs != "off")
    assert step is None or step.taken_by == {"eager": "buffers", "on": "graph"}[graphs]


@pytest.mark.parametrize("graphs", ["eager", "on"])
def test_layers_that_torch_compiled(right: list[list[int]], graphs: str) -> None:
    tokens, session = said(RetroInfer(placement="gpu", **SMALL), "cuda", graphs, compile=True)
    assert tokens == right
    assert session.steps_by == {"eager": "buffers", "on": "graph"}[graphs] + ", compiled"


@pytest.mark.parametrize("placement", ["gpu", "wave_buffer", "cpu"])
def test_a_prompt_that_was_read_for_another_method(right: list[list[int]], placement: Any) -> None:
    model = HuggingFace(path="nano", dtype="float32", device="cuda", graphs="auto").load()
    known = Prompts(1 << 34, LayerPrompt)
    model.session(Full(placement="gpu"), len(LENGTHS), prompts=known).prefill(prompts())
    method = RetroInfer(placement=placement, **SMALL)
    session = model.session(method, len(LENGTHS), prompts=known)
    assert greedy(session) == right
    assert known.given == len(LENGTHS)


@pytest.mark.parametrize("prefill", [XAttention(), MInference(slash_tokens=300, blocks=4)], ids=str)
def test_sparse_prefills_read_what_they_read_on_a_cpu(prefill: Prefill) -> None:
    said = []
    for device in ("cuda", "cpu"):
        model = HuggingFace(
            path="nano", dtype="float32", device=device, prefill_chunk_tokens=512
        ).load()
        session = model.session(Full(placement=device.replace("cuda", "gpu")), 3, prefill=prefill)
        said.append(session.prefill(prompts()).cpu())
    torch.testing.assert_close(*said, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("placement", ["wave_buffer", "cpu"])
def test_retroinfer_in_host_memory(right: list[list[int]], placement: Any) -> None:
    assert said(RetroInfer(placement=placement, **SMALL), "cuda")[0] == right


@pytest.mark.parametrize("graphs", ["eager", "on"])
def test_a_step_finds_out_by_itself_what_is_cached(right: list[list[int]], graphs: str) -> None:
    method = RetroInfer(placement="wave_buffer", cache_budget=0.2, **SMALL)
    tokens, session = said(method, "cuda", graphs)
    assert tokens == right
    assert session.steps_by == {"eager": "buffers", "on": "graph"}[graphs]
    placed = session.states[0][0].placement
    assert placed.traffic.hit_entries > 0
    assert placed.traffic.miss_entries > 0


@pytest.mark.parametrize("graphs", ["off", "on"])
def test_full_attention(graphs: str) -> None:
    right = said(Full(), "cpu")[0]
    assert said(Full(placement="gpu"), "cuda", graphs)[0] == right


OTHERS: dict[str, Method] = {
    "quest": Quest(placement="gpu", retrieval_budget=0.1, dense_layers=(0,)),
    "shadowkv": ShadowKV(placement="gpu", retrieval_budget=0.1, outlier_budget=0.02),
    "loki": Loki(placement="gpu", retrieval_budget=0.1, update_tokens=40),
    "magicpig": MagicPIG(placement="gpu", bits=5, tables=40),
    "snapkv": SnapKV(placement="gpu", budget=0.2),
    "streaming_llm": StreamingLLM(placement="gpu", budget=0.2),
}


@pytest.mark.parametrize("graphs", ["off", "on"])
@pytest.mark.parametrize("name", OTHERS)
def test_other_methods(name: str, graphs: str) -> None:
    right = said(OTHERS[name], "cpu")[0]
    tokens, session = said(OTHERS[name], "cuda", graphs)
    assert tokens == right
    assert (session._rows[0].static is not None) == (graphs == "on")


@pytest.mark.parametrize("share", ["kv_head", "query_head"])
def test_tokens_by_codes(share: Any) -> None:
    """Beside the GPU's states: its codebooks are not a CPU's to the last bit. With many parts few
    tokens have equal codes, of which either may be read.
    """
    method = PQCache(placement="gpu", retrieval_budget=0.1, parts=16, bits=8, share=share)
    right, _ = said(method, "cuda")
    tokens, session = said(method, "cuda", "on")
    assert tokens == right
    assert session.steps_by == "graph"


BETWEEN: dict[str, Method] = {
    "full": Full(placement="cpu"),
    "oracle_topk": OracleTopK(budget=0.1),
    "retrieval_attention": RetrievalAttention(top_tokens=40, update_tokens=40),
    "infinigen": InfiniGen(retrieval_budget=0.1, placement="gpu"),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_states_decode_between_graphs(name: str) -> None:
    tokens, session = said(BETWEEN[name], "cuda", "on")
    assert tokens == said(BETWEEN[name], "cpu")[0]
    assert session.steps_by == "6 graphs"


@pytest.mark.parametrize("graphs", ["off", "on"])
def test_a_model_with_sliding_windows(graphs: Any, tmp_path: Path) -> None:
    path, method = str(save_tiny("gemma3", tmp_path, head_dim=64)), Full(placement="gpu")
    right, found = (
        HuggingFace(path=path, dtype="float32", device=device, graphs=way).load().session(method, 3)
        for device, way in (("cpu", "off"), ("cuda", graphs))
    )
    rows = [[each % 320 for each in row[:900]] for row in prompts()]
    for session in (right, found):
        session.prefill(rows)
    for _ in range(20):
        torch.testing.assert_close(
            found.decode([5, 6, 7]).cpu(), right.decode([5, 6, 7]), atol=1e-3, rtol=1e-3
        )
    assert found.steps_by == {"off": "states", "on": "graph"}[graphs]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one GPU or none")
@pytest.mark.parametrize("graphs", ["off", "on"])
@pytest.mark.parametrize("placement", ["gpu", "wave_buffer"])
def test_layers_on_two_devices(right: list[list[int]], placement: Any, graphs: Any) -> None:
    model = HuggingFace(path="nano", dtype="float32", device="cpu", graphs=graphs)
    apart = {"model.embed_tokens": 0, "model.rotary_emb": 0, "model.norm": 1, "lm_head": 0}
    apart |= {f"model.layers.{number}": int(number > 2) for number in range(5)}
    weights = HuggingFace._weights
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            HuggingFace, "_weights", lambda *given: dispatch_model(weights(*given), apart)
        )
        session: Any = model.load().session(RetroInfer(placement=placement, **SMALL), len(LENGTHS))
    assert greedy(session) == right
    assert session.steps_by.endswith({"off": "states", "on": " graphs"}[graphs])


def test_a_step_of_single_tokens_finds_out_what_is_cached() -> None:
    options: dict[str, Any] = {"retrieval_budget": 0.1, "parts": 16, "bits": 8}
    right, _ = said(PQCache(placement="gpu", **options), "cuda")
    method = PQCache(placement="wave_buffer", cache_budget=0.2, **options)
    tokens, session = said(method, "cuda", "on")
    assert tokens == right
    assert session.steps_by == "graph"
    assert session.states[0][0].placement.traffic.hit_entries > 0


def test_a_step_of_chunks_finds_out_what_is_cached() -> None:
    method = ShadowKV(placement="wave_buffer", retrieval_budget=0.1, cache_budget=0.2)
    tokens, session = said(method, "cuda", "on")
    assert tokens == said(method, "cpu")[0]
    assert session.states[0][0].placement.traffic.hit_entries > 0
