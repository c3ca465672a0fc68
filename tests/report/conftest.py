"""A made-up sweep that the tests of this room read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.report.factory import sweep

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 runs; read only."""
    root = tmp_path_factory.mktemp("swept")
    sweep(root)
    return root
