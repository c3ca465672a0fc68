"""Every error of a run as one line and an exit code: 1 a job failed, 2 the request was wrong."""

from __future__ import annotations

import difflib
import errno
import os
import re
import signal
import sys
import threading
import traceback
from contextlib import contextmanager
from io import TextIOWrapper
from typing import TYPE_CHECKING

from longspan.record.base import Busy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

FAILED = 1
WRONG_REQUEST = 2
INTERRUPTED, TERMINATED = 130, 143
FULL = (errno.ENOSPC, errno.EDQUOT)
MACHINE = (*FULL, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""What fails in the middle of work and was no wrong request."""

GROUPS = "model|method|prefill|task|measure|recorder|preset|protocol"
"""Keys that choose a file, and take no list."""
LISTED = "python run.py --help lists them"
WORDS = {
    r"Missing mandatory value: \S+\s+full_key: (\S+)":
        "{1} is missing: it has no default; right would be {1}=...",
    rf"Ambiguous value for argument '(({GROUPS})=([^']*))'":
        "{2} = '{3}': several values; right would be -m {1}",
    r"Ambiguous value for argument '(([^'=]+)=([^']*))'":
        "{2} = '{3}': several values; right would be -m {1} for a sweep, or {2}=[{3}] for a list",
    r"Cannot find primary config '([^']+)'":
        "--config-name = '{1}': there is no such configuration",
    r"Could not delete from config\. '([^']+)' does not exist":
        f"~{{1}}: no such key, or null already; {LISTED}",
    r"Could not delete '([^']+)'\. No match":
        "~{1}: cannot be left out; right would be another value",
    r"Multiple values for (\S+)\. To override a value use 'override \S+: ([^']+)'":
        "+{1} = '{2}': there is one already; right would be {1}={2}",
    r"Could not append to config\. An item is already at '([^']+)'":
        "+{1}: is there already; right would be {1}=...",
    r"Interpolation key '([^']+)' not found\s+full_key: hydra\.":
        f"results names ${{{{{{1}}}}}}: no such key; {LISTED}",
    r"Interpolation key '([^']+)' not found\s+full_key: (\S+)":
        f"{{2}} names ${{{{{{1}}}}}}: no such key; {LISTED}",
    r"raised while resolving interpolation: (.*)\s+full_key: (\S+)":
        "{2} cannot be worked out: {1}",
    r"((?:Recursive|Unsupported) interpolation.*)\s+full_key: (\S+)":
        "{2} cannot be worked out: {1}",
    r"Sweep parameters '(([^'=]+)=([^']*))' requires --multirun":
        "{2} = '{3}': several values; right would be -m {1}",
}  # fmt: skip
"""How Hydra says what is wrong, and how we do."""


def exit_code(work: Callable[[], int], *, debug: bool = False) -> int:
    """What a command's `work` returns, or the code of what ended it, which is said. Letters that
    standard output has not are written as ?.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        with _told_to_end():
            return _told(work, debug)
    except KeyboardInterrupt as stop:
        return interrupted(TERMINATED if isinstance(stop, Terminated) else INTERRUPTED)
    finally:
        _let_go()


class Terminated(KeyboardInterrupt):
    """SIGTERM, by which batch systems end a job."""


@contextmanager
def _told_to_end() -> Iterator[None]:
    """Within, SIGTERM ends the work as Ctrl-C does, where signals arrive: in the main thread."""

    def end(*_: object) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _told(work: Callable[[], int], debug: bool) -> int:
    try:
        code = work()
        print(end="", flush=True)
    except BrokenPipeError:  # whoever read the output has seen enough, as `| head` has
        return FAILED
    except Exception as error:
        return fail(error, debug)[1]
    return code


def _let_go() -> None:
    """Send standard output nowhere where it takes no more, which Python would say at its end."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def wants_debug(overrides: Iterable[str]) -> bool:
    """Whether debug=true is among them; known before anything is composed."""
    return any(each.replace(" ", "").lower() == "debug=true" for each in overrides)


def fail(error: BaseException, debug: bool) -> tuple[str, int]:
    """Say the error, where it came from if `debug`; the line and the exit code.

    Raises KeyboardInterrupt where that was its cause: an import says something else of it.
    """
    if any(isinstance(each, KeyboardInterrupt) for each in _causes(error)):
        raise KeyboardInterrupt from error
    line, code = explain(error)
    if debug:
        traceback.print_exception(error)
    print(f"error: {line}", file=sys.stderr, flush=True)
    return line, code


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def interrupted(code: int = INTERRUPTED) -> int:
    """Say what is left; the exit code."""
    line = "interrupted; what is recorded is kept, and the same command goes on"
    print(line, file=sys.stderr, flush=True)
    return code


def explain(error: BaseException) -> tuple[str, int]:
    """One line that says what to change, and the exit code."""
    if isinstance(error, Busy):
        return one_line(error), FAILED
    module = type(error).__module__.partition(".")[0]
    if module in ("hydra", "omegaconf", "antlr4"):
        return _of_composition(error), WRONG_REQUEST
    if isinstance(error, OSError):
        return _of_system(error), FAILED if error.errno in MACHINE else WRONG_REQUEST
    if isinstance(error, ValueError):
        return one_line(error), WRONG_REQUEST
    if _no_memory(error):
        hint = "a shorter ctx, a smaller batch or a method that reads less would fit"
        return f"out of memory ({one_line(error)}); {hint}", FAILED
    name = type(error).__name__
    return f"{name}: {one_line(error)} (debug=true shows where)", FAILED


def _no_memory(error: BaseException) -> bool:
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or "DefaultCPUAllocator: can't allocate" in str(error)  # torch's, of the host


def one_line(error: BaseException | str) -> str:
    """The text of an error without its line breaks."""
    return re.sub(r"\s*\n\s*", "; ", str(error).strip()) or type(error).__name__


def _of_system(error: OSError) -> str:
    if error.errno in FULL:
        where = f"{error.filename}: " if error.filename else ""
        return (
            f"{where}the disk is full; make room, or name another folder by results= or "
            "task.data_dir=, and start again: what is recorded is kept"
        )
    if error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}"
    return one_line(error)


def _of_composition(error: BaseException) -> str:
    """Hydra's and OmegaConf's messages, in our words."""
    text = str(error)
    missing = re.search(r"Could not find '(?:\S*?config/)?([^']+)/([^'/]+)'", text)
    options = re.search(r"Available options in '[^']+':\n((?:\t.*\n?)+)", text)
    if missing and options:
        return f"{missing[1]} = {missing[2]!r}: {_alternatives(missing[2], options[1].split())}"
    for pattern, words in WORDS.items():
        if found := re.search(pattern, text):
            return words.format(found[0], *found.groups())
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown:
        part = unknown[1].partition(".")[0]
        where = f" in the {part} chosen, or in one of a sweep's, which needs a sweep of its own"
        where = where if part != unknown[1] else ""
        return f"{unknown[1]}: no such key{where}; {LISTED}"
    given = re.fullmatch(r"([\w.+/@-]+)=([^'\"\[{].*)", getattr(error, "override", ""))
    if given:
        quoted = f"\"{given[1]}='{given[2]}'\", with quotes within the quotes"
        home = given[2].startswith("~/")  # which the shell leaves as it is behind a =
        right = f"{given[1]}=$HOME{given[2][1:]}" if home else quoted
        return f"{given[1]} = {given[2]!r}: cannot be read; right would be {right}"
    malformed = text.partition("\nSee https://")[0]
    return f"malformed override: {one_line(malformed)}; right would be key=value"


def _alternatives(name: str, options: list[str]) -> str:
    """What could be meant; all that there is where that fits on a line."""
    if len(options) <= 24:
        return f"there is none; right would be one of {', '.join(options)}"
    close = difflib.get_close_matches(name, options, n=5, cutoff=0.3)
    hint = (
        f"near it are {', '.join(close)}" if close else f"there are {', '.join(options[:5])}, ..."
    )
    return f"there is none; {hint}; python run.py --help lists all {len(options)}"
