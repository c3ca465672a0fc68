"""What the harness costs: the quality pass of the runner against a bare generate loop.

python experiments/harness_overhead/study.py [--samples 20] [--rounds 5] [overrides of run.py ...]
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from longspan import passes
from longspan.models.generation import Stream, generate
from longspan.record.jsonl import RunFolder
from longspan.runner import prepare
from longspan.screen import Screen
from longspan.studies.study import launch
from longspan.workbench import Workbench

if TYPE_CHECKING:
    from collections.abc import Callable

    from longspan.runner import Run

CONF = Path(__file__).parents[2] / "conf"


def bare(run: Run) -> None:
    """Read and answer every example; nothing is kept."""
    for example in run.examples:
        ids = [token for part in run.model.encode(example) for token in part]
        limit = run.request.max_new_tokens or example.max_new_tokens
        session = run.model.session(run.method, 1, len(ids) + limit)
        logits_BV = session.prefill([ids])
        stream = Stream(prompt_tokens=len(ids), max_new_tokens=limit, stop=example.stop)
        for _ in generate(
            session,
            logits_BV,
            [stream],
            tokenizer=run.model.tokenizer,
            eos_ids=run.model.eos_ids,
            sampling=run.sampling,
        ):
            pass
        stream.text(run.model.tokenizer)


def harness(run: Run, folder: Path) -> None:
    """The quality pass of the same examples: score, record, sync, bars."""
    shutil.rmtree(folder, ignore_errors=True)
    with Screen() as screen, RunFolder(folder, "overhead") as kept:
        passes.quality(run, kept, screen)


def taken(act: Callable[[], object]) -> tuple[float, float]:
    """(wall, CPU) seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - wall, time.process_time() - cpu


def composed(overrides: list[str]) -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose("config", overrides), resolve=True)


def main(given: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    arguments, overrides = parser.parse_known_args(given)
    for name in ("samples", "rounds"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} = {getattr(arguments, name)}: right would be 1 or more")
    config = composed([f"samples={arguments.samples}", *overrides])
    with Screen() as screen:
        run = prepare(config, Workbench(), screen)
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        acts: tuple[Callable[[], object], ...]
        acts = (partial(bare, run), partial(harness, run, Path(folder) / "run"))
        for act in acts:
            act()  # warm-up
        for number in range(arguments.rounds):
            order = (0, 1) if number % 2 == 0 else (1, 0)  # drift hits both alike
            spent = {which: taken(acts[which]) for which in order}
            rounds.append([100 * (spent[1][clock] / spent[0][clock] - 1) for clock in (0, 1)])
            print(f"round {number}: bare {spent[0][0]:.2f} s, harness {spent[1][0]:.2f} s")
    what = f"{run.task.label} ctx={run.request.ctx} {run.method.name} {run.model.name}"
    print(f"{what}, {len(run.examples)} samples, {torch.get_num_threads()} threads")
    for name, shares in zip(("wall", "CPU"), zip(*rounds, strict=True), strict=True):
        spread = f"{min(shares):+.1f} to {max(shares):+.1f}%"
        print(f"overhead, {name}: {statistics.median(shares):+.1f}% (median; {spread})")


if __name__ == "__main__":
    sys.exit(launch(main))
