"""Every value in every sweep of experiments/sweeps composes into a job whose parts can be built; no
model is loaded and nothing is measured.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hydra import version
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from longspan.build import part
from longspan.request import Request

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments/sweeps"
SWEEPS = sorted(path.stem for path in FOLDER.glob("*.yaml"))


@pytest.fixture(scope="module")
def hydra() -> Iterator[Hydra]:
    """As run.py makes it for -cd experiments/sweeps."""
    version.setbase("1.3")
    search = create_config_search_path(str(ROOT / "conf"))
    anchor = SearchPathQuery(provider="schema")
    search.prepend(provider="command-line", path=f"file://{FOLDER}", anchor=anchor)
    yield Hydra.create_main_hydra2(task_name="longspan", config_search_path=search)
    GlobalHydra.instance().clear()


def composed(hydra: Hydra, name: str, overrides: list[str]) -> DictConfig:
    return hydra.compose_config(name, overrides, RunMode.MULTIRUN, with_log_configuration=False)


def choices(hydra: Hydra, name: str) -> dict[str, list[str]]:
    """Its parameters with all their values, globs written out."""
    parameters = composed(hydra, name, []).hydra.sweeper.params
    lines = [f"{key}={value}" for key, value in parameters.items()]
    parser = OverridesParser.create(config_loader=hydra.config_loader)
    return {
        str(each.key_or_group): list(each.sweep_string_iterator())
        for each in parser.parse_overrides(lines)
        if each.is_sweep_override()
    }


def jobs(values: dict[str, list[str]]) -> list[list[str]]:
    """As many as the longest parameter has values, so that every value is in one."""
    longest = max(map(len, values.values()))
    return [
        [f"{key}={each[number % len(each)]}" for key, each in values.items()]
        for number in range(longest)
    ]


@cache
def _part(text: str, path: str) -> Any:
    return part(OmegaConf.to_container(OmegaConf.create(text)), path)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SWEEPS)
def test_every_value_makes_a_job(hydra: Hydra, name: str) -> None:
    values = choices(hydra, name)
    assert all(values.values())
    for overrides in jobs(values):
        config = composed(hydra, name, overrides)
        OmegaConf.set_struct(config, False)
        del config["hydra"]
        plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        request = Request.parse(plain)
        assert request.samples is None or request.samples >= 1
        for group in ("model", "method", "task", "recorder"):
            built = _part(OmegaConf.to_yaml(plain[group]), group)
            assert built is not None


def test_the_sweeps_are_as_large_as_the_readme_says(hydra: Hydra) -> None:
    text = (FOLDER / "README.md").read_text()
    for name in SWEEPS:
        assert f"| `{name}` |" in text, f"experiments/sweeps/README.md does not list {name}"


def test_a_method_that_is_added_joins_the_sweeps_of_all(hydra: Hydra) -> None:
    every = {path.stem for path in (ROOT / "conf/method").glob("*.yaml")}
    for name in ("methods_nano", "ruler_128k", "longbench"):
        assert set(choices(hydra, name)["method"]) == every


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_is_one_without_m(hydra: Hydra, name: str) -> None:
    assert composed(hydra, name, []).hydra.mode is RunMode.MULTIRUN


def test_the_command_line_replaces_a_parameter(hydra: Hydra) -> None:
    given = composed(hydra, "budgets_nano", []).hydra.sweeper.params
    lines = [*(f"{key}={value}" for key, value in given.items()), "ctx=4k", "samples=10"]
    parsed = OverridesParser.create(config_loader=hydra.config_loader).parse_overrides(lines)
    (batch,) = BasicSweeper.split_arguments(parsed, None)
    assert len(batch) == 20
    assert all("ctx=4k" in job and "samples=10" in job for job in batch)


def test_every_batch_size_has_a_folder_of_its_own(hydra: Hydra) -> None:
    places = {
        composed(hydra, "throughput", [f"measure.latency.rows={rows}"]).results for rows in (1, 4)
    }
    assert len(places) == 2


def test_the_cluster_launcher_composes(hydra: Hydra) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="no sweeps extra")
    overrides = ["hydra/launcher=cluster", "hydra.launcher.partition=gpu"]
    launcher = composed(hydra, "ruler_128k", overrides).hydra.launcher
    assert launcher["_target_"].endswith("SlurmLauncher")
    assert (launcher.partition, launcher.gpus_per_node) == ("gpu", 1)
