"""What experiments/fixed_steps measures; tests/emulated captures its steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pytest
from tests.experiments.test_studies import study

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("matplotlib", reason="no plots extra")
TINY = ["--prompts", "2", "--kv-heads", "2", "--head-size", "16", "--steps", "1"]


def test_rows_say_what_was_read_beside_full_attention(tmp_path: Path) -> None:
    places = ["--out", str(tmp_path), "--results", str(tmp_path / "rows")]
    line = ["--tokens", "300", "--heads", "4", "--device", "cpu", "--warmup", "0", *TINY]
    study("fixed_steps").main([*line, "--methods", "snapkv,pqcache:wave_buffer", *places])
    table = pd.read_csv(tmp_path / "table.csv").set_index("method")
    assert list(table.index) == ["full", "snapkv", "pqcache:wave_buffer"]
    assert (table["us a step"] > 0).all()
    entry_bytes = 2 * 16 * 2
    assert table["KV MB read"]["full"] * 1e6 == 2 * 2 * 301 * entry_bytes
    # 32 of the window, one before it and the new token
    assert table["KV MB read"]["snapkv"] * 1e6 == 2 * 2 * 34 * entry_bytes
    assert table["bytes, of full's"]["snapkv"] == pytest.approx(34 / 301)
    faster = table["us a step"]["full"] / table["us a step"]
    assert table["times as fast as full"].tolist() == pytest.approx(faster.tolist())
    assert table["index MB read"]["pqcache:wave_buffer"] > 0


def test_what_cannot_be_measured_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = study("fixed_steps")
    loki = module.WAYS["loki"]
    monkeypatch.setitem(module.WAYS, "loki:wave_buffer", module.replace(loki, placement="gpu"))
    monkeypatch.setattr(type(loki), "static_obstacle", lambda *_: "it reads elsewhere")
    (row,) = module.measure(
        (300, 1, "loki:wave_buffer"), module.Sizes(), module.torch.device("cpu")
    )
    assert row["note"] == "it reads elsewhere"
    frame = module.beside_full(pd.DataFrame([row]))
    assert frame["times as fast as full"].isna().all()
