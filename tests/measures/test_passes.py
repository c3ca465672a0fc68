"""The recall and latency passes on a real session of a tiny model."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.tiny_models import save_tiny
from transformers import AutoModelForCausalLM

from longspan.measures.base import Subject, Voice, feed
from longspan.measures.clocks import clocked
from longspan.measures.latency import latency
from longspan.measures.recall import HEADS, recall
from longspan.methods.full import Full
from longspan.methods.oracle_topk import OracleTopK
from longspan.methods.retroinfer import RetroInfer
from longspan.models.generation import Sampling, Stream, Taught, generate
from longspan.models.huggingface import HuggingFace
from longspan.types import Example

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from longspan.methods.base import Method
    from longspan.models.huggingface import HuggingFaceModel

EXAMPLES = [
    Example(str(n), "The sky is blue. " * (9 + n), "What is blue?", ("the sky", "9"), 8)
    for n in range(3)
]
STEPS = 12
RETRO = RetroInfer(
    sink_tokens=2, local_tokens=4, update_tokens=8, tokens_per_cluster=4, retrieval_budget=0.1
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> HuggingFaceModel:
    path = save_tiny("llama", tmp_path_factory.mktemp("tiny"), initializer_range=0.3)
    return HuggingFace(path=str(path), dtype="float32", device="cpu").load()


def subject(model: HuggingFaceModel, method: Method, protocol: Any = "question_dense") -> Subject:
    return Subject(model=model, method=method, protocol=protocol)


@pytest.mark.parametrize("protocol", ["question_dense", "question_sparse"])
def test_full_attention_recovers_everything(model: HuggingFaceModel, protocol: Any) -> None:
    found = recall(subject(model, Full(), protocol), EXAMPLES, steps=5, at=10)
    assert found is not None
    assert found["tokens"] == 15
    assert found["mean"]["recovered_mass"] == pytest.approx(1.0, abs=1e-5)
    assert found["mean"]["output_error"] < 1e-4
    assert found["mean"]["recall"] is None
    assert found["layers"] == [0, 1, 2]


def test_an_oracle_of_k_tokens_has_recall_one_at_k(model: HuggingFaceModel) -> None:
    method = OracleTopK(sink_tokens=2, local_tokens=4, budget=0.5)
    found = recall(subject(model, method), EXAMPLES[:1], steps=4, at=10)
    assert found is not None
    assert found["mean"]["recall"] == pytest.approx(1.0)
    assert 0.5 < found["mean"]["recovered_mass"] < 1.0
    assert found["worst_5_percent"]["recovered_mass"] <= found["mean"]["recovered_mass"]
    assert found["worst_5_percent"]["output_error"] >= found["mean"]["output_error"]
    by_head = found["by_layer_and_head"]["recovered_mass"]
    assert [len(heads) for heads in by_head] == [4, 4, 4]
    flat = torch.tensor(by_head).mean()
    assert float(flat) == pytest.approx(found["mean"]["recovered_mass"], abs=1e-5)
    assert len(found["by_step"]["output_error"]) == 4


def test_an_index_is_held_against_the_order_it_put_its_tokens_in(model: HuggingFaceModel) -> None:
    small = recall(subject(model, RETRO), EXAMPLES, steps=4, at=10)
    large = recall(
        subject(model, replace(RETRO, retrieval_budget=0.6)),
        EXAMPLES, steps=4, at=10,
    )  # fmt: skip
    assert small is not None
    assert large is not None
    assert 0 < small["mean"]["recall"] < large["mean"]["recall"] < 1
    assert small["mean"]["recovered_mass"] < large["mean"]["recovered_mass"]
    assert small["mean"]["estimated_mass"] > 0


def test_a_cache_says_what_steps_found_and_what_filled_it(model: HuggingFaceModel) -> None:
    method = replace(RETRO, placement="wave_buffer", cache_budget=1.0)
    told, _ = latency(subject(model, method), EXAMPLES[:2], warmup=2, steps=3)
    ledger = told["ledger"]
    assert ledger["prefetch_bytes"] > 0
    assert 0 < ledger["hit_ratio"] < 1
    assert ledger["bus_bytes"] > 0
    plain, _ = latency(subject(model, RETRO), EXAMPLES[:2], warmup=2, steps=3)
    assert "prefetch_bytes" not in plain["ledger"]


@pytest.mark.parametrize("protocol", ["question_dense", "question_sparse"])
def test_the_next_token_is_held_against_full_attentions(
    model: HuggingFaceModel, protocol: Any
) -> None:
    """Full attention's own part is the same whatever the method, and right by the stock model."""
    full, ours = (
        recall(subject(model, method, protocol), EXAMPLES, steps=STEPS, at=10)
        for method in (Full(), RETRO)
    )
    assert full is not None
    assert ours is not None
    nats = []
    stock = AutoModelForCausalLM.from_pretrained(model.options.path)
    for example in EXAMPLES:
        prompt = [token for part in model.encode(example) for token in part]
        lesson, own = subject(model, Full()).lesson(example, STEPS)
        assert lesson[own:] == lesson[: STEPS - own]  # it begins anew, which is not weighed
        with torch.no_grad():
            logits_TV = stock(torch.tensor([prompt + lesson])).logits[0, -STEPS:]
        nats += torch.nn.functional.cross_entropy(
            logits_TV[: own - 1], torch.tensor(lesson[1:own]), reduction="none"
        ).tolist()
    assert 3 <= len(nats) < 3 * (STEPS - 1)
    assert full["mean"]["nll_full"] == pytest.approx(sum(nats) / len(nats), abs=1e-4)
    assert full["mean"]["nll"] == pytest.approx(full["mean"]["nll_full"], abs=1e-4)
    assert full["mean"]["kl"] < 1e-6
    assert full["mean"]["agreement"] == 1
    assert ours["mean"]["nll_full"] == pytest.approx(full["mean"]["nll_full"], abs=1e-4)
    assert ours["mean"]["kl"] > 0.01
    assert ours["mean"]["agreement"] < 1
    assert ours["worst_5_percent"]["kl"] > ours["mean"]["kl"]
    assert ours["by_step"]["nll"][-1] is None  # nothing is known to follow
    assert set(ours["by_layer_and_head"]) == set(HEADS)


