"""A sweep of 24 jobs, killed half-way and run again; its report in the end shows every job."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.report.browser import find, opened
from tests.tiny_models import save_tiny

from longspan.report.gather import gather
from longspan.report.page import page

ROOT = Path(__file__).parents[2]
SAMPLES = 3


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    tiny = save_tiny("llama", tmp_path / "tiny", initializer_range=0.3)
    data = tmp_path / "data.jsonl"
    rows = [
        {"context": "The sky is blue. " * (12 + n), "question": f"Number {n}?", "outputs": [str(n)]}
        for n in range(SAMPLES)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        sys.executable, str(ROOT / "run.py"), "-m", "model=hf", f"model.path={tiny}",
        "model.dtype=float32", "task=json_file", f"task.path={data}", f"samples={SAMPLES}",
        "generation.max_new_tokens=4", "measure=quality", "recorder=local", "threads=1",
        f"results={tmp_path / 'results'}", "method=full,streaming_llm,oracle_topk,random_k",
        "protocol=question_dense,question_sparse", "seed=0,1,2",
    ]  # fmt: skip


@pytest.mark.slow
def test_killed_half_way_it_resumes_and_repeats_nothing(command: list[str], tmp_path: Path) -> None:
    results = tmp_path / "results"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 240
        while process.poll() is None and time.monotonic() < deadline:
            if len(list(results.rglob("summary.json"))) >= 12:
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    before = {path: path.read_bytes() for path in results.rglob("samples.jsonl")}
    finished = sum(data.count(b"\n") for data in before.values())
    assert 11 * SAMPLES <= finished < 24 * SAMPLES, "it was to be killed half-way"
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "24 of 24 jobs done" in done.stdout
    for path, data in before.items():
        whole = data[: data.rfind(b"\n") + 1]
        assert path.read_bytes().startswith(whole), "a finished sample was written again"
    files = list(results.rglob("samples.jsonl"))
    assert len(files) == 24
    for path in files:
        ids = [json.loads(line)["id"] for line in path.read_text().splitlines()]
        assert len(ids) == len(set(ids)) == SAMPLES
    html = page(gather(results))
    if browser := find():
        html, console = opened(browser, html, tmp_path)
        assert console == []
    shown = set(re.findall(r'data-run="([^"]+)"', html))
    assert shown == {path.parent.name for path in files}
    assert html.count("<article") == 6, "a table for each seed and protocol"
