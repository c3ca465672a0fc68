"""The yaml files of RULER, json_file and needle: complete, small, and what they say they are."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest

from longspan.build import part
from longspan.tasks.json_file import JsonFile
from longspan.tasks.needle import Needle
from longspan.tasks.ruler import Ruler
from longspan.tasks.ruler_specs import RulerName

CONF = Path(__file__).parents[2] / "conf"
TASKS = {f"ruler_{name}": Ruler for name in get_args(RulerName)}
TASKS |= {"json_file": JsonFile, "needle": Needle}


def composed(name: str, *overrides: str) -> dict[str, Any]:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(CONF), version_base=None):
        config = compose("config", [f"task={name}", *overrides])
    found = OmegaConf.to_container(config.task, resolve=True)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


@pytest.mark.parametrize("name", TASKS)
def test_a_yaml_names_every_setting_and_keeps_the_defaults(name: str) -> None:
    config, kind = composed(name), TASKS[name]
    assert set(config) - {"_target_"} == {field.name for field in fields(kind)}
    task = part(config, "task")
    assert task == (kind(name=config["name"]) if kind is Ruler else kind())
    assert task.label.startswith(name)
    text = (CONF / "task" / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    assert f"python run.py task={name}" in text
    assert len(text.splitlines()) <= 25


def test_overrides_from_the_command_line() -> None:
    grid = composed("needle", "task.depths=[0,50,100]", "task.lengths=[512,1024]")
    assert part(grid, "task") == Needle(depths=(0.0, 50.0, 100.0), lengths=(512, 1024))
    with pytest.raises(ValueError, match=r"task\.haystack = 'essays'.*synthetic"):
        part(composed("ruler_niah_single_2", "task.haystack=essays"), "task")
    with pytest.raises(ValueError, match=r"task\.max_new_tokens = 0"):
        part(composed("json_file", "task.max_new_tokens=0"), "task")
