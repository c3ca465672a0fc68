"""The loop of one run: build the parts, measure what is missing, leave a folder."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longspan import fingerprint, fits, passes
from longspan.baseline import damaged
from longspan.build import checked, part
from longspan.fingerprint import FULL
from longspan.notes import notes
from longspan.record.jsonl import RunFolder, first
from longspan.request import Request, tokens_label
from longspan.summary import summarise

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from longspan.methods.base import Method
    from longspan.models.base import Model, Prompts
    from longspan.models.generation import Sampling
    from longspan.prefill.base import Prefill
    from longspan.record.base import Recorder
    from longspan.screen import Screen
    from longspan.tasks.base import Task
    from longspan.types import Example
    from longspan.workbench import Workbench

COLDEST = 1e-4
"""The least temperature but 0: logits over less than that are beyond float32."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run whose parts are built and whose data is there; nothing is written yet."""

    config: Mapping[str, Any]
    request: Request
    model: Model
    method: Method
    prefill: Prefill
    task: Task
    recorder: Recorder
    sampling: Sampling
    examples: Sequence[Example]
    alone: bool = True
    """Whether no other job runs beside it, so that its time can be taken."""
    prompts: Prompts | None = None
    """Those that were read before, where some are asked for again."""

    @property
    def identity(self) -> dict[str, Any]:
        """See fingerprint.identity."""
        return fingerprint.identity(
            self.model, self.method, self.task, self.request, self.sampling, self.prefill
        )

    @property
    def label(self) -> str:
        """What the run is called where methods are compared: retroinfer, retroinfer+xattention."""
        name = self.method.name
        return name if self.prefill.name == FULL else f"{name}+{self.prefill.name}"

    @property
    def folder(self) -> Path:
        """results/<task>/<ctx>/<model>/<method>-<fingerprint>."""
        digits = fingerprint.digest(self.identity)[: fingerprint.DIGITS]
        names = (
            self.task.label,
            tokens_label(self.request.ctx),
            self.model.name,
            f"{self.label}-{digits}",
        )
        return Path(self.request.results).joinpath(*(_safe(name) for name in names))


def prepare(
    config: Mapping[str, Any],
    workbench: Workbench,
    screen: Screen,
    *,
    alone: bool = True,
    sweep: bool = False,
) -> Run:
    """Build the parts in the order in which errors are cheapest; raises ValueError for a wrong
    request. `sweep`: whether other jobs of this process come before or after it.
    """
    from longspan.methods.base import Method
    from longspan.models.hub import on_hub
    from longspan.prefill.base import Prefill
    from longspan.record.base import Recorder
    from longspan.tasks.base import Task

    request = Request.parse(config)
    fits.check_alone(request, alone)
    task, method = part(config["task"], "task", Task), part(config["method"], "method", Method)
    prefill = part(config["prefill"], "prefill", Prefill)
    recorder = part(config["recorder"], "recorder", Recorder)
    if request.ctx is None:
        request = replace(request, ctx=task.default_context_tokens)
    sampling = _sampling(config["generation"])
    workbench.use_threads(request.threads)
    path = config["model"].get("path")
    away = isinstance(path, str) and on_hub(path)
    doing = f"looking for {path} on the hub, and loading it" if away else f"loading {path}"
    with screen.stage(doing, soon=away):
        model = workbench.model(config["model"])
    fits.check(request, method, model)
    with screen.stage(f"preparing {task.label}"):
        examples = workbench.examples(task, model, request)
    if not examples:
        raise ValueError(f"task: {task.label} has no examples for samples={request.samples}")
    return Run(
        config=config, request=request, model=model, method=method, prefill=prefill, task=task,
        recorder=recorder, sampling=sampling, examples=examples, alone=alone,
        prompts=workbench.prompts(request, sweep=sweep) if alone else None,
    )  # fmt: skip


def execute(run: Run, screen: Screen) -> tuple[Path, dict[str, Any]]:
    """Measure what is missing and return the folder and its summary.

    Raises Busy where another process works on the same folder.
    """
    from longspan.record.environment import environment

    identity = run.identity
    digest, pairing = fingerprint.digest(identity), fingerprint.pairing(identity)
    begun = time.perf_counter()
    with RunFolder(run.folder, digest) as folder:
        folder.write_yaml("config.yaml", run.config)
        for line in (*notes(run, folder, here := environment()), *damaged(folder.path, pairing)):
            screen.note(line)
        folder.write("environment.json", here)
        folder.write("fingerprint.json", {"pairing": pairing, **identity})
        known = first(folder.records, run.task.samples_per_example)
        run.recorder.open(folder.path, run.config, digest, known)
        try:
            for measure in (passes.quality, passes.recall, passes.latency):
                with _summed_up_whatever_happens(run, folder):
                    measure(run, folder, screen)
                summary = summarise(run, folder, seconds=time.perf_counter() - begun)
                folder.write("summary.json", summary)
            run.recorder.summary(summary)
        finally:
            run.recorder.close()
    return run.folder, summary


@contextmanager
def _summed_up_whatever_happens(run: Run, folder: RunFolder) -> Iterator[None]:
    """A pass that is stopped leaves a summary of the samples that it added."""
    before = len(folder.records)
    try:
        yield
    except BaseException:
        with suppress(Exception):  # what stopped it is told, not what follows from that
            if len(folder.records) > before:
                folder.write("summary.json", summarise(run, folder))
        raise


def _sampling(group: Mapping[str, Any]) -> Sampling:
    from longspan.models.generation import Sampling

    fields = {key: value for key, value in group.items() if key != "max_new_tokens"}
    sampling = checked(Sampling, fields, "generation")
    if 0 < sampling.temperature < COLDEST:
        raise ValueError(
            f"generation.temperature = {sampling.temperature}: right would be 0, which takes the "
            f"likeliest token, or at least {COLDEST}"
        )
    return sampling


def _safe(name: str) -> str:
    return re.sub(r"[^\w.+=-]+", "-", name).strip("-.") or "unnamed"
