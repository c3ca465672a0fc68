"""Make RULER's rows in a child process: `python -m longspan.tasks.prepare` with a JSON request on
stdin.

The child keeps lm-eval's imports, patches and global seeds out of the process that measures. On its
stdout it says in a line of JSON each how many rows are done, and last the rows or the error.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING, Any

from longspan.tasks.cache import RowCache
from longspan.tasks.lengths import count_tokens
from longspan.tasks.ruler_job import GENERATOR_VERSION, Job, Row
from longspan.tasks.tokenizer_files import child_counter, fingerprint, hand_over

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from longspan.tasks.base import Tokenizer

SECONDS_BETWEEN_LINES = 10
LINES_OF_A_FAILURE = 3
PACKAGES = ("lm_eval", "wonderwords", "nltk")


def versions() -> dict[str, str]:
    """Versions of the packages that the rows depend on."""
    return {name: version(name) for name in PACKAGES}


def announcer(label: str) -> Callable[[int, int], None]:
    """A progress that says on stderr that `label` is prepared, and every ten seconds how far."""
    begun = said = time.monotonic()

    def say(done: int, asked: int) -> None:
        nonlocal said
        now = time.monotonic()
        if done and (now - said < SECONDS_BETWEEN_LINES or done == asked):
            return
        said = now
        far = f"{done}/{asked} samples, {now - begun:.0f} s" if done else f"{asked} samples"
        print(f"preparing {label}: {far}", file=sys.stderr, flush=True)

    return say


def prepared_rows(
    job: Job,
    tokenizer: Tokenizer,
    data_dir: str,
    facts: Mapping[str, Any],
    progress: Callable[[int, int], None],
) -> list[Row]:
    """The job's rows, from the cache or made anew; `progress` gets (rows done, rows asked) while
    they are made.

    `facts` are whatever else identifies the data (digests of files). Raises ValueError where they
    cannot be made.
    """
    key = dataclasses.asdict(job) | {
        "generator": GENERATOR_VERSION,
        "tokenizer": fingerprint(tokenizer),
        "facts": dict(facts),
        "versions": versions(),
    }
    # The first rows are the same for any count, and a file is known by its digest and not its
    # place.
    del key["count"], key["path"]
    cache = RowCache.at(data_dir, f"ruler_{job.task}-{job.context_tokens}", key)

    def make(count: int) -> list[Row]:
        def report(done: int) -> None:
            if done:
                progress(done, count)

        rows = _make(dataclasses.replace(job, count=count), tokenizer, report)
        progress(count, count)
        return rows

    return cache.rows(job.count, make, lambda: progress(0, job.count))


def _make(job: Job, tokenizer: Tokenizer, report: Callable[[int], None]) -> list[Row]:
    handed = hand_over(tokenizer)
    if handed is None:
        from longspan.tasks.ruler_generate import generate

        return generate(job, lambda text: count_tokens(tokenizer, text), report)
    return _child_rows({"job": dataclasses.asdict(job), "tokenizer": handed}, report)


def _child_rows(request: dict[str, Any], report: Callable[[int], None]) -> list[Row]:
    command = [sys.executable, "-m", "longspan.tasks.prepare"]
    pipe, both = subprocess.PIPE, subprocess.STDOUT
    rows: list[Row] = []
    other: deque[str] = deque(maxlen=LINES_OF_A_FAILURE)
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=both, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            with suppress(BrokenPipeError):  # a child that ended early has said why
                child.stdin.write(json.dumps(request) + "\n")
                child.stdin.flush()
            for line in child.stdout:
                match _message(line):
                    case {"error": text}:
                        raise ValueError(text)
                    case {"done": done}:
                        report(done)
                    case {"row": row}:
                        rows.append(row)
                    case _:
                        other.append(line.strip())
        except BaseException:
            child.kill()
            raise
    if child.returncode:
        said = "; ".join(filter(None, other)) or "it said nothing"
        raise RuntimeError(f"preparing the data ended with status {child.returncode}: {said}")
    return rows


def _message(line: str) -> Any:
    """What the child means to say; None for a line that a library wrote."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def main() -> None:
    """The child: read the request, write the rows to stdout. It ends with its parent, which holds
    the other end of its stdin, however that ends.
    """
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with, args=(sys.stdin.fileno(),), daemon=True).start()
    answers = sys.stdout

    def say(**message: Any) -> None:
        print(json.dumps(message), file=answers, flush=True)

    count = child_counter(request["tokenizer"])
    _import_lm_eval()
    from longspan.tasks.ruler_generate import generate

    try:
        rows = generate(Job(**request["job"]), count, lambda done: say(done=done))
    except ValueError as error:
        say(error=str(error))
        return
    for row in rows:
        say(row=row)


def _end_with(parent: int) -> None:
    """A killed parent asks for nothing any more; a sample may take long until one is written."""
    os.read(parent, 1)
    os._exit(1)


def _import_lm_eval() -> None:
    """Import what lm-eval's generators share, which takes `AutoTokenizer` from transformers.

    Nothing here calls it, and torch behind it would be most of the child's time: unless
    transformers is loaded already, an empty module stands in during the import.
    """
    stand_in = ModuleType("transformers")
    stand_in.AutoTokenizer = None  # type: ignore[attr-defined]
    if sys.modules.setdefault("transformers", stand_in) is stand_in:
        try:
            import_module("lm_eval.tasks.ruler.common_utils")
        finally:
            del sys.modules["transformers"]


if __name__ == "__main__":
    main()
