"""Configurations of a sweep and of its jobs, each composed once: of Hydra's inside, as
composition.py is.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hydra.core.config_loader import ConfigLoader
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig


HERE = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
"""The launcher whose jobs are run by this process; others compose theirs where they run."""
FEW = 15
"""Jobs that are composed within two seconds or so."""


def parsed(loader: ConfigLoader, overrides: Sequence[str]) -> list[Override]:
    """As Hydra reads them."""
    return OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))


class Loader(ConfigLoaderImpl):
    """Hydra composes all jobs before the first begins, so that a mistake is found early, and each
    of them again as it begins, a sixth of a second each. Here that gives what the first one made.
    """

    def __init__(self, search: ConfigSearchPath) -> None:
        super().__init__(search)
        self._made: dict[tuple[str, ...], bytes] = {}

    def list_groups(self, parent_name: str) -> list[str]:
        """See Hydra. What others of a group are made of is none to choose from."""
        return [name for name in super().list_groups(parent_name) if name != "base"]

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        *more: Any,
        **how: Any,
    ) -> DictConfig:
        """See Hydra, which composes a sweep without its choices first, and would refuse a setting
        that the default of a group does not have: settings of parts wait for the jobs.
        """
        config = super().load_configuration
        if run_mode is not RunMode.MULTIRUN:
            return config(config_name, overrides, run_mode, *more, **how)
        groups = set(self.list_groups("")) - {"hydra"}  # its launchers are set, never swept
        given = parsed(self, overrides)
        first = [str(each.input_line) for each in given if not _waits(each, groups)]
        whole = config(config_name, first, run_mode, *more, **how)
        own = [str(each.input_line) for each in given if not each.is_hydra_override()]
        whole.hydra.overrides.task = own
        return whole

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


def _waits(override: Override, groups: set[str]) -> bool:
    """Whether it is one value for a setting of a group's choice."""
    group, _, setting = override.key_or_group.partition(".")
    one = not (override.is_delete() or override.is_sweep_override())
    return one and group in groups and setting != ""
