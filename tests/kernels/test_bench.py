"""Every benchmark runs, at a tiny size, or it would rot: what they measure changes."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
import torch

pytest.importorskip("faiss", reason="the faiss extra is not installed")
sys.path.insert(0, str(Path(__file__).parents[2] / "kernels" / "bench"))

import bench_attention_graph
import bench_retroinfer
import capture
import run
from finished import Finished
from ood_keys import ood_keys
from tables import Settings, header

TINY = Settings(tokens=2048, rounds=1)
CASES = sorted(run.all_cases(TINY))
TWICE = {"attention_graph captured 1024 layer 4"}
"""Cases that differ from another by their size only."""


@pytest.mark.parametrize("case", [case for case in CASES if case not in TWICE])
def test_every_case_gives_a_table(
    case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert set(CASES) >= TWICE
    monkeypatch.setattr(capture, "OUT", tmp_path)
    monkeypatch.setattr(bench_retroinfer, "COLD_BYTES", 0.0)
    monkeypatch.setattr(bench_attention_graph, "SMALL_WORLDS", ((16, True),))
    monkeypatch.setattr(bench_attention_graph, "ood_keys", partial(ood_keys, train=64, test=4))
    with torch.no_grad():
        tables = run.all_cases(TINY)[case]()
    for table in tables:
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.head)}
        assert table.title in table.markdown()


def test_what_was_measured_is_kept_and_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("finished.FOLDER", tmp_path)
    finished = Finished("a machine", TINY)
    assert finished.get("merge") == []
    (table,) = run.all_cases(TINY)["merge"]()
    (kept,) = finished.put("merge", [table], 3.0)
    assert Finished("a machine", TINY).get("merge")[0].markdown() == kept.markdown()
    assert Finished("another", TINY).get("merge") == []
    assert header(TINY).startswith("# Kernel benchmarks on ")


def test_a_record_keeps_the_cases_that_were_not_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(run, "HERE", tmp_path)
    path = run.write(TINY, ["## merge: 4\n\nold\n", "## search\n\nkept\n"])
    assert run.write(TINY, ["## merge: 4\n\nnew\n", "## sort\n\nfirst\n"]) == path
    text = path.read_text()
    assert [line for line in text.split("\n") if line][2:] == [
        "## merge: 4", "new", "## search", "kept", "## sort", "first"
    ]  # fmt: skip
    for number in (1, 2):
        older = text.replace("torch", f"torch before {number},", 1)
        path.write_text(older)
        run.write(TINY, ["## sort\n\nlast\n"])
        assert path.read_text() == header(TINY) + "\n## sort\n\nlast\n"
        assert path.with_stem(f"{path.stem}-before-{number}").read_text() == older
