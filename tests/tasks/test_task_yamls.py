"""The yaml files of the real-world tasks list every setting, with the defaults of the class."""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_class
from omegaconf import OmegaConf
from real_world import DATA, CharTokenizer

from longspan.build import part
from longspan.tasks.base import Task
from longspan.tasks.longbench import LongBench
from longspan.tasks.longbench_catalogue import CATEGORIES, DATASETS, DATASETS_E

CONF = Path(__file__).parents[2] / "conf"
KINDS = (
    "longbench", "infinitebench", "aime", "gpqa", "math500", "multi_question", "perplexity",
)  # fmt: skip
NAMES = sorted(
    path.stem
    for kind in (
        "longbench",
        "infinitebench",
        "aime",
        "gpqa",
        "math500",
        "multi_question",
        "perplexity",
    )
    for path in (CONF / "task").glob(f"{kind}*.yaml")
)
# What a data set sets otherwise than its class.
OWN = {
    "skip",
    "dataset",
    "edition",
    "subset",
    "hub_config",
    "split",
    "n_sampling",
    "max_new_tokens",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_yaml_lists_every_setting(name: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_container(compose("config", [f"task={name}"]).task)
    assert isinstance(config, dict)
    known = {field.name: field for field in fields(get_class(config["_target_"]))}
    assert set(config) - {"_target_"} == set(known)
    for key, field in known.items():
        if field.default is not MISSING and key not in OWN:
            assert config[key] == field.default, key
    task = part(config, "task")
    assert isinstance(task, Task)
    assert task.label.replace("-", "_") in (name, f"{name}[pg19]")


@pytest.mark.parametrize("name", NAMES)
def test_several_answers_to_a_problem_are_drawn_and_one_is_not(name: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [f"task={name}"])
        chosen = compose("config", [f"task={name}", "generation.temperature=0.3"])
    several = config.task.get("n_sampling", 1) > 1
    assert config.generation.temperature == (0.6 if several else 0)
    assert chosen.generation.temperature == 0.3


def test_every_data_set_has_a_yaml() -> None:
    wanted = {"longbench", "longbench_e", "longbench_v2"}
    wanted |= {f"longbench_{name}" for name in (*DATASETS, *CATEGORIES)}
    wanted |= {f"longbench_e_{name}" for name in (*DATASETS_E, *CATEGORIES)}
    found = {name for name in NAMES if name.startswith("longbench")}
    assert found == {name.replace("-", "_") for name in wanted}


def test_a_yaml_runs_on_our_files() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        where = f"task.path={DATA / 'longbench'}"
        config = compose("config", ["task=longbench_e_repobench_p", where, "task.skip=[lcc]"]).task
    task = part(OmegaConf.to_container(config), "task")
    assert isinstance(task, LongBench)
    assert len(task.examples(CharTokenizer(), None, None, 0)) == 3
