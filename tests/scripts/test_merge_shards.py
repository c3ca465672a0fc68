"""Shards of one run become one run, whose command then answers nothing again."""

from __future__ import annotations

import importlib.util
import json
import shutil
from contextlib import nullcontext
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


def test_a_shard_that_has_answered_nothing_yet_is_skipped(
    script: ModuleType, tmp_path: Path, capsys: Any
) -> None:
    one, three = shard(tmp_path / "one", [("a", 0)]), shard(tmp_path / "three", [("b", 0)])
    two = tmp_path / "two"
    with RunFolder(two / RUN, "abc"):
        pass  # killed in its first problem
    to = tmp_path / "results"
    assert script.main([str(one), str(two), str(three), "--to", str(to)]) == 0
    assert rows(to) == [("abc", "a", 0), ("abc", "b", 0)]
    said = capsys.readouterr().out.splitlines()
    assert f"{two / RUN}: skipped, nothing is answered there yet" in said
    assert len(said) == 3


@pytest.mark.parametrize("wrong", ["mixed", "other", "bare", "absent", "busy"])
def test_nothing_is_merged_where_anything_is_refused(
    script: ModuleType, tmp_path: Path, capsys: Any, wrong: str
) -> None:
    good, to = shard(tmp_path / "good", [("a", 0)]), tmp_path / "results"
    bad = tmp_path / wrong
    if wrong == "other":
        shard(bad, [("a", 1)], fingerprint="xyz")
    elif wrong != "absent":
        shard(bad, [("a", 1)])
        (bad / RUN).rename(bad / "z")
    if wrong == "mixed":
        text = (bad / "z" / "samples.jsonl").read_text()
        second = text.replace("abc", "xyz").replace('"sample": 1', '"sample": 2')
        (bad / "z" / "samples.jsonl").write_text(text + second)
    elif wrong == "bare":
        (bad / "z" / "config.yaml").unlink()
    with RunFolder(to / "z", "abc") if wrong == "busy" else nullcontext():
        code = script.main([str(good), str(bad), "--to", str(to)])
    assert code == (1 if wrong == "busy" else 2)
    assert str(to if wrong == "busy" else bad) in capsys.readouterr().err
    assert not (to / RUN).exists()


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
