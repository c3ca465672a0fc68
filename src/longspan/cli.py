"""The command line: compose, run one job or a sweep, one line an error, one table at the end."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longspan.errors import FAILED, WRONG_REQUEST, fail, interrupted, wants_debug

if TYPE_CHECKING:
    from argparse import Namespace
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

    0 done, 1 a job failed, 2 the request was wrong, 130 interrupted.
    """
    from hydra.core.global_hydra import GlobalHydra

    from longspan import composition

    parser = composition.parser()
    try:
        arguments = parser.parse_args(list(argv))
    except SystemExit as stop:  # argparse has said why
        return int(stop.code or 0)
    debug = wants_debug(arguments.overrides)
    try:
        hydra = composition.opened(arguments, conf)
        arguments.overrides = composition.without_papers(hydra, arguments.overrides)
        composition.check(hydra, arguments.overrides)
        if composition.shows(hydra, arguments, parser):
            return 0
        sweep = composition.is_sweep(hydra, arguments)
        outcomes = _run(hydra, arguments, sweep=sweep)
    except KeyboardInterrupt:
        return interrupted()
    except BrokenPipeError:  # whoever read the output has seen enough, as `| head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        return fail(error, debug)[1]
    finally:
        GlobalHydra.instance().clear()
    return _report(outcomes, sweep=sweep)


@dataclass(frozen=True)
class Sweep:
    """What a job knows of the sweep that it belongs to."""

    name: str
    """For recorders that show sweeps together."""
    overrides: tuple[str, ...]


def job(config: DictConfig, workbench: Workbench, sweep: Sweep | None = None) -> Outcome:
    """Run one composed configuration; whatever goes wrong is in the outcome."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from longspan.runner import execute, prepare
    from longspan.screen import Screen

    composed = HydraConfig.get()
    overrides = tuple(composed.overrides.task)
    alone = not any(name in composed.launcher._target_ for name in SIDE_BY_SIDE)
    debug = config.get("debug") is True
    try:
        plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        if sweep and "group" in plain["recorder"]:
            plain["recorder"]["group"] = plain["recorder"]["group"] or sweep.name
        with Screen() as screen:
            if sweep:
                screen.note(_begins(composed, sweep))
            run = prepare(plain, workbench, screen, alone=alone)
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
    overrides = composition.for_sweep(hydra, arguments.overrides)
    known = Sweep(_sweep_name([str(arguments.config_name), *arguments.overrides]), tuple(overrides))
    each = partial(job, workbench=workbench, sweep=known)
    batches = hydra.multirun(name, each, overrides)
    return [done.return_value for batch in batches for done in batch]


def _begins(composed: Any, sweep: Sweep) -> str:
    """Which job of how many it is, and what only some of them have."""
    from longspan.composition import jobs_of

    number = composed.job.num
    if "BasicSweeper" not in composed.sweeper._target_:  # another may not know how many
        return f"job {number + 1}: {' '.join(composed.overrides.task)}"
    given = (f"{key}={value}" for key, value in (composed.sweeper.params or {}).items())
    jobs = jobs_of((*given, *sweep.overrides))
    told = [each for each in jobs[number] if not all(each in other for other in jobs)]
    return " ".join([f"job {number + 1} of {len(jobs)}{':' * bool(told)}", *told])


def _sweep_name(overrides: Sequence[str]) -> str:
    """The same for the same command, so that a resumed sweep stays one group."""
    return f"sweep-{hashlib.sha256(' '.join(overrides).encode()).hexdigest()[:8]}"


def _report(outcomes: list[Outcome], *, sweep: bool) -> int:
    from longspan.table import show

    finished = [_renewed(each) if sweep else each for each in outcomes]
    show(finished, sweep=sweep)
    codes = {each.code for each in finished}
    if codes <= {0, WRONG_REQUEST}:
        return max(codes) if len(codes) == 1 else FAILED
    return FAILED


def _renewed(outcome: Outcome) -> Outcome:
    """With the comparison to a baseline that may have run after it."""
    from dataclasses import replace

    from longspan.record.files import write_json
    from longspan.summary import refresh

    if outcome.folder is None:
        return outcome
    summary = refresh(Path(outcome.folder))
    if summary is None or summary == outcome.summary:
        return outcome
    write_json(Path(outcome.folder) / "summary.json", summary)
    return replace(outcome, summary=summary)
