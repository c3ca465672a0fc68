"""Pages in a headless browser, where one is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find() -> str | None:
    """The path of a browser."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def needed() -> str:
    """The path of a browser; skips the test where there is none."""
    found = find()
    if found is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed")
    return found


def opened(browser: str, html: str, folder: Path) -> tuple[str, list[str]]:
    """The document after its scripts have run, and what was said on the console."""
    path = folder / "report.html"
    path.write_text(html)
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    command = [
        browser, "--headless=new", *sandbox, "--disable-gpu", "--enable-logging=stderr",
        f"--user-data-dir={folder / 'profile'}", "--disable-extensions", "--dump-dom",
        path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
