"""A killed run loses nothing and doubles nothing; a long answer goes on where it stood."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from longspan.indexes.wave import WaveIndex
from longspan.measures.answers import Job
from longspan.measures.base import Subject, Voice
from longspan.measures.quality import Quality
from longspan.methods.full import Full
from longspan.methods.retrieval_attention import RetrievalAttention
from longspan.methods.retroinfer import RetroInfer
from longspan.models.generation import Sampling, Stream, Taught, generate
from longspan.models.huggingface import HuggingFace
from longspan.partials import Partials
from longspan.tasks.json_file import JsonFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.runner.conftest import Cli

    from longspan.indexes.base import Segment
    from longspan.measures.answers import Answer
    from longspan.methods.base import Method
    from longspan.models.huggingface import HuggingFaceModel
    from longspan.types import Example, Record

ROOT = Path(__file__).parents[2]


def ids(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_kill_9_loses_and_doubles_no_sample(arguments: list[str], cli: Cli, tmp_path: Path) -> None:
    data = tmp_path / "many.jsonl"
    rows = [{"input": f"Count from {n}.", "outputs": [str(n)]} for n in range(200)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = [f"task.path={data}", "samples=200", "generation.max_new_tokens=20"]
    kept = [each for each in arguments if each.split("=")[0] not in {m.split("=")[0] for m in more}]
    command = [sys.executable, str(ROOT / "run.py"), *kept, *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=tmp_path, env=environment) as process:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            files = list((tmp_path / "results").rglob("samples.jsonl"))
            if files and files[0].read_bytes().count(b"\n") >= 5:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    (samples,) = (tmp_path / "results").rglob("samples.jsonl")
    before = samples.read_bytes()
    assert 5 <= before.count(b"\n") < 60, "it was to be killed in the middle"
    some = before.count(b"\n") + 5
    done = cli(*more[:1], f"samples={some}", more[2])
    assert done.code == 0, done.err
    assert samples.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    assert len(ids(samples)) == len(set(ids(samples))) == some


@pytest.fixture(scope="module")
def model(tiny_path: Path) -> HuggingFaceModel:
    return HuggingFace(path=str(tiny_path), dtype="float32", device="cpu").load()


@pytest.fixture(scope="module")
def task(questions: Path) -> JsonFile:
    return JsonFile(path=str(questions), max_new_tokens=24)


@pytest.fixture(scope="module")
def examples(model: HuggingFaceModel, task: JsonFile) -> Sequence[Example]:
    return task.examples(model.tokenizer, None, 3, 0)


def quality(
    model: HuggingFaceModel,
    task: JsonFile,
    sampling: Sampling,
    batch: int = 1,
    method: Method | None = None,
    keep: bool = False,
) -> Quality:
    def speak(*given: Any) -> Any:
        ends = frozenset[int]()
        return generate(*given, tokenizer=model.tokenizer, eos_ids=ends, sampling=sampling, seed=3)

    subject = Subject(model=model, method=method or Full(), protocol="question_dense")
    return Quality(
        subject, task, Voice(stream=Stream, taught=Taught, generate=speak), batch=batch, keep=keep
    )


class Stopped(RuntimeError):
    pass


def stopped_after(tokens: int, partials: Partials) -> Any:
    def growing(answers: Sequence[Answer]) -> None:
        partials.growing(answers)
        if max(len(answer.stream.tokens) for answer in answers) == tokens:
            raise Stopped

    return growing


def answers(records: list[Record]) -> dict[tuple[str, int], str]:
    return {(record.id, record.sample): record.prediction for record in records}


SMALL: dict[str, Any] = {"sink_tokens": 2, "local_tokens": 4, "update_tokens": 5}
METHODS: dict[str, Method] = {
    "full": Full(),
    "retroinfer": RetroInfer(**SMALL, tokens_per_cluster=4, retrieval_budget=0.1),
    # a walk that begins where the last one ended begins elsewhere after a crash
    "retrieval_attention": RetrievalAttention(**SMALL, top_tokens=2, beam=8, degree=4, seeds=0),
}


def killed(
    folder: Path, passes: Quality, examples: Sequence[Example], after: int, kept: Sequence[int] = ()
) -> None:
    """Begin the answers and stop after so many tokens; go on `kept` times and stop again."""
    for stop in (*kept, after):
        begun = Partials(folder, 0.0)
        jobs = [Job(each, (0,), begun.of(each.id, (0,))) for each in examples]
        with pytest.raises(Stopped), begun as partials:
            list(passes(jobs, stopped_after(stop, partials)))


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("method", list(METHODS))
def test_an_answer_goes_on_exactly_where_it_was_written_down(
    model: HuggingFaceModel,
    task: JsonFile,
    examples: Sequence[Example],
    tmp_path: Path,
    temperature: float,
    method: str,
) -> None:
    sampling = Sampling(temperature=temperature)
    passes = quality(model, task, sampling, batch=2, method=METHODS[method], keep=True)
    whole = list(passes([Job(example, (0,)) for example in examples]))
    killed(tmp_path, passes, examples, after=15, kept=[1, 9])
    with Partials(tmp_path, 0.0) as partials:
        jobs = [Job(each, (0,), partials.of(each.id, (0,))) for each in examples]
        assert [len(job.begun[0].tokens) for job in jobs[:2]] == [15, 15]
        assert not jobs[2].begun
        records = []
        for record in passes(jobs):
            partials.done(record.id, record.sample)
            records.append(record)
        assert not (tmp_path / "partials").exists()
    assert answers(records) == answers(whole)
    assert [record.work for record in records] == [record.work for record in whole]
    assert [record.meta.get("resumed_tokens") for record in records] == [15, 15, None]
    assert not any("reread_tokens" in record.meta for record in records)
    assert [record.new_tokens for record in records] == [24, 24, 24]
    assert not (tmp_path / "partials.jsonl").exists()


def test_going_on_reads_nothing_but_the_prompt(
    model: HuggingFaceModel,
    task: JsonFile,
    examples: Sequence[Example],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes = quality(model, task, Sampling(), method=METHODS["retroinfer"], keep=True)
    killed(tmp_path, passes, examples[:1], after=15)
    read, decoded = counted(model, monkeypatch)
    with Partials(tmp_path, 0.0) as partials:
        list(passes([Job(examples[0], (0,), partials.of(examples[0].id, (0,)))]))
    assert read == [sum(map(len, model.encode(examples[0])))]
    assert sum(decoded) == 24 - 15


@pytest.mark.parametrize("method", ["full", "retroinfer"])
def test_without_the_models_states_an_answer_is_read_again(
    model: HuggingFaceModel,
    task: JsonFile,
    examples: Sequence[Example],
    tmp_path: Path,
    method: str,
) -> None:
    passes = quality(model, task, Sampling(temperature=0.7), method=METHODS[method])
    (whole,) = passes([Job(examples[0], (0,))])
    killed(tmp_path, passes, examples[:1], after=15)
    assert not (tmp_path / "partials").exists()
    with Partials(tmp_path, 0.0) as partials:
        (record,) = passes([Job(examples[0], (0,), partials.of(examples[0].id, (0,)))])
    assert record.meta["reread_tokens"] == 15
    if method == "full":
        assert record.prediction == whole.prediction


def test_an_answer_that_is_read_again_may_want_one_token_only(
    model: HuggingFaceModel, task: JsonFile, examples: Sequence[Example], tmp_path: Path
) -> None:
    """It comes from what was read, without a decode step of which work could be told."""
    passes = quality(model, task, Sampling())
    (whole,) = passes([Job(examples[0], (0,))])
    killed(tmp_path, passes, examples[:1], after=23)
    with Partials(tmp_path, 0.0) as partials:
        (record,) = passes([Job(examples[0], (0,), partials.of(examples[0].id, (0,)))])
    assert (record.prediction, record.new_tokens) == (whole.prediction, 24)
    assert (record.meta["reread_tokens"], record.work) == (23, {})


def test_a_damaged_partial_is_no_harm(tmp_path: Path) -> None:
    good = {"id": "a", "sample": 0, "start": 0, "stop": 2, "tokens": [1, 2], "block": [0, 10]}
    gap = {"id": "a", "sample": 0, "start": 5, "stop": 6, "tokens": [9], "block": None}
    text = f"{json.dumps(good)}\n{json.dumps(gap)}\n" + '{"id": "b", "sam'
    (tmp_path / "partials.jsonl").write_text(text)
    found = Partials(tmp_path, 1.0).of("a", (0, 1))
    assert list(found) == [0]
    assert found[0].tokens == [1, 2]
    assert found[0].blocks is None, "its block is not there"


def test_a_line_cut_short_spoils_no_later_one(
    model: HuggingFaceModel, task: JsonFile, examples: Sequence[Example], tmp_path: Path
) -> None:
    passes = quality(model, task, Sampling())
    killed(tmp_path, passes, examples[:1], after=5)
    path = tmp_path / "partials.jsonl"
    path.write_bytes(path.read_bytes() + b'{"id": "b", "sam')
    killed(tmp_path, passes, examples[:1], after=9)
    (begun,) = Partials(tmp_path, 1.0).of(examples[0].id, (0,)).values()
    assert len(begun.tokens) == 9


def test_nothing_stays_of_an_answer_that_is_recorded(
    model: HuggingFaceModel, task: JsonFile, examples: Sequence[Example], tmp_path: Path
) -> None:
    """Its text may be private; the others go on."""
    passes = quality(model, task, Sampling(), batch=2, keep=True)
    killed(tmp_path, passes, examples[:2], after=9)
    gone, left = (example.id for example in examples[:2])
    partials = Partials(tmp_path, 1.0)
    partials.done(gone, 0)
    lines = [json.loads(x) for x in (tmp_path / "partials.jsonl").read_text().splitlines() if x]
    assert {line["id"] for line in lines} == {left}
    assert len(list((tmp_path / "partials").iterdir())) == 1
    found = Partials(tmp_path, 1.0)
    assert not found.of(gone, (0,))
    assert len(found.of(left, (0,))[0].tokens) == 9


def counted(
    model: HuggingFaceModel, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[int], list[int]]:
    """What sessions are told to read and to decode from here on: tokens a call."""
    session = type(model.session(Full()))
    prefill, decode = session.prefill, session.decode
    read: list[int] = []
    decoded: list[int] = []

    def reading(self: Any, rows: Any, *rest: Any) -> Any:
        read.append(sum(map(len, rows)))
        return prefill(self, rows, *rest)

    def decoding(self: Any, tokens: Any) -> Any:
        decoded.append(len(tokens))
        return decode(self, tokens)

    monkeypatch.setattr(session, "prefill", reading)
    monkeypatch.setattr(session, "decode", decoding)
    return read, decoded


def test_several_answers_of_one_prompt_read_it_once(
    model: HuggingFaceModel,
    task: JsonFile,
    examples: Sequence[Example],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method = METHODS["retroinfer"]
    passes = quality(model, task, Sampling(temperature=0.8), batch=2, method=method)
    alone = [
        record
        for example in examples[:2]
        for sample in range(3)
        for record in passes([Job(example, (sample,))])
    ]
    read, _ = counted(model, monkeypatch)
    built: list[int] = []
    build = WaveIndex.build

    def building(self: WaveIndex, segment: Segment) -> Any:
        built.append(segment.first_slot)
        return build(self, segment)

    monkeypatch.setattr(WaveIndex, "build", building)
    together = list(passes([Job(examples[0], (0, 1, 2)), Job(examples[1], (1, 2))]))
    assert built.count(2) == 2 * len(model.geometries), "an index a layer of each prompt"
    assert read == [sum(len(part) for each in examples[:2] for part in model.encode(each))]
    expected = answers(alone)
    del expected[examples[1].id, 0]
    assert answers(together) == expected
    assert len({record.prediction for record in together}) > 2
