"""Which task, length and form the next training step has; each task grows on its own accuracy."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from nano_niah import choose_form, niah_sequence
from nano_sequence import copy_sequence
from nano_vt import vt_sequence

if TYPE_CHECKING:
    import random

    from nano_sequence import Material, Sequence

START: Final = {"copy": 64, "niah": 256, "values": 200, "vt": 160}
EXACT: Final = {"copy": 0.0, "niah": 0.35, "values": 0.3, "vt": 0.4}
"""Share of jobs in the form of the evaluation."""
VT_EXACT: Final = 400
"""Tokens that hold the example and the question of variable tracking."""
SHARES: Final = (0.4, 0.3, 0.3)
"""Of jobs, once copying has formed: niah, values, vt."""
GATE: Final = 0.68
WINDOW: Final = 20


@dataclass(frozen=True)
class Job:
    """One training step: `rows` sequences of `length` real tokens, felt as `virtual` tokens."""

    task: str
    length: int
    virtual: int
    rows: int
    exact: bool
    counts: bool

    def write(self, material: Material, vocabulary: int) -> Sequence:
        """One sequence for this job."""
        if self.task == "copy":
            return copy_sequence(material, self.length, vocabulary)
        if self.task == "vt":
            return vt_sequence(material, self.length, self.exact)
        form = choose_form(material, self.length, self.exact, self.task == "values")
        return niah_sequence(material, self.length, form)


@dataclass
class Curriculum:
    """Lengths by task; `note` moves a task on when its last accuracies pass the gate."""

    tokens: int
    real: int
    longest: int
    longest_real: int = 4500
    """Up to so many tokens a job may stay as long as it is; see `choose`."""
    copying: bool = True
    lengths: dict[str, int] = field(default_factory=lambda: dict(START))
    recent: dict[str, deque[float]] = field(default_factory=dict)
    exact: dict[str, deque[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.recent = {task: deque(maxlen=WINDOW) for task in START}
        self.exact = {task: deque(maxlen=WINDOW) for task in START}

    def choose(self, rng: random.Random, truly_long: float) -> Job:
        """The next job; `truly_long` is the share of long jobs that are not virtual."""
        copied = self.recent["copy"]
        formed = len(copied) == WINDOW and sum(copied) / WINDOW > 0.6
        if not self.copying:
            weights = (0.0, *SHARES)
        elif not formed:
            weights = (1.0, 0.0, 0.0, 0.0)
        else:
            weights = (0.15, *SHARES)
            self.copying = self.lengths["niah"] < 400
        task = rng.choices(tuple(START), weights)[0]
        top = self.lengths[task]
        counts = task == "copy" or rng.random() < 0.4
        length = top if counts else int(START[task] * (top / START[task]) ** rng.random())
        exact = rng.random() < EXACT[task] and (task != "vt" or top >= VT_EXACT)
        real, virtual = length, 0
        if length > self.real:
            virtual = length
            stays_real = rng.random() < truly_long and length <= self.longest_real
            real = length if stays_real else int(self.real * rng.uniform(0.8, 1.2))
            virtual = 0 if stays_real else length
        rows = max(1, self.tokens // real)
        # Dense needles are the gate: with few of them the answer can be half guessed.
        return Job(task, real, virtual, rows, exact, counts and not (exact and task != "vt"))

    def note(self, job: Job, accuracy: float) -> None:
        """Count an accuracy and lengthen the task when its gate is passed."""
        if job.exact:
            self.exact[job.task].append(accuracy)
        if not job.counts:
            return
        recent = self.recent[job.task]
        recent.append(accuracy)
        if job.task != "copy" and len(recent) == WINDOW and sum(recent) / WINDOW > GATE:
            self.lengths[job.task] = min(self.longest, int(self.lengths[job.task] * 1.7))
            recent.clear()

    def report(self) -> dict[str, Any]:
        """Length, accuracy on dense and on exact forms, by task; for the log."""
        out: dict[str, Any] = {}
        for task, length in self.lengths.items():
            for name, values in (("", self.recent[task]), ("_exact", self.exact[task])):
                if values:
                    out[task + name] = round(sum(values) / len(values), 3)
            out[task + "_length"] = length
        return out

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"lengths": dict(self.lengths), "copying": self.copying}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        self.lengths = {task: max(n, state["lengths"].get(task, 0)) for task, n in START.items()}
        self.copying = state["copying"]
