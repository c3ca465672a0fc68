"""Jobs of a sweep that read the same prompts: once, with the same numbers as if each read them."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from longspan.models import session as sessions
from longspan.models.prompts import Prompts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.runner.conftest import Cli, Done

SWEEP = ("-m", "method=full,streaming_llm,quest", "measure=all", "measure.latency.steps=2")
KNOWN = r"(\d+) prompts had been read before"


def numbers(done: Done) -> dict[str, Any]:
    """Samples and recall by run."""
    found = {}
    for file in sorted(done.results.rglob("recall.json")):
        samples = (file.parent / "samples.jsonl").read_text().splitlines()
        recall = json.loads(file.read_text())["found"]
        found[file.parent.name] = recall, [json.loads(line) for line in samples]
    return found


def test_they_are_read_once_and_the_numbers_are_the_same(cli: Cli, tmp_path: Path) -> None:
    done = cli(*SWEEP)
    assert done.code == 0, done.err
    assert re.findall(KNOWN, done.err) == ["4", "4"]
    apart = cli(*SWEEP, "prompts_gb=0", f"results={tmp_path / 'apart'}")
    assert "been read before" not in apart.err
    assert "prompts_gb" not in apart.err
    assert numbers(done._replace(results=tmp_path / "apart")) == numbers(done)
    assert len(numbers(done)) == 3


def test_a_single_job_and_a_sparse_prefill_read_for_themselves(cli: Cli) -> None:
    assert "been read before" not in cli().err
    done = cli("-m", "prefill=xattention,minference,full", "samples=5")
    assert "been read before" not in done.err, done.err


def test_recall_does_not_read_what_was_answered(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    inner = Prompts.known

    @contextmanager
    def counted(self: Prompts, *facts: Any) -> Iterator[Any]:
        with inner(self, *facts) as left:
            yield left
        kept.append(self.given)

    monkeypatch.setattr(Prompts, "known", counted)
    done = cli("measure=all", "measure.latency.enabled=false", "method=quest", "samples=5")
    assert done.code == 0, done.err
    assert kept == [0, 0, 0, 0, 0, 1, 2]


def test_what_finds_no_room_is_told(cli: Cli) -> None:
    done = cli("-m", "method=full,quest", "prompts_gb=1e-4")
    assert done.code == 0, done.err
    told = re.findall(r"(\d) prompts are not kept for later jobs: prompts_gb = 0.0001", done.err)
    known = re.findall(KNOWN, done.err)
    assert told
    assert [int(each) for each in known] == [4 - int(told[0])] * bool(known)
    over = "measure=all", "measure.latency.enabled=false", "method=streaming_llm"
    alone = cli(*over, "prompts_gb=1e-4")
    assert "recall reads prompts again: prompts_gb = 0.0001 is full" in alone.err
    assert "later jobs" not in alone.err
    assert cli("-m", "prompts_gb=1e300").code == 0  # bytes of it are no number


def test_another_model_knows_no_prompts(cli: Cli) -> None:
    done = cli("-m", "model.dtype=float32,bfloat16")
    assert done.code == 0, done.err
    assert "been read before" not in done.err


@pytest.mark.parametrize("over", ["measure=all", "prefill=full,xattention"])
def test_who_reads_for_himself_has_the_room_too(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, over: str
) -> None:
    made: list[Prompts] = []
    held: list[int] = []
    init, check = Prompts.__init__, sessions.check_room

    def noted(self: Prompts, *facts: Any) -> None:
        init(self, *facts)
        made.append(self)

    def short(*facts: Any) -> None:
        if held_now := sum(each.nbytes for each in made):
            held.append(held_now)
            raise ValueError(f"{held_now} bytes would be enough")
        check(*facts)

    monkeypatch.setattr(Prompts, "__init__", noted)
    monkeypatch.setattr(sessions, "check_room", short)
    done = cli("-m", "samples=1", "measure.recall.enabled=false", "measure.latency.steps=2", over)
    assert done.code == 0, done.err
    assert len(held) == 1


def test_memory_is_told_without_what_is_kept(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    held = property(lambda self: 10**12, lambda self, value: None)
    monkeypatch.setattr(Prompts, "nbytes", held, raising=False)
    done = cli("-m", "measure=latency", "measure.latency.steps=2", "prompts_gb=2000")
    assert done.json("latency.json")["memory"]["peak_host_bytes"] < 0
