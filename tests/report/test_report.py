"""The report says what is in the folder, no more, and names what it could not read."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from tests.report.factory import Made, make

from longspan.report.gather import gather
from longspan.report.groups import grouped
from longspan.report.overview import matrices
from longspan.report.page import page
from longspan.report.tables import frame, leaderboard
from longspan.report.terminal import interval_bar, show

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from report import main  # noqa: E402


def test_every_run_is_on_the_page(swept: Path) -> None:
    html = page(gather(swept))
    runs = {path.parent.name for path in swept.rglob("summary.json")}
    assert len(runs) == 24
    assert set(re.findall(r'data-run="([^"]+)"', html)) == runs
    assert html.count("<article") == 4
    assert html.count("data-rows=") == 24  # heat maps of recovered attention
    assert html.count("Score against bytes read") == html.count("Milliseconds a token") == 4
    assert "score by needle depth" in html
    assert "mean scores by task" in html
    assert "score against context length" in html


def test_tables_of_a_file_named_like_a_copy_have_columns_of_their_own(tmp_path: Path) -> None:
    """Such as the same file before and after it was changed."""
    make(tmp_path, Made(task="json_file[my (1)]"))
    groups = 2 * grouped(gather(tmp_path))
    (matrix,) = matrices(groups)
    assert matrix.count(">json_file[my (1)]<") == matrix.count(">json_file[my (1)] (2)<") == 1


def test_the_page_needs_no_network(swept: Path) -> None:
    html = page(gather(swept))
    assert not re.search(r"https?://|//cdn|@import|<script src|<link rel=\"stylesheet", html)
    assert "default-src 'none'" in html
    assert "{{" not in html


def test_tables_hold_only_runs_of_one_pairing(swept: Path, tmp_path: Path) -> None:
    make(tmp_path, Made())
    make(tmp_path, Made(method="retroinfer", share=0.02))
    make(tmp_path, Made(method="retroinfer", share=0.02, seed=1))
    groups = grouped(gather(tmp_path))
    assert [len(group.rows) for group in groups] == [2, 1]
    assert [group.apart for group in groups] == ["seed=0", "seed=1"]
    assert groups[1].rows[0].delta is None, "its baseline is of another seed"
    assert all(len(group.rows) == 6 for group in grouped(gather(swept)))


def test_what_the_task_reports_itself_is_shown(tmp_path: Path) -> None:
    path = make(tmp_path, Made())
    summary = json.loads((path / "summary.json").read_text())
    metrics = {"avg@8": 40.0, "avg@8_se": 8.9, "category/sqa": 3.0}
    (path / "summary.json").write_text(json.dumps({**summary, "metrics": metrics}))
    book = gather(tmp_path)
    assert "avg@8 40.0 ± 8.9</td>" in page(book)
    console = Console(width=400, record=True, file=io.StringIO())
    show(book, console)
    assert "avg@8 40.0 ± 8.9" in console.export_text()


def test_labels_name_the_settings_that_differ(swept: Path) -> None:
    labels = {row.label for group in grouped(gather(swept)) for row in group.rows}
    assert labels == {
        "full", "oracle_topk", "streaming_llm", "retroinfer retrieval_budget=0.005",
        "retroinfer retrieval_budget=0.018", "retroinfer retrieval_budget=0.05",
    }  # fmt: skip


def test_a_sweep_over_batch_sizes_is_one_table(tmp_path: Path) -> None:
    for rows in (1, 4, 16):
        for method in ("full", "retroinfer"):
            make(tmp_path / f"rows-{rows}", Made(method=method, samples=0, rows=rows))
    (group,) = grouped(gather(tmp_path))
    labels = {row.label for row in group.rows}
    assert labels == {f"{name} rows={n}" for name in ("full", "retroinfer") for n in (1, 4, 16)}
    assert leaderboard(group).count("tokens/s") > 0


def test_what_cannot_be_told_apart_is_marked(tmp_path: Path) -> None:
    make(tmp_path, Made())
    make(tmp_path, Made(method="same"))
    make(tmp_path, Made(method="far", share=0.0))
    (group,) = grouped(gather(tmp_path))
    verdicts = {row.label: row.delta and row.delta.verdict for row in group.rows}
    assert verdicts == {"full": None, "same": "not distinguishable", "far": "worse"}
    html = leaderboard(group)
    assert html.count('class="badge same"') == html.count('class="badge worse"') == 1
    delta = next(row.delta for row in group.rows if row.label == "far")
    assert delta
    assert delta.n == 30
    assert delta.needed
    assert delta.needed > 30
    assert f"about {delta.needed:,} would show a difference of 1 point" in html


def test_the_best_comes_first_and_the_front_is_what_none_beats(swept: Path) -> None:
    for group in grouped(gather(swept)):
        means = [row.entry.number("score.mean") or 0.0 for row in group.rows]
        assert means == sorted(means, reverse=True)
        cost = [row.entry.number("work.bytes_per_token") or 0.0 for row in group.front]
        scores = [row.entry.number("score.mean") or 0.0 for row in group.front]
        assert len(cost) > 1
        assert cost == sorted(cost)
        assert scores == sorted(scores)


@pytest.mark.parametrize("width", [60, 120, 400])
def test_the_terminal_shows_all_of_it_however_narrow(swept: Path, width: int) -> None:
    console = Console(width=width, record=True, force_terminal=True, file=io.StringIO())
    show(gather(swept), console)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    for name in ("score [95%]", "ms/token", "recall@k %", "streaming_llm", "the baseline"):
        assert text.count(name) >= 4
    assert "●" in text


def test_the_interval_is_drawn_where_it_is(tmp_path: Path) -> None:
    make(tmp_path, Made())
    ((row,),) = (group.rows for group in grouped(gather(tmp_path)))
    bar = interval_bar(row)
    low, mean = (row.entry.number(f"score.{end}") or 0.0 for end in ("low", "mean"))
    assert len(bar) == 20
    assert bar.index("●") == round(mean / 100 * 19)
    assert bar.index("─") == round(low / 100 * 19)


def test_the_command_writes_what_is_asked_for(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [str(tmp_path / f"board.{end}") for end in ("csv", "md", "tex")]
    out = tmp_path / "r.html"
    asked = ["--out", str(out), "--text", *(each for name in names for each in ("--table", name))]
    assert main([str(swept), *asked]) == 0
    assert out.read_text().startswith("<!doctype html>")
    board = pd.read_csv(names[0])
    assert len(board) == 24
    assert set(board["verdict"].dropna()) <= {"better", "worse", "not distinguishable"}
    assert board.equals(board.sort_values(["task"], kind="stable"))
    assert Path(names[2]).read_text().count("retroinfer retrieval\\_budget=0.018") == 4
    assert "ruler_vt · 16k context · nano" in capsys.readouterr().out


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "no")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    make(tmp_path, Made())
    bad = make(tmp_path, Made(method="x"))
    (bad / "summary.json").unlink()
    assert main([str(tmp_path), "--table", str(tmp_path / "b.xlsx")]) == 2
    assert "right would be a name in .csv, .md or .tex" in capsys.readouterr().err
    assert main([str(tmp_path), "--out", str(tmp_path / "o.html")]) == 0
    assert f"left out: ruler_vt/8k/nano/{bad.name}" in capsys.readouterr().err


def test_a_terminal_without_the_letters_gets_others(swept: Path) -> None:
    done = subprocess.run(
        [sys.executable, "scripts/report.py", str(swept), "--text"], cwd=ROOT,
        capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"ruler_vt ? 16k context ? nano" in done.stdout


def test_more_methods_than_colours_have_marks_of_their_own(tmp_path: Path) -> None:
    for number in range(12):
        make(tmp_path, Made(method=f"m{number:02}" if number else "full", share=0.01))
    html = page(gather(tmp_path))
    assert all(len(re.findall(rf'class="mark c\d m{number}"', html)) for number in range(12))


def test_the_frame_keeps_what_was_measured(swept: Path) -> None:
    board = frame(grouped(gather(swept)))
    full = board[board["run"] == "full"]
    assert full["read %"].eq(100.0).all()
    assert full["delta"].isna().all()
    assert board["n"].eq(30).all()
