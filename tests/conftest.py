"""Kernels of a GPU run in Triton's interpreter where there is none; what takes longest
begins first, so that no worker is left alone with it at the end.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from tests.interpreter import quicken

if TYPE_CHECKING:
    import pytest

if not torch.cuda.is_available():  # Triton reads it when it is imported
    os.environ["TRITON_INTERPRET"] = "1"
    if find_spec("triton") is not None:
        quicken()

LONGEST = (
    "models/test_static.py",
    "models/test_static_sessions.py",
    "emulated/test_emulated.py",
    "kernels/test_triton.py",
    "runner/test_run.py",
    "experiments/test_studies.py",
    "runner/test_sweeps.py",
    "kernels/test_bench.py",
    "report/test_sweep_of_24.py",
)
"""Files, by what they take on two cores; all others follow in the order they are found in."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Stable, so that a file's tests keep their order."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get("/".join(item.path.parts[-2:]), len(ranks)))
