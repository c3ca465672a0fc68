"""Every error of a run as one line and an exit code: 1 a job failed, 2 the request was wrong."""

from __future__ import annotations

import difflib
import errno
import re
import sys
import traceback
from typing import TYPE_CHECKING

from longspan.record.base import Busy

if TYPE_CHECKING:
    from collections.abc import Iterable

FAILED = 1
WRONG_REQUEST = 2
INTERRUPTED = 130


def wants_debug(overrides: Iterable[str]) -> bool:
    """Whether debug=true is among them; known before anything is composed."""
    return any(each.replace(" ", "").lower() == "debug=true" for each in overrides)


def fail(error: BaseException, debug: bool) -> tuple[str, int]:
    """Say the error, where it came from if `debug`; the line and the exit code."""
    line, code = explain(error)
    if debug:
        traceback.print_exception(error)
    print(f"error: {line}", file=sys.stderr, flush=True)
    return line, code


def interrupted() -> int:
    """Say what Ctrl-C left; the exit code."""
    line = "interrupted; what is recorded is kept, and the same command goes on"
    print(line, file=sys.stderr, flush=True)
    return INTERRUPTED


def explain(error: BaseException) -> tuple[str, int]:
    """One line that says what to change, and the exit code."""
    if isinstance(error, Busy):
        return one_line(error), FAILED
    module = type(error).__module__.partition(".")[0]
    if module in ("hydra", "omegaconf", "antlr4"):
        return _of_composition(str(error)), WRONG_REQUEST
    if isinstance(error, OSError):
        return _of_system(error), WRONG_REQUEST
    if isinstance(error, ValueError):
        return one_line(error), WRONG_REQUEST
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        hint = "a shorter ctx, a smaller batch or a method that reads less would fit"
        return f"out of memory ({one_line(error)}); {hint}", FAILED
    name = type(error).__name__
    return f"{name}: {one_line(error)} (debug=true shows where)", FAILED


def one_line(error: BaseException | str) -> str:
    """The text of an error without its line breaks."""
    return re.sub(r"\s*\n\s*", "; ", str(error).strip()) or type(error).__name__


def _of_system(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = error.filename or "the results folder"
        return (
            f"{where}: the disk is full; make room, or name another folder by results= or "
            "task.data_dir=, and start again: what is recorded is kept"
        )
    if error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}"
    return one_line(error)


def _of_composition(text: str) -> str:
    """Hydra's and OmegaConf's messages, in our words."""
    missing = re.search(r"Could not find '(?:\S*?config/)?([^']+)/([^'/]+)'", text)
    options = re.search(r"Available options in '[^']+':\n((?:\t.*\n?)+)", text)
    if missing and options:
        return f"{missing[1]} = {missing[2]!r}: {_alternatives(missing[2], options[1].split())}"
    unset = re.search(r"Missing mandatory value: \S+\s+full_key: (\S+)", text)
    if unset:
        return f"{unset[1]} is missing: it has no default; right would be {unset[1]}=..."
    several = re.search(r"Ambiguous value for argument '(([^'=]+)=([^']*))'", text)
    if several:
        return (
            f"{several[2]} = {several[3]!r}: several values; right would be -m {several[1]} for a "
            f"sweep, or {several[2]}=[{several[3]}] for a list"
        )
    nowhere = re.search(r"Cannot find primary config '([^']+)'", text)
    if nowhere:
        return f"--config-name = {nowhere[1]!r}: there is no such configuration"
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown:
        part = unknown[1].partition(".")[0]
        where = f" in the {part} chosen, or in one of a sweep's" if part != unknown[1] else ""
        return f"{unknown[1]}: no such key{where}; python run.py --help lists them"
    absent = re.search(r"Could not delete from config\. '([^']+)' does not exist", text)
    if absent:
        return f"~{absent[1]}: no such key, or null already; python run.py --help lists them"
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
