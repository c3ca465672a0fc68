"""Parts that somebody wrote for themselves, and what is said of those that promise too little."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from longspan.build import part
from longspan.options import settings
from longspan.tasks.base import Task, taken
from longspan.tasks.json_file import JsonFile
from longspan.types import Example

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.runner.conftest import Cli

EXAMPLE = Example(
    id="a", context="The sky is blue. ", question="Is it?", references=("yes",), max_new_tokens=2
)


@settings
class Own(JsonFile):
    """Every answer is as right."""

    right: Any = 100.0

    def examples(self, *given: Any) -> Iterator[Example]:  # type: ignore[override]
        """One by one."""
        yield from super().examples(*given)

    def score(self, example: Example, text: str) -> Any:
        return self.right


class Bare(Task):
    """Takes settings, and keeps them to itself."""

    version: ClassVar[int] = 1

    def __init__(self, right: float = 100.0) -> None:
        self.right = right

    def examples(self, *_: Any) -> list[Example]:
        return [EXAMPLE]

    def score(self, example: Example, text: str) -> float:
        return self.right


def test_an_own_task_runs(cli: Cli) -> None:
    done = cli(f"task._target_={__name__}.Own", "+task.right=50")
    assert (done.code, done.json("summary.json")["score"]["mean"]) == (0, 50.0)


@pytest.mark.parametrize("right", ["true", "nan", "null", "101", "-1"])
def test_what_is_no_score_is_named(cli: Cli, right: str) -> None:
    """A truth value, for one, would count for a hundredth."""
    done = cli(f"task._target_={__name__}.Own", f"+task.right={right}")
    assert done.code == 2
    assert "right would be a number from 0 to 100" in done.err
    assert not (done.folder() / "samples.jsonl").read_text()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"id": "a"}, "the id 'a'"), ({"id": 1}, "the id 1"),
        ({"references": "yes"}, "references = 'yes' in example b"),
        ({"references": ["yes"]}, "references = ['yes'] in example b"),
    ],
)  # fmt: skip
def test_examples_whose_records_are_not_theirs_are_named(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match="task: own has ") as caught:
        taken([EXAMPLE, replace(EXAMPLE, **{"id": "b", **wrong})], "own")
    assert said in str(caught.value)


def test_settings_that_tell_no_runs_apart_are_named() -> None:
    config = {"_target_": f"{__name__}.Bare", "right": 50.0}
    with pytest.raises(ValueError, match="Bare keeps no fields of its settings"):
        part(config, "task", Task)
    assert isinstance(part({"_target_": config["_target_"]}, "task", Task), Bare)
