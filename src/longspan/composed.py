"""Configurations of a sweep's jobs, each composed once: of Hydra's inside, as composition.py is."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

from hydra._internal.config_loader_impl import ConfigLoaderImpl

if TYPE_CHECKING:
    from hydra.core.config_search_path import ConfigSearchPath
    from omegaconf import DictConfig


HERE = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
"""The launcher whose jobs are run by this process; others compose theirs where they run."""
FEW = 15
"""Jobs that are composed within two seconds or so."""


class Loader(ConfigLoaderImpl):
    """Hydra composes all jobs before the first begins, so that a mistake is found early, and each
    of them again as it begins, a sixth of a second each. Here that gives what the first one made.
    """

    def __init__(self, search: ConfigSearchPath) -> None:
        super().__init__(search)
        self._made: dict[tuple[str, ...], bytes] = {}

    def load_sweep_config(
        self, master_config: DictConfig, sweep_overrides: list[str]
    ) -> DictConfig:
        """See Hydra."""
        if master_config.hydra.launcher._target_ != HERE:
            return super().load_sweep_config(master_config, sweep_overrides)
        job = tuple(sweep_overrides)
        if (made := self._made.pop(job, None)) is not None:
            config: DictConfig = pickle.loads(made)  # some 17 KB a job
            return config
        config = super().load_sweep_config(master_config, sweep_overrides)
        self._made[job] = pickle.dumps(config)
        number = len(self._made)
        if number > FEW and number.bit_count() == 1:  # each line comes after twice the time
            from longspan.screen import Screen

            Screen().note(f"composing the jobs: {number} so far")
        return config
