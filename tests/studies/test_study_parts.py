"""What the studies share: a prompt read once is as good as one read anew, rows survive a kill."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
import torch
from tests.methods.cases import assert_close, layer, sealed
from tests.tiny_models import save_tiny

from longspan.measures.base import Subject
from longspan.measures.recall import recall
from longspan.methods.full import Full
from longspan.methods.infinigen import InfiniGen
from longspan.methods.retrieval_attention import RetrievalAttention
from longspan.methods.retroinfer import RetroInfer
from longspan.methods.streaming_llm import StreamingLLM
from longspan.models.huggingface import HuggingFace
from longspan.studies.allocation import calibrated, pyramid
from longspan.studies.once import Once, branch
from longspan.studies.quantised import FORMATS, Format
from longspan.studies.rows import Rows
from longspan.studies.scored import compared
from longspan.studies.study import begin, launch
from longspan.studies.trace import Read, Trace, replay
from longspan.types import Example

if TYPE_CHECKING:
    from longspan.models.base import Model

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "sparsity" / "study.py"
PROMPT, STEPS = 1301, 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("tiny") / "llama"
    save_tiny("llama", path, initializer_range=0.3, max_position_embeddings=2048)
    return HuggingFace(path=str(path), dtype="float32", device="cpu").load()


@pytest.fixture(scope="module")
def trace() -> Trace:
    data = layer(PROMPT + STEPS)
    steps = [(data.q_HTD[:, t], data.oracle(t)) for t in range(PROMPT, PROMPT + STEPS)]
    return Trace(data.geometry, data.k_GTD, data.v_GTD, steps, data.q_HTD[:, :PROMPT])


@pytest.mark.parametrize(
    "method",
    [
        Full(),
        StreamingLLM(),
        RetroInfer(retrieval_budget=0.1),
        RetrievalAttention(top_tokens=20),
        InfiniGen(top_tokens=20),
    ],
    ids=lambda method: method.name,
)
def test_a_prompt_read_once_goes_on_as_any_method(model: Model, method: Full) -> None:
    ids = torch.randint(3, 300, (1400,), generator=torch.Generator().manual_seed(0)).tolist()
    once, anew = model.session(Once(), 1, 1410), model.session(method, 1, 1410)
    torch.testing.assert_close(once.prefill([ids]), anew.prefill([ids]))
    first, second = branch(once, method), branch(once, method)
    for token in (5, 7, 11):
        right = anew.decode([token])
        torch.testing.assert_close(first.decode([token]), right)
        torch.testing.assert_close(second.decode([token]), right)
    state, twin = first.states[0][0], anew.states[0][0]
    assert state.work() == twin.work()
    assert state.memory()["index_bytes"] == twin.memory()["index_bytes"]
    assert once.lengths == [1400], "the prompt's own session stays where it was"


@pytest.mark.parametrize("method", [Full(), StreamingLLM(budget=0.05)], ids=lambda m: m.name)
def test_what_is_expected_next_is_what_the_recall_pass_says(model: Model, method: Full) -> None:
    example = Example("0", "The sky is blue. " * 40, "What is blue?", ("the sky", "9"), 8)
    read = Read(model, example, 12)
    assert read.expectations(Full(), 5)["kl"] < 1e-6
    subject = Subject(model=model, method=method, protocol="question_dense")
    right = recall(subject, [example], steps=12, at=10)
    assert right is not None
    found = read.expectations(method, 12)
    assert found["kl"] == pytest.approx(right["mean"]["kl"], rel=1e-3, abs=1e-6)
    assert found["agreement"] == pytest.approx(right["mean"]["agreement"])
    assert (found["kl"] > 0.01) == (method.name != "full")


def test_full_attention_goes_on_by_itself(model: Model) -> None:
    once, anew = model.session(Once(), 1, 40), model.session(Full(), 1, 40)
    once.prefill([list(range(3, 33))])
    anew.prefill([list(range(3, 33))])
    torch.testing.assert_close(once.decode([5]), anew.decode([5]))


def test_a_trace_is_what_a_state_saw(trace: Trace) -> None:
    data = layer(PROMPT + STEPS)
    state = sealed(data, RetroInfer(), PROMPT)
    replayed = trace.state(RetroInfer())
    for step, (q_HD, _) in enumerate(trace.steps):
        right = data.step(state, PROMPT + step)
        replayed.append(trace.k_GTD[:, PROMPT + step], trace.v_GTD[:, PROMPT + step])
        assert_close(replayed.decode(q_HD), right)
    weight_HT = trace.weights_HT(1)
    assert weight_HT.shape[1] == PROMPT + 2
    torch.testing.assert_close(weight_HT, data.scores(PROMPT + 1, PROMPT + 2).softmax(-1).float())


def test_replays_of_full_attention_are_exact_and_of_less_are_not(trace: Trace) -> None:
    full, less = replay(Full(), trace), replay(RetroInfer(estimation="none"), trace)
    assert full["exact"] == 1.0
    assert full["error"] < 1e-5
    assert abs(full["mass"] - 1) < 1e-5
    assert less["exact"] < 0.2
    assert less["error"] > 0.01
    assert less["bias"] < 0
    assert less["bytes"] < full["bytes"]


def test_shares_fall_as_a_pyramid() -> None:
    shares = pyramid(0.05, 5)
    assert sum(shares) / 5 == pytest.approx(0.05)
    assert shares == tuple(sorted(shares, reverse=True))
    assert shares[-1] == pytest.approx(0.05 / 20)
    assert pyramid(0.1, 1) == (0.1,)
    steep = pyramid(0.9, 4)  # no layer has more than everything
    assert sum(steep) / 4 == pytest.approx(0.9)
    assert (steep[0], steep[-1]) == (1, pytest.approx(0.8))


def test_the_budget_goes_where_it_gains_most() -> None:
    flat, steep = {0.01: 0.9, 0.05: 0.91, 0.1: 0.92}, {0.01: 0.1, 0.05: 0.5, 0.1: 0.8}
    assert calibrated(0.055, [flat, steep]) == (0.01, 0.1)
    assert calibrated(0.1, [flat, steep]) == (0.1, 0.1)
    with pytest.raises(ValueError, match=r"mean = 0\.005"):
        calibrated(0.005, [flat, steep])


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_rounding_errs_by_half_a_step_at_most(form: Format) -> None:
    x_GTD = torch.randn(2, 45, 24, generator=torch.Generator().manual_seed(0)) + 3
    rounded = form.rounded(x_GTD, "keys")
    assert rounded.dtype == x_GTD.dtype
    assert rounded.shape == x_GTD.shape
    # |x| < 7, where floats lie 4 eps apart; integers have scales in float16
    step = 4 * torch.finfo(form.dtype).eps if form.dtype else 14.0 / (2**form.width - 2)
    scale_error = 0.0 if form.dtype else 4e-3
    assert float((rounded - x_GTD).abs().max()) <= 0.51 * step + scale_error
    assert not torch.equal(rounded, x_GTD)
    assert form.bits(24) >= form.width


def test_a_channel_with_a_range_of_its_own_needs_scales_of_its_own() -> None:
    x_GTD = torch.randn(1, 64, 32, generator=torch.Generator().manual_seed(0))
    x_GTD[..., 0] *= 100
    by_token, by_channel = (form for form in FORMATS if form.width == 8)
    errors = [
        float((form.rounded(x_GTD, "keys") - x_GTD)[..., 1:].abs().mean())
        for form in (by_token, by_channel)
    ]
    assert errors[1] < errors[0] / 10


def test_rows_are_measured_once_and_survive_a_cut(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    asked: list[int] = []

    def measure(unit: int) -> list[dict[str, float]]:
        asked.append(unit)
        return [{"value": unit / 2}]

    for unit in (1, 2):
        Rows(path).take(unit, measure)
    path.write_text(path.read_text()[:-3])
    kept = Rows(path)
    assert [kept.take(unit, measure) for unit in (1, 2, 3)] == [
        [{"value": 0.5}], [{"value": 1.0}], [{"value": 1.5}]
    ]  # fmt: skip
    assert asked == [1, 2, 2, 3]
    again = Rows(path)
    assert [again.take(unit, measure)[0]["value"] for unit in (1, 2, 3)] == [0.5, 1.0, 1.5]
    assert asked == [1, 2, 2, 3]
    assert isfinite(again.wall_s + again.cpu_s)
    assert sum("unit" in json.loads(line) for line in path.read_text().splitlines()[2:]) == 2


@dataclass(frozen=True)
class Sizes:
    ctx: int = 4096
    tasks: tuple[str, ...] = ("a",)
    share: float = 0.5


def test_sizes_come_from_the_command_line() -> None:
    line = ["--ctx", "8k", "--tasks", "a,b", "model=hf", "--share", "0.25"]
    study, sizes = begin(__file__, "", Sizes(), line)
    assert sizes == Sizes(ctx=8192, tasks=("a", "b"), share=0.25)
    assert study.overrides == ["model=hf"]
    assert study.out == study.results / "studies"


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (["--ctx", "8 kilo"], "--ctx = '8 kilo'"),
        (["--ctx", "0"], "--ctx = 0"),
        (["--size", "3"], "--size"),
        (["nano"], "'nano'"),
    ],
)
def test_a_wrong_line_is_refused(
    line: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        begin(__file__, "", Sizes(), line)
    assert left.value.code == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "named", "code"),
    [
        ("steps=3", "error: steps: no such key", 2),
        ("task=nope", "error: task = 'nope'", 2),
        ("model.dtype=nope", "error: model.dtype = 'nope'", 2),
        ("debug=true", "ZeroDivisionError", 1),
    ],
)
def test_what_goes_wrong_is_said_in_a_line(
    override: str,
    named: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def main(arguments: list[str]) -> None:
        study, _ = begin(str(EXPERIMENT), "", Sizes(), arguments)
        study.run(model="nano", samples=1)
        _ = 1 // 0

    monkeypatch.setattr(sys, "argv", ["study.py", override])
    assert launch(main) == code
    said = capsys.readouterr().err
    assert named in said
    assert ("Traceback" in said) == (override == "debug=true")


def test_an_interrupted_study_says_that_it_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    def main(arguments: list[str]) -> None:
        raise KeyboardInterrupt

    assert launch(main) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_variants_are_compared_on_the_same_examples() -> None:
    rows = [
        {"task": "t", "example": n, "group": group, "value": "", "score": score}
        for group, scores in (("full", [100.0] * 8), ("bad", [0.0] * 8), ("same", [100.0] * 8))
        for n, score in enumerate(scores)
    ]
    shown = compared(pd.DataFrame(rows), ("full", ""), "delta").set_index("group")["delta"]
    assert shown["bad"].startswith("-100.0")
    assert "not distinguishable" not in shown["bad"]
    assert shown["same"].endswith("not distinguishable")
