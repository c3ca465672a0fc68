"""A sweep whose jobs are processes of their own, as on a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.tiny_models import save_tiny

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_submitit_runs_a_process_a_job(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="no sweeps extra")
    tiny = save_tiny("llama", tmp_path / "tiny", initializer_range=0.3)
    data = tmp_path / "data.jsonl"
    rows = [{"context": "The sky is blue. ", "question": "Which?", "outputs": ["blue"]}]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = tmp_path / "results"
    command = [
        sys.executable, str(ROOT / "run.py"), "-m", "hydra/launcher=submitit_local",
        "hydra.launcher.timeout_min=5", "hydra.launcher.cpus_per_task=1", "model=hf",
        f"model.path={tiny}", "model.dtype=float32", "task=json_file", f"task.path={data}",
        "samples=1", "generation.max_new_tokens=2", "measure.recall.enabled=false",
        "recorder=local", f"results={results}", "method=full,streaming_llm",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 jobs done" in done.stdout
    summaries = [json.loads(path.read_text()) for path in results.rglob("summary.json")]
    assert [each["n"] for each in summaries] == [1, 1]
    assert [each["latency"]["ms_per_token"] for each in summaries] == [None, None]
    logs = [path.read_text() for path in (results / ".hydra").rglob("*.err")]
    assert any("latency is not measured" in log for log in logs), "and says why"
