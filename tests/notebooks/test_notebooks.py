"""Every notebook runs top to bottom: on made-up results, and the tutorial on a tiny model."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.report.factory import sweep
from tests.tiny_models import save_tiny

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
TUTORIAL = "add_your_method"
CELL = re.compile(r"^# %%.*?$", re.MULTILINE)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("swept")
    sweep(root)
    return root


@pytest.fixture(autouse=True)
def _no_windows() -> Iterator[None]:
    pytest.importorskip("matplotlib", reason="no plots extra").use("Agg")
    from matplotlib import pyplot

    yield
    pyplot.close("all")


def run(name: str, scratch: Path, /, **parameters: Any) -> dict[str, Any]:
    """The names that a notebook leaves, with other values in its cell of parameters."""
    text = (NOTEBOOKS / f"{name}.py").read_text()
    before, _, after = text.partition('# %% tags=["parameters"]\n')
    cell, mark, rest = after.partition("\n# %%")
    own = set(re.findall(r"^(\w+) =", cell, re.MULTILINE))
    assert set(parameters) <= own, f"{name} has the parameters {own}"
    given = "".join(f"{key} = {value!r}\n" for key, value in parameters.items())
    file = scratch / f"{name}.py"
    file.write_text(f"{before}{cell}\n{given}{mark}{rest}")
    return runpy.run_path(str(file), run_name="__main__")


def test_all_are_listed_and_nothing_else_is_kept() -> None:
    names = {path.stem for path in NOTEBOOKS.glob("*.py")}
    readme = (NOTEBOOKS / "README.md").read_text()
    assert names == set(re.findall(r"^\| `(\w+)` \|", readme, re.MULTILINE))
    assert not list(NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.py")), ids=lambda path: path.stem)
def test_results_are_read_through_the_library(path: Path) -> None:
    text = path.read_text()
    assert "longspan" in text
    assert not re.search(r"json\.load|open\(|read_json|read_csv", text)
    assert len(CELL.findall(text)) >= 6


def test_budget_sweep(swept: Path, tmp_path: Path) -> None:
    left = run("budget_sweep", tmp_path, folder=str(swept))
    assert len(left["panels"]) == 4
    table = left["table"]
    assert len(table) == 20
    assert set(table["verdict"]) <= {"better", "worse", "not distinguishable"}
    assert table["n for 2 points"].dropna().gt(2).all()
    assert len(left["figure"].axes[0].lines) >= 2


def test_recall_vs_scanned(swept: Path, tmp_path: Path) -> None:
    left = run("recall_vs_scanned", tmp_path, folder=str(swept))
    axes = left["figure"].axes
    assert len(axes) == 8
    assert {line.get_label() for line in axes[1].lines} >= {"retroinfer", "oracle_topk", "full"}


def test_sparsity_profile(swept: Path, tmp_path: Path) -> None:
    left = run("sparsity_profile", tmp_path, folder=str(swept))
    assert len(left["maps"]) == 20
    assert len(left["worst"]) == 10
    assert "retroinfer 0.005" in set(left["heads"]["run"])


def test_latency_breakdown(swept: Path, tmp_path: Path) -> None:
    runs = run("latency_breakdown", tmp_path, folder=str(swept))["runs"]
    assert runs.loc[runs["method"] == "full", "speed-up"].eq(1.0).all()
    assert runs.loc[runs["method"] == "retroinfer", "speed-up"].gt(1.0).all()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("latency_breakdown", "no run has taken a time"),
        ("recall_vs_scanned", "no run has measured recall"),
        ("budget_sweep", "no run sets method.retrieval_budget"),
    ],
)
def test_what_is_missing_is_said(name: str, said: str, tmp_path: Path) -> None:
    from tests.report.factory import Made, make

    summary = make(tmp_path, Made(latency=False)) / "summary.json"
    summary.write_text(json.dumps({**json.loads(summary.read_text()), "recall": None}))
    with pytest.raises(ValueError, match=said):
        run(name, tmp_path, folder=str(tmp_path))


@pytest.mark.parametrize(
    "name", sorted({path.stem for path in NOTEBOOKS.glob("*.py")} - {TUTORIAL})
)
def test_data_may_decide_the_context(name: str, tmp_path: Path) -> None:
    from tests.report.factory import Made, make

    way = Made(method="retroinfer", settings={"retrieval_budget": 0.1}, share=0.1)
    for folder in (make(tmp_path, Made()), make(tmp_path, way)):
        summary = json.loads((folder / "summary.json").read_text())
        (folder / "summary.json").write_text(json.dumps({**summary, "ctx": None}))
    left = run(name, tmp_path, folder=str(tmp_path))
    if name in ("budget_sweep", "recall_vs_scanned"):
        assert left["figure"].axes[0].get_title() == "ruler_vt, native context, nano"


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, and two methods with the same budgets and one with others."""
    from tests.report.factory import Made, make

    root = tmp_path_factory.mktemp("mixed")
    wave = {"retrieval_budget": 0.1, "estimation_budget": 0.2}
    for model, share in (("nano", 0.1), ("other", 0.001)):
        make(root, Made(model=model))
        for method, settings in (
            ("retroinfer", wave), ("hybrid", wave), ("quest", {"retrieval_budget": 0.1}),
            ("quest", {"retrieval_budget": 0.2}),
        ):  # fmt: skip
            make(root, Made(model=model, method=method, settings=settings, share=share))
    return root


