"""The fingerprint changes when a number could change, and only then."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.fingerprint import digest, identity, pairing
from longspan.methods.full import Full
from longspan.methods.retroinfer import RetroInfer
from longspan.methods.streaming_llm import StreamingLLM
from longspan.models.generation import Sampling
from longspan.prefill.full import FullPrefill
from longspan.prefill.minference import MInference
from longspan.prefill.xattention import XAttention
from longspan.request import LatencySizes, Measures, RecallSizes, Request
from longspan.tasks.json_file import JsonFile

if TYPE_CHECKING:
    from pathlib import Path

    from tests.runner.conftest import Cli

    from longspan.prefill.base import Prefill


def of(
    path: Path | str,
    *,
    method: Any = None,
    request: Request | None = None,
    sampling: Sampling | None = None,
    weights: str = "abc",
    prefill: Prefill | None = None,
    chunk: int = 8192,
    **task: Any,
) -> dict[str, Any]:
    model: Any = SimpleNamespace(
        identity=lambda: {"weights": weights, "dtype": "float32"},
        device=torch.device("cpu"),
        chunk_tokens=chunk,
    )
    return identity(
        model,
        method or Full(),
        JsonFile(path=str(path), **task),
        request or Request(),
        sampling or Sampling(),
        prefill,
    )


NEUTRAL: dict[str, Any] = {
    "samples": 99,
    "batch": 7,
    "threads": 3,
    "results": "elsewhere",
    "debug": True,
    "partial_seconds": 1.0,
    "prompts_gb": 1.0,
    "partial_states": False,
    "measure": Measures(quality=False, recall=RecallSizes(steps=2), latency=LatencySizes(steps=2)),
}
TELLING: dict[str, Any] = {
    "ctx": 4096,
    "seed": 1,
    "protocol": "question_sparse",
    "max_new_tokens": 5,
}


def test_every_field_of_a_request_either_tells_or_does_not() -> None:
    assert set(NEUTRAL) | set(TELLING) == set(Request.__dataclass_fields__)


@given(st.sets(st.sampled_from(sorted(NEUTRAL))), st.sets(st.sampled_from(sorted(TELLING))))
@settings(max_examples=60, deadline=None)
def test_requests_are_told_apart_by_what_changes_numbers(
    questions: Path, neutral: set[str], telling: set[str]
) -> None:
    changes = {name: {**NEUTRAL, **TELLING}[name] for name in neutral | telling}
    same = digest(of(questions, request=replace(Request(), **changes))) == digest(of(questions))
    assert same == (not telling)


@given(
    budget=st.floats(0.001, 1), other=st.floats(0.001, 1), sink=st.integers(0, 9),
    more=st.integers(0, 9),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_methods_are_told_apart_by_their_settings(
    questions: Path, budget: float, other: float, sink: int, more: int
) -> None:
    one = RetroInfer(retrieval_budget=budget, sink_tokens=sink)
    two = RetroInfer(retrieval_budget=other, sink_tokens=more)
    same = digest(of(questions, method=one)) == digest(of(questions, method=two))
    assert same == ((budget, sink) == (other, more))


def test_the_method_is_all_that_a_pairing_leaves_out(questions: Path) -> None:
    full, streaming = of(questions), of(questions, method=StreamingLLM())
    assert digest(full) != digest(streaming)
    assert pairing(full) == pairing(streaming)
    assert pairing(full) != pairing(of(questions, request=Request(seed=1)))


@pytest.mark.parametrize("prefill", [None, FullPrefill(), MInference(), XAttention()])
def test_chunks_tell_where_a_prefill_chooses_by_them(
    questions: Path, prefill: Prefill | None
) -> None:
    one, two = (of(questions, prefill=prefill, chunk=chunk) for chunk in (512, 8192))
    exact = prefill is None or prefill.name == "full"
    assert (digest(one) == digest(two)) == exact
    assert pairing(one) == pairing(two) == pairing(of(questions))


@pytest.mark.parametrize(
    "change",
    [
        {"weights": "abd"},
        {"sampling": Sampling(temperature=0.5)},
        {"sampling": Sampling(ignore_eos=True)},
        {"metric": "any"},
        {"prefix": "The answer is"},
    ],
)
def test_model_sampling_and_task_tell(questions: Path, change: dict[str, Any]) -> None:
    assert digest(of(questions, **change)) != digest(of(questions))


def test_the_data_tell_and_their_place_does_not(questions: Path, tmp_path: Path) -> None:
    copy = tmp_path / questions.name
    copy.write_bytes(questions.read_bytes())
    assert digest(of(copy)) == digest(of(questions))
    copy.write_text(questions.read_text().replace("green", "brown"))
    assert digest(of(copy)) != digest(of(questions))


def test_a_version_tells(questions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest(of(questions))
    monkeypatch.setattr(JsonFile, "version", 99)
    raised = digest(of(questions))
    monkeypatch.setattr("longspan.__version__", "9.9")
    assert len({before, raised, digest(of(questions))}) == 3


def test_the_folder_holds_what_was_hashed(cli: Cli) -> None:
    done = cli("samples=1")
    kept = done.json("fingerprint.json")
    assert kept.pop("pairing") == done.json("summary.json")["pairing"]
    assert digest(kept) == done.json("summary.json")["fingerprint"]
