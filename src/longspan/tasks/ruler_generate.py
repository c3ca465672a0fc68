"""RULER's data through lm-eval's generator functions: sized, seeded, repaired, checked.

The texts are those of NVIDIA/RULER of January 2025. No sentence of the benchmark stands in this
package: templates and generators come from lm-eval at run time (not a public interface, hence its
exact pin). Runs in the child process of `prepare`, or in process for a tokenizer that is not from
Hugging Face.
"""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from longspan.options import SEEDS
from longspan.tasks.randomness import global_random
from longspan.tasks.ruler_kinds import source

if TYPE_CHECKING:
    from collections.abc import Callable

    from longspan.tasks.ruler_job import Job, Row
    from longspan.tasks.ruler_kinds import Report, Source

STREAMS = 5
"""How often a sample that does not fit is drawn anew before the job fails."""
SHRINK_TOKENS = 64
"""How much shorter the samples of every further stream are."""
_STREAM_STRIDE = 1_000_003


def generate(job: Job, count: Callable[[str], int], report: Callable[[int], None]) -> list[Row]:
    """`job.count` rows that fit with prefix, overhead and answer; `report` gets the number done.

    The first rows are the same for any count. Raises ValueError where the context is too short for
    the task.
    """
    if not 0 <= job.seed < SEEDS:
        raise ValueError(f"seed={job.seed}: must be in [0, {SEEDS})")
    make = source(job, count)
    rows: dict[int, Row] = {}
    for stream in range(STREAMS):
        missing = {index for index in range(job.count) if index not in rows}
        if not missing:
            break
        seed = job.seed + stream * _STREAM_STRIDE
        limit = job.context_tokens - job.overhead_tokens - stream * SHRINK_TOKENS
        # Only the first stream is long enough to be worth watching.
        watch = _silent if stream else report
        with global_random(seed), redirect_stdout(io.StringIO()):
            fresh = _made(make, job, (limit, seed, max(missing) + 1, watch))
        for row in fresh:
            if row["index"] in missing and _fits(row, job, count):
                rows[row["index"]] = {**row, "stream": stream}
    return [_found(rows, index, job) for index in range(job.count)]


def _made(make: Source, job: Job, arguments: tuple[int, int, int, Report]) -> list[Row]:
    try:
        return make(*arguments)
    except ValueError as error:
        if str(error).startswith("ctx="):
            raise
        # lm-eval's own words name its own settings.
        reason = str(error).partition(". ")[0]
        raise ValueError(
            f"ctx={job.context_tokens}: ruler_{job.task}: {reason}; a larger ctx may be needed"
        ) from error


def _fits(row: Row, job: Job, count: Callable[[str], int]) -> bool:
    """Count the whole prompt, note it in the row, compare with the context."""
    row["tokens"] = count(f"{row['input']} {row['prefix']}") + job.overhead_tokens
    return bool(row["tokens"] + job.max_new_tokens <= job.context_tokens)


def _found(rows: dict[int, Row], index: int, job: Job) -> Row:
    if index not in rows:
        raise ValueError(
            f"ctx={job.context_tokens}: sample {index} of ruler_{job.task} does not fit with its "
            f"{job.max_new_tokens} new tokens; a larger ctx is needed"
        )
    return rows[index]


def _silent(_done: int) -> None:
    pass