def test_models_are_told_apart(mixed: Path, tmp_path: Path) -> None:
    """A mean over models, and two runs under one name, say nothing of either."""
    profile = run("sparsity_profile", tmp_path, folder=str(mixed))["profile"]
    runs = run("latency_breakdown", tmp_path, folder=str(mixed))["runs"]
    assert len(profile) == len(runs) == 10
    assert profile["mean"].loc["ruler_vt", 8192, "nano", "retroinfer 0.1 0.2"].item() > 0.9
    assert runs["run"].is_unique


def test_methods_are_told_apart(mixed: Path, tmp_path: Path) -> None:
    axes = run("budget_sweep", tmp_path, folder=str(mixed))["figure"].axes
    names = ["hybrid estimating 0.2", "quest", "retroinfer estimating 0.2"]
    assert [[text.get_text() for text in each.get_legend().texts] for each in axes] == [names] * 2


def test_a_profile_of_full_attention_alone_is_none(tmp_path: Path) -> None:
    from tests.report.factory import Made, make

    make(tmp_path, Made())
    with pytest.raises(ValueError, match="full attention alone has measured recall"):
        run("sparsity_profile", tmp_path, folder=str(tmp_path))


def test_the_tutorials_method_is_short() -> None:
    text = (NOTEBOOKS / f"{TUTORIAL}.py").read_text()
    method = re.search(r"^@settings.*?(?=^# %%)", text, re.MULTILINE | re.DOTALL)
    assert method
    assert len(method[0].strip().splitlines()) <= 40


def test_the_tutorial_runs_and_compares(tmp_path: Path) -> None:
    tiny = save_tiny("llama", tmp_path / "tiny", initializer_range=0.3)
    data = tmp_path / "data.jsonl"
    rows = [
        {"context": "The sky is blue. " * 30, "question": f"Number {n}?", "outputs": [str(n)]}
        for n in range(2)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = tmp_path / "results"
    common = [
        "model=hf", f"model.path={tiny}", "model.dtype=float32", "task=json_file",
        f"task.path={data}", "samples=2", "generation.max_new_tokens=2", "recorder=local",
        "measure.latency.enabled=false", "measure.recall.samples=1", "measure.recall.steps=3",
        f"results={results}",
    ]  # fmt: skip
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        parameters = {"common": common, "folder": str(results), "conf": str(ROOT / "conf")}
        left = run(TUTORIAL, tmp_path, **parameters)
    finally:
        torch.set_num_threads(threads)
    runs = left["runs"].set_index(["method", "set.budget"])
    assert len(runs) == 5
    ours, theirs = runs.loc[("group_topk", 0.05)], runs.loc[("oracle_topk", 0.05)]
    assert ours["work.exact_tokens"] == theirs["work.exact_tokens"]
    assert ours["work.bytes_per_token"] < theirs["work.bytes_per_token"]
    assert ours["recall.recovered_mass"] <= theirs["recall.recovered_mass"] + 1e-6
    assert len(left["verdicts"]) == 4
