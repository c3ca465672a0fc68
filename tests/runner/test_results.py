"""Reading results back: one table, and no table from what is not one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from longspan import export, results
from longspan.record.files import write_json
from longspan.record.jsonl import RunFolder
from longspan.report.gather import gather
from longspan.report.groups import grouped
from longspan.types import Record

if TYPE_CHECKING:
    from pathlib import Path

    from tests.runner.conftest import Cli


def run(
    root: Path, method: str, scores: list[float], *, pairing: str = "p", **settings: Any
) -> Path:
    """A run folder as the runner leaves it."""
    digest = f"{method}{sorted(settings.items())}{pairing}".replace(" ", "")
    path = root / "task" / "4k" / "nano" / f"{method}-{abs(hash(digest)) % 10**8}"
    with RunFolder(path, digest) as folder:
        for number, score in enumerate(scores):
            folder.append(
                Record(f"e{number}", 0, "x", ("y",), score, 9, 2, "eos", 0, {"exact_tokens": 3.0})
            )
        folder.write("fingerprint.json", {"pairing": pairing, "method": settings})
        mean = sum(scores) / len(scores)
        summary = {
            "task": "task", "ctx": 4096, "model": "nano", "method": method, "fingerprint": digest,
            "pairing": pairing, "n": len(scores),
            "score": {"mean": mean, "low": mean - 5, "high": mean + 5},
            "work": {"bytes_per_token": settings.get("retrieval_budget", 1.0) * 1000},
            "latency": {"ms_per_token": None},
        }  # fmt: skip
        folder.write("summary.json", summary)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    run(tmp_path, "full", [100.0, 80.0, 100.0, 60.0] * 5)
    run(tmp_path, "retroinfer", [100.0, 80.0, 100.0, 60.0] * 5, retrieval_budget=0.018)
    run(tmp_path, "retroinfer", [0.0, 20.0, 10.0, 0.0] * 5, retrieval_budget=0.005)
    run(tmp_path, "worse", [50.0, 20.0, 40.0, 60.0] * 5, retrieval_budget=0.5)
    return tmp_path


def test_a_row_a_run_and_a_row_a_sample(root: Path) -> None:
    runs, samples = results.read(root), results.read_samples(root)
    assert len(runs) == 4
    assert len(samples) == 80
    assert set(runs["method"]) == {"full", "retroinfer", "worse"}
    assert runs["score.mean"].max() == 85.0
    assert sorted(runs["set.retrieval_budget"].dropna()) == [0.005, 0.018, 0.5]
    assert samples.groupby("fingerprint").size().tolist() == [20] * 4
    assert samples["work.exact_tokens"].eq(3.0).all()


def test_a_budget_curve_is_sorted_and_has_its_interval(root: Path) -> None:
    curve = results.budget_curve(results.read(root))
    own = curve[curve["method"] == "retroinfer"]
    assert own["set.retrieval_budget"].tolist() == [0.005, 0.018]
    assert own["score.low"].tolist() == [2.5, 80.0]


def test_the_pareto_front_leaves_out_what_is_beaten(root: Path) -> None:
    front = results.pareto(results.read(root))
    assert front["work.bytes_per_token"].tolist() == [5.0, 18.0]  # full is as good and dearer


def test_runs_of_other_data_never_beat_one_another(root: Path) -> None:
    run(root, "full", [100.0] * 4, pairing="other")
    assert len(results.pareto(results.read(root))) == 3


def test_significance_says_what_can_be_told(root: Path) -> None:
    run(root, "stray", [10.0] * 4, pairing="other")
    table = results.significance(results.read(root), results.read_samples(root))
    verdicts = dict(
        zip(zip(table["method"], table["delta"], strict=True), table["verdict"], strict=True)
    )
    assert verdicts["retroinfer", 0.0] == "not distinguishable"
    assert verdicts["retroinfer", -77.5] == "worse"
    assert table.set_index("method").loc["stray", "verdict"] == "no baseline"


def test_the_baseline_is_the_run_that_shares_most(tmp_path: Path) -> None:
    run(tmp_path, "ours", [0.0] * 8)
    for number, count in enumerate((1, 6, 3)):
        run(tmp_path, "full", [100.0] * count, placement=number)
    samples = results.read_samples(tmp_path)
    (row,) = results.significance(results.read(tmp_path), samples).to_dict("records")
    assert (row["n"], row["verdict"]) == (6, "worse")
    kept = samples[~samples["folder"].str.contains("full")]  # they measured something else
    (row,) = results.significance(results.read(tmp_path), kept).to_dict("records")
    assert (row["n"], row["verdict"]) == (0, "no baseline")


def test_a_comparison_needs_common_samples(root: Path) -> None:
    samples = results.read_samples(root)
    other = samples.assign(id="z" + samples["id"])
    with pytest.raises(ValueError, match="share no example id"):
        results.paired_bootstrap(samples, other)


def test_a_corrupt_line_is_skipped_counted_and_named(root: Path) -> None:
    file = next(root.rglob("full-*/samples.jsonl"))
    text = file.read_text().splitlines()
    text[3] = text[3][:20]
    file.write_text("\n".join(text) + "\n")
    samples = results.read_samples(root)
    assert len(samples) == 79
    assert samples.attrs["corrupt"] == {str(file): [4]}


def test_an_empty_folder_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no run"):
        results.read(tmp_path)
    with pytest.raises(ValueError, match="there is no such folder"):
        results.read(tmp_path / "none")


@pytest.mark.parametrize("text", ["", '{"task": "task", "n"', "{}", "[1]", None])
def test_a_run_that_is_not_finished_is_left_out_by_name(root: Path, text: str | None) -> None:
    files = sorted(root.rglob("summary.json"))
    for count, file in enumerate(files, start=1):
        stale = json.dumps({**json.loads(file.read_text()), "n": 2})
        file.write_text(stale if text is None else text)
        said = "sums up 2 samples, and there are 20" if text is None else "missing or cut short"
        if count < len(files):
            runs = results.read(root)
            assert len(runs) == len(files) - count
            assert len(runs.attrs["left_out"]) == count
            assert f"{files[0]}: {said}; run the same command" in runs.attrs["left_out"][0]
    with pytest.raises(ValueError, match=rf"holds no finished run; .*{said}"):
        results.read(root)


def test_what_no_run_leaves_is_named(root: Path) -> None:
    file = next(root.rglob("full-*/summary.json"))
    summary = json.loads(file.read_text())
    file.write_text(json.dumps({**summary, "score": {"mean": "x"}}))
    with pytest.raises(ValueError, match=r"summary.json: .* leaves it .score.mean = 'x' is no num"):
        results.read(root)


def test_mixed_fingerprints_are_no_run(root: Path) -> None:
    file = next(root.rglob("full-*/samples.jsonl"))
    row = json.loads(file.read_text().splitlines()[0])
    with file.open("a") as lines:
        lines.write(json.dumps({**row, "id": "new", "fingerprint": "stranger"}) + "\n")
    with pytest.raises(ValueError, match="the samples are of fingerprint stranger, the summary"):
        results.read(root)
    with pytest.raises(ValueError, match="holds samples of 2 fingerprints"):
        results.read_samples(root)


def test_a_metric_that_is_not_there_is_named(root: Path) -> None:
    runs = results.read(root)
    with pytest.raises(ValueError, match=r"column 'recall.at_7': not in the table; it has "):
        results.pareto(runs, value="recall.at_7")
    with pytest.raises(ValueError, match=r"column 'latency.ms_per_token': no run has measured it"):
        results.pareto(runs, cost="latency.ms_per_token")


def test_tables_for_other_programs(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a_b": ["x|y", "50%"], "n": [1, 2], "mean": [0.123456, float("nan")]})
    assert export.to_markdown(frame) == (
        "| a_b | n | mean |\n| :-- | --: | --: |\n| x\\|y | 1 | 0.12 |\n| 50% | 2 | – |\n"
    )
    odd = pd.DataFrame({"a": ["<b>\nc", None], "n": pd.array([1, None], "Int64"), "x": [1e-5, 0.0]})
    assert export.to_markdown(odd).splitlines()[2:] == [
        "| &lt;b> c | 1 | 1.0e-05 |",
        "| – | – | 0.00 |",
    ]
    latex = export.to_latex(frame, digits=3)
    assert r"a\_b & n & mean \\" in latex
    assert r"50\% & 2 & – \\" in latex
    assert latex.startswith("\\begin{tabular}{lrr}\n\\toprule\n")
    for name in ("t.csv", "t.md", "t.tex"):
        export.save(frame, tmp_path / name)
    back = pd.read_csv(tmp_path / "t.csv")
    assert back["mean"][0] == 0.123456
    with pytest.raises(ValueError, match=r"right would be a name in .csv, .md or .tex"):
        export.save(frame, tmp_path / "t.xlsx")


def test_a_summary_is_never_half_there(root: Path) -> None:
    file = next(root.rglob("full-*/summary.json"))
    before = file.read_bytes()
    with pytest.raises(TypeError):
        write_json(file, {"task": object()})
    assert file.read_bytes() == before


def test_texts_that_are_weighed_alike_leave_no_width(cli: Cli, tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text(" ".join(f"Line {number} is not line {7 * number}." for number in range(99)))
    weighed = ("task=perplexity", f"task.path={book}", "task.scored_tokens=9", "ctx=128")
    cli(*weighed, "samples=3")
    done = cli(*weighed, "samples=3", "method=streaming_llm", "method.budget=1.0")
    assert done.code == 0, done.err
    found = done.json("summary.json", "streaming_llm")["baseline_delta"]
    none = {"mean": 0.0, "low": 0.0, "high": 0.0, "n": 3, "distinguishable": False}
    assert found == none
    runs, samples = results.read(done.results), results.read_samples(done.results)
    (row,) = results.significance(runs, samples).to_dict("records")
    assert (row["low"], row["high"], row["verdict"]) == (0.0, 0.0, "not distinguishable")
    ours, theirs = (samples[samples["method"] == name] for name in ("streaming_llm", "full"))
    assert results.paired_bootstrap(ours, theirs) == (0.0, 0.0, 0.0)
    (group,) = grouped(gather(done.results))
    (delta,) = (each.delta for each in group.rows if each.delta)
    assert delta.interval == (0.0, 0.0, 0.0)
