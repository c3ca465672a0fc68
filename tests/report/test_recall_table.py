"""The recall pass as tidy tables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.report.factory import Made, make

from longspan import results

if TYPE_CHECKING:
    from pathlib import Path


def test_a_row_a_layer_and_head(tmp_path: Path) -> None:
    path = make(tmp_path, Made(method="retroinfer", share=0.02, layers=3, heads=4))
    make(tmp_path, Made(layers=3, heads=4))
    heads = results.read_heads(tmp_path)
    assert len(heads) == 2 * 3 * 4
    own = heads[heads["method"] == "retroinfer"].set_index(["layer", "head"])
    kept = json.loads((path / "recall.json").read_text())["found"]["by_layer_and_head"]
    assert own.loc[(2, 3), "recovered_mass"] == kept["recovered_mass"][2][3]
    assert own["estimated_mass"].isna().all()
    assert own["estimated_mass"].dtype == float


def test_a_row_a_step(tmp_path: Path) -> None:
    make(tmp_path, Made())
    steps = results.read_steps(tmp_path)
    assert steps["step"].tolist() == list(range(16))
    assert steps["recall"].eq(0.5).all()


def test_what_was_not_measured_is_said(tmp_path: Path) -> None:
    (make(tmp_path, Made()) / "recall.json").unlink()
    for read in (results.read_heads, results.read_steps):
        with pytest.raises(ValueError, match="no run has measured recall"):
            read(tmp_path)


def test_a_file_that_somebody_edited_is_named(tmp_path: Path) -> None:
    path = make(tmp_path, Made()) / "recall.json"
    kept = json.loads(path.read_text())
    for group in ("by_layer_and_head", "by_step"):
        kept["found"][group] |= {"recall": {}}
    path.write_text(json.dumps(kept))
    for read in (results.read_heads, results.read_steps):
        with pytest.raises(ValueError, match=r"recall\.json: not as a run leaves it"):
            read(tmp_path)
