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
import torch

from longspan.measures.base import Subject, Voice
from longspan.measures.quality import Job, Quality
from longspan.methods.full import Full
from longspan.models.generation import Sampling, Stream, generate
from longspan.models.huggingface import HuggingFace
from longspan.partials import Partials
from longspan.tasks.json_file import JsonFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.runner.conftest import Cli

    from longspan.measures.quality import Answer
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


def quality(model: HuggingFaceModel, task: JsonFile, sampling: Sampling, batch: int = 1) -> Quality:
    def speak(*given: Any) -> Any:
        ends = frozenset[int]()
        return generate(*given, tokenizer=model.tokenizer, eos_ids=ends, sampling=sampling, seed=3)

    subject = Subject(model=model, method=Full(), protocol="question_dense")
    return Quality(subject, task, Voice(stream=Stream, generate=speak), batch=batch)


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


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_an_answer_goes_on_where_it_was_written_down(
    model: HuggingFaceModel,
    task: JsonFile,
    examples: Sequence[Example],
    tmp_path: Path,
    temperature: float,
) -> None:
    torch.manual_seed(0)
    passes = quality(model, task, Sampling(temperature=temperature), batch=2)
    whole = answers(list(passes([Job(example, (0,)) for example in examples])))
    with pytest.raises(Stopped), Partials(tmp_path, 0.0) as partials:
        list(passes([Job(each, (0,)) for each in examples], stopped_after(9, partials)))
    with Partials(tmp_path, 0.0) as partials:
        jobs = [Job(each, (0,), partials.of(each.id, (0,))) for each in examples]
        assert [len(job.begun.get(0, ())) for job in jobs] == [9, 9, 0]
        records = list(passes(jobs))
    assert answers(records) == whole
    assert [record.meta.get("resumed_tokens") for record in records] == [9, 9, None]
    assert [record.new_tokens for record in records] == [24, 24, 24]
    assert not (tmp_path / "partials.jsonl").exists()


def test_a_damaged_partial_is_no_harm(tmp_path: Path) -> None:
    good = {"id": "a", "sample": 0, "start": 0, "tokens": [1, 2]}
    gap = {"id": "a", "sample": 0, "start": 5, "tokens": [9]}
    text = f"{json.dumps(good)}\n{json.dumps(gap)}\n" + '{"id": "b", "sam'
    (tmp_path / "partials.jsonl").write_text(text)
    assert Partials(tmp_path, 1.0).of("a", (0, 1)) == {0: [1, 2]}


def test_several_answers_of_one_prompt_read_it_once(
    model: HuggingFaceModel,
    task: JsonFile,
    examples: Sequence[Example],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes = quality(model, task, Sampling(temperature=0.8), batch=2)
    alone = [
        record
        for example in examples[:2]
        for sample in range(3)
        for record in passes([Job(example, (sample,))])
    ]
    read: list[int] = []
    session = type(model.session(Full()))
    prefill = session.prefill

    def counted(self: Any, rows: Any, *rest: Any) -> Any:
        read.append(sum(map(len, rows)))
        return prefill(self, rows, *rest)

    monkeypatch.setattr(session, "prefill", counted)
    together = list(passes([Job(examples[0], (0, 1, 2)), Job(examples[1], (1, 2))]))
    assert read == [sum(len(part) for each in examples[:2] for part in model.encode(each))]
    expected = answers(alone)
    del expected[examples[1].id, 0]
    assert answers(together) == expected
    assert len({record.prediction for record in together}) > 2
