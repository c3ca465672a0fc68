"""Which task, length and form the next training step has; each task grows on its own accuracy."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from nano_counts import CWE_EXACT, EASY, FWE_EXACT, cwe_sequence, fwe_sequence
from nano_forms import choose_form
from nano_niah import niah_sequence
from nano_sequence import copy_sequence
from nano_vt import vt_sequence

if TYPE_CHECKING:
    import random

    from nano_sequence import Material, Sequence

START: Final = {"copy": 64, "niah": 256, "values": 200, "vt": 160, "cwe": EASY, "fwe": EASY}
EXACT: Final = {"copy": 0.0, "niah": 0.35, "values": 0.3, "vt": 0.4, "cwe": 0.5, "fwe": 0.5}
"""Share of jobs in the form of the evaluation."""
LEAST_EXACT: Final = {"vt": 400, "cwe": CWE_EXACT, "fwe": FWE_EXACT}
"""Tokens that hold the form of the evaluation."""
COUNTING: Final = ("cwe", "fwe")
"""Tasks without a haystack: every token counts, and no length is virtual."""
SHARED: Final = ("niah", "values", "vt", "cwe", "fwe")
SHARES: Final = (0.34, 0.26, 0.18, 0.11, 0.11)
"""Of jobs, once copying has formed, by the tasks of SHARED."""
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
        for task, write in (("vt", vt_sequence), ("cwe", cwe_sequence), ("fwe", fwe_sequence)):
            if self.task == task:
                return write(material, self.length, self.exact)
        form = choose_form(material, self.length, self.exact, self.task == "values")
        return niah_sequence(material, self.length, form)


@dataclass
class Curriculum:
    """Lengths by task; `note` moves a task on when its last accuracies pass the gate."""

    tokens: int
    real: int
    longest: int
    longest_real: int = 4500
    """The most tokens of a job that is as long as it seems; see `choose`."""
    copying: bool = True
    shares: tuple[float, ...] = SHARES
    lengths: dict[str, int] = field(default_factory=lambda: dict(START))
    recent: dict[str, deque[float]] = field(default_factory=dict)
    exact: dict[str, deque[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.recent = {task: deque(maxlen=WINDOW) for task in START}
        self.exact = {task: deque(maxlen=WINDOW) for task in START}

    def begin(self, length: int) -> None:
        """Let every task that a model is known to master, which counting is not, start there."""
        for task in set(START) - {"copy", *COUNTING}:
            self.lengths[task] = max(START[task], min(self.longest, length))

    def choose(self, rng: random.Random, truly_long: float) -> Job:
        """The next job; `truly_long` is the share of long jobs that are not virtual."""
        copied = self.recent["copy"]
        formed = len(copied) == WINDOW and sum(copied) / WINDOW > 0.6
        task = "copy"
        if formed or not self.copying:
            share = 0.15 if self.copying else 0.0
            task = rng.choices(tuple(START), (share, *self.shares))[0]
            self.copying = self.copying and self.lengths["niah"] < 400
        top = self.lengths[task]
        counts = task == "copy" or rng.random() < 0.4
        length = top if counts else int(START[task] * (top / START[task]) ** rng.random())
        exact = rng.random() < EXACT[task] and top >= LEAST_EXACT.get(task, 0)
        if exact:
            length = max(length, LEAST_EXACT.get(task, 0))
        real, virtual = length, 0
        if length > self.real and task not in COUNTING:
            real, virtual = int(self.real * rng.uniform(0.8, 1.2)), length
            if rng.random() < truly_long:
                # Drawn anew: of lengths up to 150,000 hardly any would do.
                most = min(top, self.longest_real)
                real, virtual = int(self.real * (most / self.real) ** rng.random()), 0
                counts = False
        rows = max(1, self.tokens // real)
        # Dense needles are the gate: with few of them the answer can be half guessed.
        return Job(
            task, real, virtual, rows, exact, counts and not (exact and task in ("niah", "values"))
        )

    def note(self, job: Job, accuracy: float) -> None:
        """Count an accuracy and lengthen the task when its gate is passed."""
        if job.exact:
            self.exact[job.task].append(accuracy)
        if not job.counts:
            return
        recent = self.recent[job.task]
        recent.append(accuracy)
        if job.task != "copy" and len(recent) == WINDOW and sum(recent) / WINDOW > GATE:
            most = self.longest_real if job.task in COUNTING else self.longest
            self.lengths[job.task] = min(most, int(self.lengths[job.task] * 1.7))
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
