"""What is answered together, and how far a pass goes on, changes no answer of a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.tiny_models import save_tiny

if TYPE_CHECKING:
    from pathlib import Path

    from tests.runner.conftest import Cli


@pytest.fixture(scope="module")
def longrope(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other frequencies from 64 tokens on, and so other answers."""
    return save_tiny("phi3_longrope", tmp_path_factory.mktemp("tiny"), initializer_range=0.3)


def answers(cli: Cli, model: Path, results: Path, *overrides: str) -> dict[str, Any]:
    """Predictions by example."""
    short = "task.max_new_tokens=12", "generation.max_new_tokens=null"
    done = cli(f"model.path={model}", f"results={results}", *short, *overrides)
    assert done.code == 0, done.err
    (path,) = results.rglob("samples.jsonl")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return {record["id"]: record["prediction"] for record in records}


@pytest.mark.parametrize("ctx", ["null", "128"])
def test_rows_of_a_batch_have_frequencies_of_their_own(
    cli: Cli, longrope: Path, tmp_path: Path, ctx: str
) -> None:
    """Prompts of 28 to 85 tokens."""
    alone, together = (
        answers(cli, longrope, tmp_path / batch, f"ctx={ctx}", f"batch={batch}", "samples=8")
        for batch in ("1", "8")
    )
    assert together == alone


def test_the_frequencies_are_those_of_ctx(cli: Cli, longrope: Path, tmp_path: Path) -> None:
    by_ctx = {
        ctx: answers(cli, longrope, tmp_path / ctx, f"ctx={ctx}", "samples=2")
        for ctx in ("64", "128", "null")
    }
    assert by_ctx["64"] != by_ctx["128"] == by_ctx["null"]
