"""What is broken, missing or hostile in a results folder is left out, named or written as text."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from tests.report.factory import Made, make

from longspan.report.gather import gather
from longspan.report.groups import grouped
from longspan.report.page import filled, page

if TYPE_CHECKING:
    from pathlib import Path


def test_a_folder_without_runs_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such folder"):
        gather(tmp_path / "none")
    with pytest.raises(ValueError, match=r"holds no finished run; python run.py results="):
        gather(tmp_path)


@pytest.mark.parametrize("broken", ["summary.json", "fingerprint.json"])
def test_a_half_written_run_is_left_out_by_name(tmp_path: Path, broken: str) -> None:
    make(tmp_path, Made())
    bad = make(tmp_path, Made(method="retroinfer", share=0.02))
    (bad / broken).unlink()
    book = gather(tmp_path)
    assert [entry.method for entry in book.entries] == ["full"]
    (line,) = book.left_out
    assert bad.name in line
    html = page(book)
    assert f"Left out: {bad.relative_to(tmp_path)}" in html
    (tmp_path / "ruler_vt/8k/nano" / bad.name / "samples.jsonl").unlink()


def test_only_a_half_written_run_is_no_report(tmp_path: Path) -> None:
    (make(tmp_path, Made()) / "summary.json").write_text('{"task": "ruler')
    with pytest.raises(ValueError, match=r"holds no finished run; .*missing or cut short"):
        gather(tmp_path)


def test_mixed_fingerprints_are_left_out_by_name(tmp_path: Path) -> None:
    make(tmp_path, Made())
    bad = make(tmp_path, Made(method="retroinfer"))
    row = json.loads((bad / "samples.jsonl").read_text().splitlines()[0])
    with (bad / "samples.jsonl").open("a") as file:
        file.write(json.dumps({**row, "id": "new", "fingerprint": "stranger"}) + "\n")
    (line,) = gather(tmp_path).left_out
    assert "the samples are of fingerprint stranger" in line


def test_a_corrupt_line_is_skipped_counted_and_named(tmp_path: Path) -> None:
    path = make(tmp_path, Made())
    with (path / "samples.jsonl").open("a") as file:
        file.write("{half\n\x00\n")
    book = gather(tmp_path)
    assert len(book.entries[0].scores) == 30
    (note,) = book.notes
    assert note.endswith("samples.jsonl: skipped 2 lines that hold no sample: 31, 32")
    assert path.name in page(book).split("Not in the tables")[1].split("</section>")[0]


EDITED = {
    "recall.json": [{"found": 5}, {"found": {"by_layer_and_head": {"recovered_mass": [[0.5]]}}}],
    "latency.json": [{"hardware": "x", "threads": 3}, {"hardware": {}, "gpus": 1}],
    "fingerprint.json": [{"method": []}, {"method": {}, "prefill": 3}],
    "summary.json": [
        {"score": {"mean": "x"}}, {"ctx": "8k"}, {"work": {"bytes_per_token": [1]}}, {"ctx": {}},
        {"task": None}, {"model": {}}, {"method": 5}, {"pairing": []},
    ],
}  # fmt: skip


@pytest.mark.parametrize(("name", "edit"), [(n, each) for n in EDITED for each in EDITED[n]])
def test_a_file_that_somebody_edited_is_left_out_by_name(
    tmp_path: Path, name: str, edit: dict[str, object]
) -> None:
    make(tmp_path, Made())
    bad = make(tmp_path, Made(method="retroinfer"))
    kept = json.loads((bad / name).read_text()) if (bad / name).exists() else {}
    (bad / name).write_text(json.dumps({**kept, **edit}))
    book = gather(tmp_path)
    (line,) = book.left_out
    assert line.startswith(f"{bad.relative_to(tmp_path) / name}: not as a run leaves it (")
    assert name in page(book)


def test_layers_are_numbers_and_no_page(tmp_path: Path) -> None:
    make(tmp_path, Made())
    bad = make(tmp_path, Made(method="retroinfer"))
    recall = json.loads((bad / "recall.json").read_text())
    for layers in (['"><img src=x onerror=alert(0)>', *range(5)], [1]):
        recall["found"]["layers"] = layers
        (bad / "recall.json").write_text(json.dumps(recall))
        book = gather(tmp_path)
        assert "recall.json: not as a run leaves it" in book.left_out[0]
        assert "<img" not in page(book)


def test_a_summary_of_fewer_samples_than_there_are_is_left_out(tmp_path: Path) -> None:
    make(tmp_path, Made())
    bad = make(tmp_path, Made(method="retroinfer"))
    summary = json.loads((bad / "summary.json").read_text())
    (bad / "summary.json").write_text(json.dumps({**summary, "n": 2}))
    (line,) = gather(tmp_path).left_out
    assert line.endswith("sums up 2 samples, and there are 30; run the same command again")


def test_what_was_not_measured_has_no_column_and_no_chart(tmp_path: Path) -> None:
    for method in ("full", "retroinfer"):
        path = make(tmp_path, Made(method=method, latency=False))
        (path / "recall.json").unlink()
    html = page(gather(tmp_path))
    assert "Milliseconds a token" not in html
    assert "data-rows=" not in html
    assert "ms/token" not in html


def test_a_run_that_only_took_time_is_shown(tmp_path: Path) -> None:
    make(tmp_path, Made(samples=0))
    html = page(gather(tmp_path))
    assert "Milliseconds a token" in html
    assert "Score against bytes read" not in html


def test_times_of_several_lengths_are_shown(tmp_path: Path) -> None:
    for ctx in (4096, 8192):
        make(tmp_path, Made(ctx=ctx, samples=0))
    html = page(gather(tmp_path))
    assert html.count("Milliseconds a token") == 2
    assert "score against context length" not in html


def test_copies_of_a_run_have_names_from_wherever_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path / "results", Made())
    shutil.copytree(path, path.with_name("copy"))
    monkeypatch.chdir(path.parent)
    (group,) = grouped(gather("."))
    assert {row.label for row in group.rows} == {"full (results, 1)", "full (results, 2)"}


def test_names_are_written_and_never_run(tmp_path: Path) -> None:
    name = "<script>alert(1)</script>&\"'"
    path = make(tmp_path, Made())
    summary = json.loads((path / "summary.json").read_text())
    (path / "summary.json").write_text(json.dumps({**summary, "task": name, "method": name}))
    html = page(gather(tmp_path))
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;&#x27;" in html
    assert filled("{{a}} {{b}}", {"a": "{{b}}", "b": "$1"}) == "{{b}} $1"


def test_runs_of_two_machines_are_not_compared_in_time(tmp_path: Path) -> None:
    make(tmp_path, Made())
    other = make(tmp_path, Made(method="retroinfer"))
    assert "did not share" not in page(gather(tmp_path))
    facts = json.loads((other / "environment.json").read_text())
    there = json.dumps({**facts, "gpus": [{"name": "a GPU"}]})
    (other / "environment.json").write_text(json.dumps({**facts, "threads": {"torch": 7}}))
    (other / "latency.json").write_text(there)  # what a later command ran on is not where it was
    html = page(gather(tmp_path))
    assert "did not share one machine" in html
    assert "A processor, 2 threads, a GPU" in html
    assert "7 threads" not in html


def test_times_of_graphs_and_of_states_are_not_compared(tmp_path: Path) -> None:
    make(tmp_path, Made())
    for method, way in (("retroinfer", "states"), ("loki", "graph")):
        file = make(tmp_path, Made(method=method)) / "summary.json"
        facts = json.loads(file.read_text())
        facts["latency"]["steps_by"] = way
        assert "did not share" not in page(gather(tmp_path))  # one of before does not say
        file.write_text(json.dumps(facts))
    assert "did not share one way of taking steps" in page(gather(tmp_path))


def test_times_of_other_batches_are_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    from longspan.report.terminal import show

    make(tmp_path, Made())
    make(tmp_path, Made(method="retroinfer", rows=4))
    said = "did not share one number of sequences decoded together: compare no times"
    assert said in page(gather(tmp_path))
    show(gather(tmp_path), Console())
    assert said in capsys.readouterr().out
