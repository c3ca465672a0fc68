"""The command line: compose, run one job or a sweep, one line an error, one table at the end."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longspan.errors import FAILED, WRONG_REQUEST, exit_code, fail, wants_debug
from longspan.record.base import Busy
from longspan.sweep import Sweep, sweep_name

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence

    from hydra._internal.hydra import Hydra
    from omegaconf import DictConfig

    from longspan.workbench import Workbench

SIDE_BY_SIDE = ("joblib", "LocalLauncher")
"""In the class names of launchers whose jobs share a machine."""


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    overrides: tuple[str, ...]
    code: int = 0
    error: str | None = None
    folder: str | None = None
    summary: dict[str, Any] | None = None


def main(argv: Sequence[str], conf: Path) -> int:
    """Run the command line `argv` with the configuration folder `conf`; returns the exit code.

    0 done, 1 a job failed, 2 the request was wrong, 130 interrupted, 143 by SIGTERM.
    """
    from longspan import composition

    parser = composition.parser()
    try:
        arguments = parser.parse_intermixed_args(list(argv))
    except SystemExit as stop:  # argparse has said why
        return int(stop.code or 0)
    debug = wants_debug(arguments.overrides)
    return exit_code(partial(_main, arguments, parser, conf), debug=debug)


def _main(arguments: Namespace, parser: ArgumentParser, conf: Path) -> int:
    from hydra.core.global_hydra import GlobalHydra

    from longspan import composition

    try:
        hydra = composition.opened(arguments, conf)
        arguments.overrides = composition.without_papers(hydra, arguments.overrides)
        composition.check(hydra, arguments.overrides)
        if composition.shows(hydra, arguments, parser):
            return 0
        sweep = composition.is_sweep(hydra, arguments)
        return _report(_run(hydra, arguments, sweep=sweep), sweep=sweep)
    finally:
        GlobalHydra.instance().clear()


def job(config: DictConfig, workbench: Workbench, sweep: Sweep | None = None) -> Outcome:
    """Run one composed configuration; whatever goes wrong is in the outcome."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from longspan.runner import execute, prepare
    from longspan.screen import Screen

    composed = HydraConfig.get()
    given: Any = OmegaConf.to_container(composed.overrides.task)
    overrides = tuple(given)
    alone = not any(name in composed.launcher._target_ for name in SIDE_BY_SIDE)
    debug = config.get("debug") is True
    try:
        if composed.job.chdir:
            raise ValueError("hydra.job.chdir = True: paths would be moved; right is false")
        plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        recorder = plain.get("recorder")
        if sweep and isinstance(recorder, dict) and "group" in recorder:
            recorder["group"] = recorder["group"] or sweep.name
        with Screen() as screen:
            for line in sweep.begins(composed) if sweep else ():
                screen.note(line)
            run = prepare(plain, workbench, screen, alone=alone, sweep=sweep is not None)
            folder, summary = execute(run, screen)
    except Exception as error:
        line, code = fail(error, debug)
        return Outcome(overrides, code, line)
    return Outcome(overrides, 0, None, str(folder), summary)


def _run(hydra: Hydra, arguments: Namespace, *, sweep: bool) -> list[Outcome]:
    from longspan import composition
    from longspan.workbench import Workbench

    workbench = Workbench()
    name = composition.config_name(arguments)
    if not sweep:
        alone = partial(job, workbench=workbench)
        return [hydra.run(name, alone, arguments.overrides).return_value]
    overrides = tuple(arguments.overrides)
    known = Sweep(sweep_name([str(arguments.config_name), *overrides]), overrides)
    each = partial(job, workbench=workbench, sweep=known)
    batches = hydra.multirun(name, each, list(overrides))
    return [done.return_value for batch in batches for done in batch]


def _report(outcomes: list[Outcome], *, sweep: bool) -> int:
    from longspan.table import show

    finished = [_renewed(each) if sweep else each for each in outcomes]
    show(finished, sweep=sweep)
    codes = {each.code for each in finished}
    if codes <= {0, WRONG_REQUEST}:
        return max(codes) if len(codes) == 1 else FAILED
    return FAILED


def _renewed(outcome: Outcome) -> Outcome:
    """With the comparison to a baseline that may have run after it, which is written down where the
    folder still has this job's summary and not that of one that shares it.
    """
    from longspan.record.files import plain
    from longspan.record.jsonl import RunFolder
    from longspan.summary import refresh

    if outcome.folder is None or outcome.summary is None:
        return outcome
    summary = refresh(Path(outcome.folder), outcome.summary)
    if summary != outcome.summary:
        own, digest = plain(outcome.summary), summary["fingerprint"]
        with suppress(Busy), RunFolder(Path(outcome.folder), digest) as folder:
            if folder.read("summary.json") == own:
                folder.write("summary.json", summary)
    return replace(outcome, summary=summary)
