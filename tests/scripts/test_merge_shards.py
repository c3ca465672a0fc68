"""Shards of one run become one run, whose command then answers nothing again."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from longspan.record.jsonl import RunFolder
from longspan.types import Record

if TYPE_CHECKING:
    from types import ModuleType

SCRIPT = Path(__file__).parents[2] / "scripts" / "merge.py"
RUN = "aime24/native/nano/full-abc"
ANSWER: dict[str, Any] = {
    "prediction": "5", "references": ("5",), "score": 100.0, "prompt_tokens": 3, "new_tokens": 1,
    "finish": "eos", "seed": 0, "work": {}, "meta": {},
}  # fmt: skip


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("merge", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shard(folder: Path, answers: list[tuple[str, int]], fingerprint: str = "abc") -> Path:
    with RunFolder(folder / RUN, fingerprint) as run:
        for name in ("environment.json", "fingerprint.json"):
            run.write(name, {"from": folder.name})
        run.write_yaml("config.yaml", {"from": folder.name})
        for name, sample in answers:
            run.append(Record(id=name, sample=sample, **ANSWER))
    return folder


def rows(folder: Path) -> list[tuple[Any, ...]]:
    lines = (folder / RUN / "samples.jsonl").read_text().splitlines()
    return [(row["fingerprint"], row["id"], row["sample"]) for row in map(json.loads, lines)]


def test_shards_become_one_run(script: ModuleType, tmp_path: Path, capsys: Any) -> None:
    one = shard(tmp_path / "one", [("a", 0), ("a", 1)])
    two = shard(tmp_path / "two", [("a", 1), ("b", 0)])
    to = tmp_path / "results"
    assert script.main([str(one), str(two), "--to", str(to)]) == 0
    assert rows(to) == [("abc", "a", 0), ("abc", "a", 1), ("abc", "b", 0)]
    assert json.loads((to / RUN / "fingerprint.json").read_text()) == {"from": "one"}
    assert "1 samples of" in (out := capsys.readouterr().out)
    assert "1 were there; now 3" in out
    assert script.main([str(one), str(two), "--to", str(to)]) == 0
    assert len(rows(to)) == 3


def test_what_is_no_shard_is_named(script: ModuleType, tmp_path: Path, capsys: Any) -> None:
    to = shard(tmp_path / "results", [("a", 0)])
    other = shard(tmp_path / "other", [("a", 1)], fingerprint="xyz")
    assert script.main([str(other), "--to", str(to)]) == 2
    assert "holds samples of fingerprint 'abc'" in capsys.readouterr().err
    assert rows(to) == [("abc", "a", 0)]
    with RunFolder(to / RUN, "abc"):
        assert script.main([str(to), "--to", str(to)]) == 1
        assert "is working here" in capsys.readouterr().err
    shutil.rmtree(other / RUN)
    assert script.main([str(other), "--to", str(to)]) == 2
    assert f"{other}: there are no samples in it" in capsys.readouterr().err
