"""Every study makes its table and figures, at a tiny size, and measures nothing twice."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from longspan.prefill.minference import MInference
from longspan.prefill.xattention import XAttention
from longspan.studies.study import launch
from longspan.types import LayerGeometry

pytest.importorskip("matplotlib", reason="no plots extra")
FOLDER = Path(__file__).parents[2] / "experiments"
MODEL = ["--ctx", "2600", "--steps", "1", "--examples", "1"]  # 1,300 tokens are read
TASK, TASKS = ["--task", "needle", *MODEL], ["--tasks", "needle", *MODEL]
TIMED = ["--rounds", "1"]
TINY = {
    "ood": [*TASK, "--synthetic", "0"],
    "sparsity": ["--tasks", "needle", *MODEL, "--steps", "3"],
    "budgets": [*TASKS, "--replayed", "1"],
    "methods": [*TASKS, "--replayed", "1"],
    "quantisation": [*TASKS, "--replayed", "1", "--timed", "256", *TIMED],
    "context": [
        "--task",
        "needle",
        "--made",
        "300,600",
        "--model",
        "2600",
        "--queries",
        "2",
        *TIMED,
    ],
    "step_time": [
        "--tokens",
        "256,512",
        "--heads",
        "4",
        "--kv-heads",
        "2",
        "--head-size",
        "16",
        *TIMED,
    ],
    "fixed_steps": [
        "--tokens",
        "2000",
        "--prompts",
        "2",
        "--heads",
        "4",
        "--kv-heads",
        "2",
        "--head-size",
        "16",
        "--steps",
        "1",
        "--warmup",
        "0",
        "--device",
        "cpu",
    ],
    "coexecution": ["--tokens", "512", "--static", "64,128", "--retrieve", "32", *TIMED],
    "hardware": ["--tokens", "320", "--megabytes", "1", "--threads", "1", *TIMED],
    "wave_ablations": [*TASK, "--scored", "needle", "--answers", "1"],
    "sparse_prefill": ["--task", "needle", "--ctx", "2600", "--examples", "1"],
    "throughput": [
        "--geometries",
        "tiny",
        "--contexts",
        "1500",
        "--batches",
        "1,largest",
        "--most",
        "2",
        "--steps",
        "1",
        "--warmup",
        "1",
        "--chunk",
        "128",
        "--device",
        "cpu",
        "--graphs",
        "eager",
    ],
}
FEWER = {
    "budgets": {
        "RETRIEVAL": (0.01, 0.1), "ESTIMATION": (0.0,), "STEADY": ((0, 0),), "CLUSTER": (32,),
        "SEGMENT": (512,), "TOLERANCE": (0.01,), "LADDER": (0.01, 0.2),
    },
    "methods": {"BUDGETS": (0.05,), "TABLES": (40,)},
    "sparse_prefill": {"PREFILLS": {"xattention": XAttention(), "minference": MInference()}},
}  # fmt: skip
"""Constants of a study, shortened."""


def study(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"{name}_study", FOLDER / name / "study.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    for constant, value in FEWER.get(name, {}).items():
        assert hasattr(module, constant)
        setattr(module, constant, value)
    return module


@pytest.mark.parametrize("name", TINY)
def test_a_study_makes_its_files_and_measures_once(name: str, tmp_path: Path) -> None:
    if name in ("ood", "context", "coexecution", "step_time"):
        pytest.importorskip("faiss", reason="no faiss extra")
    threads = torch.get_num_threads()
    line = [*TINY[name], "--out", str(tmp_path / "out"), "--results", str(tmp_path / "rows")]
    try:
        study(name).main(line)
        (rows,) = (tmp_path / "rows").glob("*.jsonl")
        before = rows.read_bytes()
        files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        study(name).main(line)
    finally:
        torch.set_num_threads(threads)
    assert rows.read_bytes() == before
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert len(pd.read_csv(tmp_path / "out" / "table.csv")) > 1
    assert {"table.csv", "table.md"} <= files.keys()
    assert len(files) > 2 or name == "wave_ablations", "figures"
    assert all(len(data) < 150_000 for file, data in files.items() if file.endswith(".svg"))


def test_made_up_contexts_lie_where_the_model_does() -> None:
    study("throughput")
    geometry = LayerGeometry(0, 4, 2, 16, 0.25, torch.bfloat16, torch.device("meta"))
    for made in sys.modules["model"].data.__wrapped__(geometry, 20):
        assert made.device == geometry.device
        assert made.dtype == torch.bfloat16


def test_graphs_are_replayed_when_steps_have_nothing_left_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or they read lists that a wave buffer is writing."""
    timing, seen = sys.modules[study("throughput").prefill_s.__module__], list[str]()
    monkeypatch.setattr(timing, "replayed", lambda *_: seen.append("replayed"))
    static = SimpleNamespace(pieces=object(), buffered=True, settle=lambda: seen.append("settled"))
    session: Any = SimpleNamespace(
        decode=lambda _: seen.append("step"), _rows=[SimpleNamespace(static=static)]
    )
    timing.stepped(session, 1, SimpleNamespace(warmup=0, steps=2))
    assert seen == ["step", "step", "settled", "replayed"]


