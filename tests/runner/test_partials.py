"""Begun answers stay until they are recorded, whatever the commands in between ask for."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from longspan.partials import Partials

if TYPE_CHECKING:
    from pathlib import Path

    from tests.runner.conftest import Cli, Done

LONG = ("partial_seconds=0", "generation.ignore_eos=true")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def begun(folder: Path) -> dict[str, int]:
    """Tokens by example."""
    return {line["id"]: line["stop"] for line in lines(folder / "partials.jsonl")}


@pytest.fixture
def stopped(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Done:
    """Three answers of six tokens, of which four are written down."""
    growing, count = Partials.growing, [0]

    def interrupted(self: Partials, answers: Any) -> None:
        growing(self, answers)
        count[0] += 1
        if count[0] == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Partials, "growing", interrupted)
        done = cli("samples=3", "batch=3", *LONG)
    assert done.code == 130
    assert list(begun(done.folder()).values()) == [4, 4, 4]
    return done


def test_answers_that_a_command_does_not_ask_for_stay_begun(stopped: Done, cli: Cli) -> None:
    folder = stopped.folder()
    _, *others = begun(folder)
    assert cli("samples=1", *LONG).code == 0
    assert begun(folder) == dict.fromkeys(others, 4)
    assert len(list((folder / "partials").iterdir())) == 2
    assert cli("samples=3", *LONG).code == 0
    assert [row["meta"]["resumed_tokens"] for row in lines(folder / "samples.jsonl")] == [4, 4, 4]
    assert not (folder / "partials.jsonl").exists()
    assert not (folder / "partials").exists()


@pytest.mark.parametrize(
    "damage",
    [
        {"tokens": ["5", None, -1, 1.5]}, {"block": ["a", 1]}, {"block": 5}, {"block": [-5, 3]},
        {"block": [1]}, {"sample": []}, {"start": None}, {"stop": "4"}, [1], "x",
    ],
)  # fmt: skip
def test_a_line_that_is_none_is_passed_over(stopped: Done, cli: Cli, damage: Any) -> None:
    path = stopped.folder() / "partials.jsonl"
    first, *others = lines(path)
    damaged = {**first, **damage} if isinstance(damage, dict) else damage
    path.write_text("".join(f"{json.dumps(each)}\n" for each in (damaged, *others)))
    done = cli("samples=3", "batch=3", *LONG)
    assert done.code == 0, done.err
    rows = {row["id"]: row["meta"] for row in lines(done.folder() / "samples.jsonl")}
    assert "resumed_tokens" not in rows.pop(first["id"])
    assert [meta["resumed_tokens"] for meta in rows.values()] == [4, 4]


def test_a_full_disk_names_the_file_of_what_is_begun(tmp_path: Path) -> None:
    partials, path = Partials(tmp_path, 0.0), tmp_path / "partials.jsonl"
    path.symlink_to("/dev/full")
    job = SimpleNamespace(example=SimpleNamespace(id="a"))
    stream = SimpleNamespace(tokens=[1])
    answer: Any = SimpleNamespace(job=job, sample=0, stream=stream, stored=lambda: b"")
    for write in (lambda: partials.growing([answer]), partials._close):
        with pytest.raises(OSError, match="No space left") as caught:
            write()
        assert caught.value.filename == str(path)


def test_what_was_recorded_in_the_moment_of_a_kill_is_dropped(
    stopped: Done, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Partials, *_: Any) -> None:
        raise KeyboardInterrupt

    folder = stopped.folder()
    first, _, third = begun(folder)
    with monkeypatch.context() as patch:
        patch.setattr(Partials, "done", killed)
        assert cli("samples=1", *LONG).code == 130
    assert [row["id"] for row in lines(folder / "samples.jsonl")] == [first]
    assert first in begun(folder)
    with (folder / "partials.jsonl").open("a") as file:
        file.write('{"id": "cut sh')
    assert cli("samples=2", *LONG).code == 0
    assert begun(folder) == {third: 4}
    assert len(list((folder / "partials").iterdir())) == 1
