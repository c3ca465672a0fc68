"""The fetching script, with files for a network."""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

SCRIPT = Path(__file__).parents[2] / "scripts" / "get_data.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("get_data", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "get_data", module)
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    monkeypatch.delitem(sys.modules, "data_sources", raising=False)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def offline(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr("urllib.request.urlopen", fail)
    monkeypatch.setattr("datasets.load_dataset", fail)
    return script


NAMES = [
    *("aime24", "aime25", "essays", "gpqa", "hotpotqa", "infinitebench", "longbench"),
    *("longbench_v2", "math500"),
]


@pytest.mark.parametrize("name", [*NAMES, "pg19", "squad"])
def test_offline_the_manual_steps_are_printed(
    offline: ModuleType, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert offline.main([name, "--to", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert f"{name} could not be fetched (ConnectionError: no route to host). By hand:" in said
    assert "://" in said
    tasks = {**dict.fromkeys(("squad", "hotpotqa", "essays"), "ruler"), "pg19": "perplexity"}
    assert f"python run.py task={tasks.get(name, name)}" in said
    assert str(tmp_path) in said
    assert not list(tmp_path.iterdir())


def test_the_names_are_all_there(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(script.SOURCES) == sorted([*NAMES, "pg19", "squad"])
    assert script.main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 11


def test_hotpotqa_comes_from_where_lm_eval_takes_it(script: ModuleType) -> None:
    from lm_eval.tasks.ruler.qa_utils import read_hotpotqa

    (part,) = script.SOURCES["hotpotqa"].parts
    assert part.url == inspect.signature(read_hotpotqa).parameters["url"].default


def test_a_file_is_fetched_once(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "there.json"
    there.write_text("[1]")
    source = script.SOURCES["squad"]
    part = script.Part("dev-v2.0.json", url=there.as_uri())
    script.SOURCES["squad"] = replace(source, parts=(part,))
    assert script.main(["squad", "--to", str(tmp_path / "new")]) == 0
    there.unlink()
    assert script.main(["squad", "--to", str(tmp_path / "new")]) == 0
    said = capsys.readouterr().out
    assert said.count("fetching") == 1
    assert said.count("3 bytes, sha256 ") == 2
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["dev-v2.0.json"]


def test_rows_of_the_hub_become_lines(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def load(name: str, config: str | None, *, split: str) -> list[dict[str, str]]:
        asked.append((name, config, split))
        return [{"text": "é"}, {"text": "b"}]

    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: nullcontext())
    monkeypatch.setattr("datasets.load_dataset", load)
    assert script.main(["gpqa", "--to", str(tmp_path)]) == 0
    assert asked == [
        ("Idavidrein/gpqa", "gpqa_main", "train"),
        ("Idavidrein/gpqa", "gpqa_diamond", "train"),
    ]
    assert (tmp_path / "gpqa_main.jsonl").read_text("utf-8") == '{"text": "é"}\n{"text": "b"}\n'
    assert script.main(["essays", "--to", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "PaulGrahamEssays.json").read_text()) == {"text": "é b"}


def test_a_broken_download_leaves_nothing(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def __enter__(self) -> Broken:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def read(self, _: int) -> bytes:
            raise TimeoutError("half-way")

    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Broken())
    assert script.main(["longbench", "--to", str(tmp_path)]) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [[], ["squad"], ["nothing", "--to", "x"]])
def test_wrong_requests_exit_with_2(script: ModuleType, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        script.main(arguments)
    assert stopped.value.code == 2
