"""What the command line costs and shows before it runs anything."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from longspan.cli import main
from longspan.errors import exit_code

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "transformers", "numpy", "pandas", "datasets", "wandb", "lm_eval", "faiss"}


def loaded(code: str) -> set[str]:
    """The modules that a fresh interpreter has after `code`."""
    text = f"import json, sys\n{code}\nprint('@' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names: list[str] = json.loads(done.stdout.rpartition("@")[2])
    return {name.partition(".")[0] for name in names}


def test_import_longspan_imports_nothing_heavy() -> None:
    assert not loaded("import longspan") & (HEAVY | {"pydantic", "hydra"})


def test_help_imports_nothing_heavy() -> None:
    code = "from pathlib import Path; from longspan.cli import main; main(['--help'], Path('conf'))"
    assert not loaded(code) & HEAVY


def test_a_wrong_request_is_refused_before_torch_is_imported() -> None:
    code = (
        "from pathlib import Path; from longspan.cli import main; "
        "main(['ctx=banana'], Path('conf')); main(['method=fool'], Path('conf'))"
    )
    assert "torch" not in loaded(code)


def test_help_names_groups_keys_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"], ROOT / "conf") == 0
    text = capsys.readouterr().out
    for expected in ("retroinfer", "ruler_vt", "question_sparse", "wandb_offline", "ctx: null"):
        assert expected in text
    assert "base" not in text  # of which groups are made
    assert "Exit codes: 0 done, 1 a job failed, 2 the request was wrong" in text


def test_the_composed_configuration_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cfg", "job", "ctx=8k"], ROOT / "conf") == 0
    assert "ctx: 8k" in capsys.readouterr().out


def test_run_py_is_short_and_gives_its_exit_code() -> None:
    assert len((ROOT / "run.py").read_text().splitlines()) <= 40
    done = subprocess.run(
        [sys.executable, "run.py", "ctx=banana"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ctx = 'banana'")
    assert done.stdout == ""


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "run.py", "--help"], cwd=ROOT, stdout=pipe, stderr=subprocess.PIPE
        )
    assert done.returncode == 1
    assert done.stderr == b""


def test_an_output_that_takes_nothing_is_one_line() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "run.py", "--help"], cwd=ROOT, stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: the disk is full")
    assert done.stderr.count(b"\n") == 1


def test_an_interrupt_while_modules_are_loaded_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stopped(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "longspan.cli", Stopped("longspan.cli"))
    with pytest.raises(SystemExit, match="130"):
        runpy.run_path(str(ROOT / "run.py"), run_name="__main__")
    assert capsys.readouterr().err == "interrupted\n"


def test_flags_may_stand_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ctx=8k", "--cfg", "job", "samples=3", "-p", "task"], ROOT / "conf") == 0
    assert "@package task" in capsys.readouterr().out
    assert main(["--cfg", "job", "--package", "foo"], ROOT / "conf") == 2
    assert capsys.readouterr().err.startswith("error: --package = 'foo': ")


def test_a_study_brings_its_own_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sweep.yaml").write_text(
        "defaults: [config, {override method: full}, _self_]\nsamples: 3\n"
    )
    assert main(["-cd", str(tmp_path), "-cn", "sweep", "--cfg", "job"], ROOT / "conf") == 0
    assert "samples: 3" in capsys.readouterr().out


def test_a_missing_configuration_folder_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-cd", "/nowhere/at/all"], ROOT / "conf") == 2
    assert capsys.readouterr().err.startswith("error: --config-dir = '/nowhere/at/all': ")


def test_a_study_may_be_a_sweep_by_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sweep.yaml").write_text(
        f"defaults: [config, _self_]\nresults: {tmp_path / 'results'}\n"
        "hydra: {mode: MULTIRUN, sweeper: {params: {ctx: 'banana,apple'}}}\n"
    )
    assert main(["-cd", str(tmp_path), "-cn", "sweep"], ROOT / "conf") == 2
    done = capsys.readouterr()
    assert "0 of 2 jobs done, 2 not" in done.out
    assert [line for line in done.err.splitlines() if line.startswith("job ")] == [
        "job 1 of 2: ctx=banana", "job 2 of 2: ctx=apple"
    ]  # fmt: skip


def test_sigterm_ends_as_ctrl_c_does(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def work() -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
        return 0

    assert exit_code(work) == 143
    assert "the same command goes on" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before
