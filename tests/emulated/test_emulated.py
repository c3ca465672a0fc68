"""The project's GPU code without a GPU: each case of `cases.py`, run in a process that believes it
has one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.emulated.guard import why_not

if (REASON := why_not()) is None:
    from tests.emulated.cases import CASES
else:
    CASES = {}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Any]:
    """By case, its traceback or None; what ended the process under a name of its own."""
    command = [sys.executable, "-m", "tests.emulated.run_cases"]
    root = Path(__file__).parents[2]
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    ran = subprocess.run(command, cwd=root, env=surroundings, capture_output=True, text=True)
    found = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    said = {each["name"]: each["failed"] for each in found}
    return {**said, "": f"the process ended with {ran.returncode}: {ran.stderr[-3000:]}"}


@pytest.mark.skipif(REASON is not None, reason=f"no GPU is emulated: {REASON}")
@pytest.mark.parametrize("name", CASES or ["any"])
def test_case(outcomes: dict[str, Any], name: str) -> None:
    failed = outcomes.get(name, outcomes[""])
    if failed is not None:
        pytest.fail(failed, pytrace=False)