def test_throughput_without_buffers(tmp_path: Path) -> None:
    """Torch's own attention is driven by states too."""
    less = ["--graphs", "off", "--batches", "2", "--methods", "full:sdpa", "--out", str(tmp_path)]
    study("throughput").main([*TINY["throughput"], *less, "--results", str(tmp_path / "rows")])
    assert (pd.read_csv(tmp_path / "table.csv")["ms a step"] > 0).all()


@pytest.mark.parametrize(
    ("name", "line", "named"),
    [
        ("throughput", "--geometries foo", "--geometries = 'foo': right would be llama3_8b, "),
        ("throughput", "--layers 0", "--layers = 0: "),
        ("throughput", "--contexts 4k,0", "--contexts = 0: "),
        ("throughput", "--device tpu", "--device = 'tpu': right would be auto, cpu or cuda"),
        ("throughput", "--batches 1,x", "--batches = 'x': right would be a number or largest"),
        ("throughput", "--batches 0", "--batches = '0': "),
        ("throughput", "--graphs foo", "--graphs = 'foo': right would be auto, on, off or eager"),
        ("throughput", "--graphs on --device cpu", "--graphs = 'on': "),
        ("throughput", "--compile yes --device cpu", "--compile = 'yes': with --graphs = 'auto' "),
        ("throughput", "--memory-gb nan", "--memory-gb = 'nan': "),
        ("throughput", "--steps 300", "--steps = 300: right would be 256 at most, with --warmup"),
        (
            "throughput",
            "--methods foo",
            "--methods = 'foo': right would be full, retroinfer or retrieval_attention",
        ),
        (
            "throughput",
            "--methods full,full:fast --device cpu",
            "--methods = 'full:fast': right would be full, full:ours, full:sdpa or full:matmul",
        ),
        ("budgets", "--mean 0.001", "--mean = 0.001: right would be a number, 0.005 or more"),
        ("coexecution", "--heads 7", "--heads = 7: right would be a multiple of --groups = 8"),
        ("context", "--share 2", "--share = 2.0: "),
        ("context", "--task needle --model 2600 --layer 99", "--layer = 99: right would be from "),
        ("fixed_steps", "--heads 7", "--heads = 7: right would be a multiple of --kv-heads = 8"),
        ("fixed_steps", "--methods foo", "--methods = 'foo': right would be full, retroinfer, "),
        ("hardware", "--tokens 15", "--tokens = 15: "),
        ("ood", "--synthetic -1", "--synthetic = -1: "),
        ("ood", "--synthetic 9", "--synthetic = 9: right would be 0, or 10 or more"),
        ("sparse_prefill", "--task needle --ctx 2600,100m", "ctx = 100m: "),
        ("sparsity", "--steps 1", "--steps = 1: "),
        ("wave_ablations", "--answers 0", "--answers = 0: "),
    ],
)
def test_what_an_option_cannot_be_is_refused_before_anything_is_measured(
    name: str,
    line: str,
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = ["--out", str(tmp_path / "out"), "--results", str(tmp_path / "rows")]
    monkeypatch.setattr(sys, "argv", ["study.py", *line.split(), *places])
    threads = torch.get_num_threads()
    try:
        code = launch(study(name).main)
    except SystemExit as left:  # argparse has said why
        code = int(left.code or 0)
    finally:
        torch.set_num_threads(threads)
    assert code == 2
    assert named in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_tables_of_two_machines_are_joined(tmp_path: Path) -> None:
    columns = ["machine", "device", "what", "dtype", "threads", "giga_a_s", "ms"]
    for machine in ("one", "two"):
        frame = pd.DataFrame([[machine, "cpu", "read", "int64", 1, 20.0, 1.0]], columns=columns)
        frame.to_csv(tmp_path / f"{machine}.csv", index=False)
    both = f"{tmp_path / 'one.csv'},{tmp_path / 'two.csv'}"
    study("hardware").main(["--join", both, "--out", str(tmp_path / "out")])
    table = (tmp_path / "out" / "table.md").read_text()
    assert "one, cpu" in table
    assert "two, cpu" in table
    (tmp_path / "three.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"three\.csv"):
        study("hardware").joined([str(tmp_path / "three.csv")])


@pytest.mark.parametrize("folder", sorted(p.parent.name for p in FOLDER.glob("*/study.py")))
def test_a_readme_says_what_it_must(folder: str) -> None:
    text = (FOLDER / folder / "README.md").read_text()
    for word in ("Question", "Command", "Cost", "Finding"):
        assert f"**{word}" in text, word
    assert f"experiments/{folder}/study.py" in text
    for file in re.findall(r"\]\((\w+\.(?:svg|csv|md))\)", text):
        path = FOLDER / folder / file
        assert path.exists(), file
        assert path.stat().st_size < 150_000
