"""What a job knows of the sweep that it belongs to, and what is said of it as it begins."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from longspan.fingerprint import FULL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

OUTSIDE = (
    "samples", "batch", "threads", "measure", "recorder", "partial_seconds", "partial_states",
    "prompts_gb", "debug", "model.graphs", "model.compile", "model.overlap_index",
    "model.device_map", "task.start", "task.pass_k", "task.n_sampling",
)  # fmt: skip
"""Keys, with all below them, that are in no fingerprint and so make no folder of their own."""
CHUNKS = "model.prefill_chunk_tokens"
"""Another such key, but for a prefill that chooses by chunks."""


@dataclass(frozen=True)
class Sweep:
    """A name and the overrides that the command line gave."""

    name: str
    """For recorders that show sweeps together."""
    overrides: tuple[str, ...]

    def begins(self, composed: Any) -> Iterator[str]:
        """Which job of how many it is, and what only some of them have; `composed` is Hydra's own
        configuration. Before the first, what its jobs write over one another.
        """
        from longspan.composition import jobs_of

        number = composed.job.num
        if "BasicSweeper" not in composed.sweeper._target_:  # another may not know how many
            yield f"job {number + 1}: {' '.join(composed.overrides.task)}"
            return
        given = (f"{key}={value}" for key, value in (composed.sweeper.params or {}).items())
        jobs = jobs_of((*given, *self.overrides))
        told = [each for each in jobs[number] if not all(each in other for other in jobs)]
        outside = (*OUTSIDE, CHUNKS) if composed.runtime.choices.get("prefill") == FULL else OUTSIDE
        if number == 0 and (names := _sharing((each for job in jobs for each in job), outside)):
            yield (
                f"jobs that differ in {' and '.join(names)} alone share a folder: there the "
                "recall and the latency of the later take the place of the earlier's; the table "
                "at the end has them all"
            )
        yield " ".join([f"job {number + 1} of {len(jobs)}{':' * bool(told)}", *told])


def sweep_name(overrides: Sequence[str]) -> str:
    """The same for the same command, so that a resumed sweep stays one group."""
    return f"sweep-{hashlib.sha256(' '.join(overrides).encode()).hexdigest()[:8]}"


def _sharing(overrides: Iterable[str], outside: Sequence[str]) -> list[str]:
    """The keys with several values that make no folder of their own."""
    keys = [each.partition("=")[0].lstrip("+") for each in dict.fromkeys(overrides)]
    several = (key for key in dict.fromkeys(keys) if keys.count(key) > 1)
    return [key for key in several if any(f"{key}.".startswith(f"{each}.") for each in outside)]
