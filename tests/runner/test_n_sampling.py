"""Answers to one problem: more are added to those recorded, fewer take the first of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from longspan import results
from longspan.report.gather import gather
from longspan.report.groups import grouped

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.runner.conftest import Cli, Done

PROBLEMS = Path(__file__).parents[1] / "tasks/data/math500.jsonl"
SAMPLED = (
    "task=math500", f"task.path={PROBLEMS}", "samples=3", "generation.temperature=1.0",
    "generation.max_new_tokens=4", "seed=3",
)  # fmt: skip


def lines(done: Done, method: str = "") -> list[dict[str, Any]]:
    text = (done.folder(method) / "samples.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def answers(rows: Iterable[dict[str, Any]]) -> dict[tuple[str, int], str]:
    return {(row["id"], row["sample"]): row["prediction"] for row in rows}


@pytest.fixture(autouse=True)
def _score_by_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny model never answers right: scores that differ by answer."""
    from longspan.tasks.reasoning_math import MathProblems

    def score(_: object, __: object, text: str) -> float:
        return 100.0 * (sum(map(ord, text)) % 2)

    monkeypatch.setattr(MathProblems, "score", score)


def test_more_answers_are_added_to_those_recorded(cli: Cli, tmp_path: Path) -> None:
    four = lines(cli(*SAMPLED, "task.n_sampling=2"))
    done = cli(*SAMPLED, "task.n_sampling=4")
    assert done.code == 0, done.err
    assert "6 of 12 samples are already in" in done.err
    rows = lines(done)
    assert rows[:6] == four
    assert len(answers(rows)) == len(rows) == 12
    assert done.json("summary.json")["metrics"].keys() >= {"avg@4", "pass@2", "pass@4", "maj@4"}
    whole = cli(*SAMPLED, "task.n_sampling=4", f"results={tmp_path / 'whole'}")
    (path,) = (tmp_path / "whole").rglob("samples.jsonl")
    assert whole.code == 0
    assert answers(map(json.loads, path.read_text().splitlines())) == answers(rows)


def test_fewer_answers_are_the_first_of_those_recorded(cli: Cli, tmp_path: Path) -> None:
    cli(*SAMPLED, "task.n_sampling=4")
    fewer = cli(*SAMPLED, "task.n_sampling=2")
    assert "all 6 samples are already in" in fewer.err
    assert "task.n_sampling = 2: of the 4 recorded answers the first 2 count" in fewer.err
    found = fewer.json("summary.json")
    (run,) = results.read(fewer.results).to_dict("records")
    assert (run["n"], run["answers"]) == (6, 2)
    assert len(lines(fewer)) == 12
    alone = cli(*SAMPLED, "task.n_sampling=2", f"results={tmp_path / 'alone'}")
    (path,) = (tmp_path / "alone").rglob("summary.json")
    right = json.loads(path.read_text())
    assert alone.code == 0
    for key in ("n", "answers", "score", "metrics", "work", "finish"):
        assert found[key] == right[key], key
    assert "avg@2" in found["metrics"]


def test_runs_are_compared_by_the_answers_that_both_gave(cli: Cli, tmp_path: Path) -> None:
    sparse = "method=random_k"
    cli(*SAMPLED, "method=full", "task.n_sampling=2")
    right = cli(*SAMPLED, sparse, "task.n_sampling=2").json("summary.json", "random_k")
    cli(*SAMPLED, "method=full", "task.n_sampling=4")
    more = cli(*SAMPLED, sparse, "task.n_sampling=4").json("summary.json", "random_k")
    assert more["baseline_delta"]["mean"] != right["baseline_delta"]["mean"]
    done = cli(*SAMPLED, sparse, "task.n_sampling=2")
    found = done.json("summary.json", "random_k")["baseline_delta"]
    assert found == right["baseline_delta"]
    assert found["n"] == 3
    runs, samples = results.read(done.results), results.read_samples(done.results)
    (row,) = results.significance(runs, samples).to_dict("records")
    assert (row["delta"], row["low"]) == (found["mean"], found["low"])
    (group,) = grouped(gather(done.results))
    (delta,) = (each.delta for each in group.rows if each.delta)
    assert delta.interval == (found["mean"], found["low"], found["high"])


def test_jobs_of_a_sweep_have_each_their_answers(cli: Cli) -> None:
    done = cli("-m", *SAMPLED, "method=full,random_k", "task.n_sampling=3,1")
    assert done.code == 0, done.err
    assert "jobs that differ in task.n_sampling alone share a folder" in done.err
    table = [line.split() for line in done.out.splitlines() if line.startswith("math500")]
    assert [(row[3], row[4], row[5]) for row in table[:4]] == [
        ("full", "3", "9"), ("full", "1", "3"), ("random_k", "3", "9"), ("random_k", "1", "3"),
    ]  # fmt: skip
    assert sum("avg@3" in line for line in done.out.splitlines()) == 2
    assert sum("avg@1" in line for line in done.out.splitlines()) == 2
