"""A sweep's jobs are composed once, though Hydra asks twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf
from tests.runner.conftest import ROOT

from longspan import composition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hydra._internal.hydra import Hydra

DIR = "hydra.sweep.dir=runs/${now:%f}"
JOB = ["method=quest", "seed=3"]


@pytest.fixture
def hydra() -> Iterator[Hydra]:
    yield composition.opened(composition.parser().parse_args([]), ROOT / "conf")
    GlobalHydra.instance().clear()


def test_the_second_time_gives_what_the_first_made(
    hydra: Hydra, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed: list[Any] = []
    compose = ConfigLoaderImpl.load_sweep_config

    def counted(self: ConfigLoaderImpl, master: Any, overrides: list[str]) -> Any:
        composed.append(overrides)
        return compose(self, master, overrides)

    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", counted)
    loader: Any = hydra.config_loader
    master = hydra.compose_config(
        "config", ["seed=3,4", DIR], RunMode.MULTIRUN, with_log_configuration=False
    )
    folder = master.hydra.sweep.dir
    first = loader.load_sweep_config(master, JOB)
    loader.load_sweep_config(master, [*JOB, "ctx=8k"])
    again = loader.load_sweep_config(master, JOB)
    assert len(composed) == 2
    assert again is not first
    assert again == first
    assert OmegaConf.is_struct(again)
    assert again.hydra.sweep.dir == folder, "the time in it is the sweep's"
    loader.load_sweep_config(master, JOB)
    assert len(composed) == 3, "a job that is there twice"


def test_many_are_told_of(hydra: Hydra, capsys: pytest.CaptureFixture[str]) -> None:
    loader: Any = hydra.config_loader
    master = hydra.compose_config(
        "config", ["seed=3,4"], RunMode.MULTIRUN, with_log_configuration=False
    )
    for seed in range(17):
        loader.load_sweep_config(master, [f"seed={seed}"])
    assert capsys.readouterr().err == "composing the jobs: 16 so far\n"
