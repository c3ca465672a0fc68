"""A tiny random model, a small file of questions, and the command line in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pytest
import torch
from tests.tiny_models import save_tiny

from longspan.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


class Done(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str
    results: Path

    def folder(self, method: str = "") -> Path:
        """The only run folder (of a method)."""
        (found,) = (p.parent for p in self.results.rglob(f"{method}*/fingerprint.json"))
        return found

    def json(self, name: str, method: str = "") -> dict[str, Any]:
        return json.loads((self.folder(method) / name).read_text())


class Cli(Protocol):
    def __call__(self, *overrides: str) -> Done: ...


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("tiny"), initializer_range=0.3)


@pytest.fixture(scope="session")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve questions of ragged length."""
    path = tmp_path_factory.mktemp("data") / "questions.jsonl"
    rows = [
        {
            "context": "The grass is green. The sky is blue. " * (1 + number % 4),
            "question": f"What is number {number}?",
            "outputs": [str(number)],
        }
        for number in range(12)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def arguments(tiny_path: Path, questions: Path, tmp_path: Path) -> list[str]:
    """A run of seconds: full attention, four samples of six tokens, the score alone."""
    return [
        "model=hf", f"model.path={tiny_path}", "model.dtype=float32", "model.device=cpu",
        "method=full",
        "task=json_file", f"task.path={questions}", "samples=4", "generation.max_new_tokens=6",
        "measure=quality", "recorder=local", f"results={tmp_path / 'results'}",
    ]  # fmt: skip


@pytest.fixture
def cli(arguments: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Cli:
    def run(*overrides: str) -> Done:
        flags = [each for each in overrides if each.startswith("-")]
        kept = [each for each in overrides if not each.startswith("-")]
        names = {each.split("=")[0].lstrip("+") for each in kept}
        base = [each for each in arguments if each.split("=")[0] not in names]
        code = main([*flags, *base, *kept], ROOT / "conf")
        return Done(code, *capfd.readouterr(), tmp_path / "results")

    return run