def voice(model: HuggingFaceModel) -> Voice:
    sampling = Sampling(temperature=0.9, ignore_eos=True)

    def speak(*given: Any) -> Any:
        eos = model.eos_ids
        return generate(*given, tokenizer=model.tokenizer, eos_ids=eos, sampling=sampling)

    return Voice(stream=Stream, taught=Taught, generate=speak)


def test_recall_is_followed_along_an_answer_of_its_own(
    model: HuggingFaceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longspan.measures.stretches.STRETCH", 10)
    follow = partial(recall, subject(model, RETRO), EXAMPLES[:2], steps=25, at=5)
    every, third = (follow(every=n, voice=voice(model)) for n in (1, 3))
    taught = follow()
    assert every is not None
    assert third is not None
    assert taught is not None
    assert every["tokens"] == third["tokens"] == 50
    assert "kl" not in every["mean"]  # full attention would have chosen other tokens
    assert every["steps"] == list(range(25))
    assert third["steps"] == list(range(0, 25, 3))
    assert third["by_step"]["output_error"] == every["by_step"]["output_error"][::3]
    assert taught["by_step"] != every["by_step"]
    bounds = [(each["first"], each["stop"]) for each in every["by_stretch"]]
    assert bounds == [(0, 10), (10, 20), (20, 25)]
    errors = every["by_step"]["output_error"]
    assert every["by_stretch"][2]["output_error"] == pytest.approx(sum(errors[20:]) / 5)


def test_time_is_followed_along_an_answer(
    model: HuggingFaceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longspan.measures.stretches.STRETCH", 10)
    timing, _ = latency(subject(model, RETRO), EXAMPLES[:1], warmup=1, steps=25)
    rows = timing["by_stretch"]
    assert [(each["first"], each["stop"]) for each in rows] == [(0, 10), (10, 20), (20, 25)]
    assert all(0 < each["ms_per_token"] <= each["ms_per_token_max"] for each in rows)
    spent = sum(each["absorb_ms"] * (each["stop"] - each["first"]) for each in rows)
    assert timing["ledger"]["absorb_ms"] == pytest.approx(spent / 25)
    assert spent > 0
    timing, _ = latency(subject(model, Full()), EXAMPLES[:1], warmup=1, steps=4)
    assert timing["ledger"]["absorb_ms"] is None


def test_the_median_of_two_steps_lies_between_them(model: HuggingFaceModel) -> None:
    timing, _ = latency(subject(model, Full()), EXAMPLES[:1], warmup=0, steps=2)
    assert timing["ms_per_token"] == pytest.approx(timing["ms_per_token_mean"])
    (row,) = timing["by_stretch"]
    assert row["ms_per_token"] == pytest.approx(row["ms_per_token_mean"])


def test_a_ragged_batch_is_fed_like_its_rows_alone(model: HuggingFaceModel) -> None:
    rows = [[5, 6, 7], [8], []]
    prompts = [model.encode(example) for example in EXAMPLES]
    session, logits_BV = subject(model, Full()).read(prompts, 4)
    together_BV = feed(session, logits_BV, rows)
    for number, row in enumerate(rows):
        session, logits_BV = subject(model, Full()).read([prompts[number]], 4)
        alone_BV = feed(session, logits_BV, [row]) if row else logits_BV
        torch.testing.assert_close(together_BV[number], alone_BV[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("graphs", ["off", "eager"])
def test_the_last_step_is_in_what_the_cache_did(graphs: Any, tmp_path: Path) -> None:
    """Steps of fixed shape close their accounts only when the next one begins."""
    path = save_tiny("llama", tmp_path, initializer_range=0.3)
    model = HuggingFace(path=str(path), dtype="float32", device="cpu", graphs=graphs).load()
    method = replace(RETRO, placement="wave_buffer", cache_budget=0.5)
    timing, _ = latency(subject(model, method), EXAMPLES[:1], warmup=1, steps=1)
    assert timing["steps_by"] == {"off": "states", "eager": "buffers"}[graphs]
    assert timing["ledger"]["hit_ratio"] is not None


@pytest.mark.parametrize("rows", [1, 3])
def test_latency_has_its_numbers_and_its_ledger(model: HuggingFaceModel, rows: int) -> None:
    timing, memory = latency(subject(model, RETRO), EXAMPLES[:rows], warmup=1, steps=4)
    assert timing["rows"] == rows
    assert timing["ttft_s"] > 0
    assert timing["ms_per_token_p10"] <= timing["ms_per_token"] <= timing["ms_per_token_p90"]
    assert timing["tokens_per_s"] == pytest.approx(rows * 1000 / timing["ms_per_token"])
    ledger = timing["ledger"]
    assert set(ledger) == {
        "build_s", "fused_ms", "update_ms", "other_ms", "absorb_ms",
    }  # fmt: skip
    assert ledger.pop("absorb_ms") in (None, pytest.approx(0.0, abs=50.0))
    assert all(value > 0 for value in ledger.values())
    longest = max(sum(map(len, model.encode(example))) for example in EXAMPLES[:rows])
    assert timing["context_tokens"] == longest
    assert timing["steps_by"] == "states"
    read = sum(len(part) for example in EXAMPLES[:rows] for part in model.encode(example))
    assert timing["prefill_tokens_per_s"] * timing["ttft_s"] == pytest.approx(read)
    assert memory["kv_bytes"] > 0
    assert memory["index_bytes"] > 0
    assert memory["peak_host_bytes"] > 10**7


def test_clocks_leave_no_trace_and_change_no_answer(model: HuggingFaceModel) -> None:
    prompts = [model.encode(EXAMPLES[0])]
    session, logits_BV = subject(model, RETRO).read(prompts, 4)
    twin = session.fork(1)
    ledger: dict[str, float] = {"fused_ms": 0.0, "update_ms": 0.0}
    before = {id(layer[0]): set(vars(layer[0])) for layer in session.states}
    with clocked(session, ledger, ("fused_ms", "update_ms")):
        first = session.decode([7])
    assert {id(layer[0]): set(vars(layer[0])) for layer in session.states} == before
    torch.testing.assert_close(first, twin.decode([7]))
    spent = dict(ledger)
    session.decode([8])
    assert ledger == spent
    assert all(value > 0 for value in spent.values())
    assert logits_BV.shape[0] == 1


def test_a_prompt_that_fills_the_model_still_has_its_passes(model: HuggingFaceModel) -> None:
    text = Example("full", "The sky is blue. " * 60, "What?", ("the sky is blue",), 8)
    spare = 1024 - sum(map(len, model.encode(text)))
    text = replace(text, context=text.context + "7" * (spare - 5))  # no digits merge
    assert 0 < 1024 - sum(map(len, model.encode(text))) < 10
    timing, _ = latency(subject(model, Full()), [text], warmup=2, steps=12)
    assert timing["context_tokens"] == 1024 - 2 - 12 - 8
    found = recall(subject(model, Full()), [text], steps=16, at=10)
    assert found is not None
    assert 0 < found["tokens"] < 10
    spare = 1024 - sum(map(len, model.encode(text)))
    text = replace(text, context=text.context + "7" * spare)
    assert sum(map(len, model.encode(text))) == 1024
    assert recall(subject(model, Full()), [text], steps=16, at=10) is None  # nothing can follow
