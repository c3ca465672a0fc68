"""What cannot fit is refused before the prompt is read, in one line."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from longspan.methods.full import Full
from longspan.methods.loki import Loki
from longspan.methods.retroinfer import RetroInfer
from longspan.models import free, room
from longspan.models.window import WindowState
from longspan.types import LayerGeometry

if TYPE_CHECKING:
    from pathlib import Path

CUDA = torch.device("cuda", 0)
LAYER = LayerGeometry(0, 4, 2, 64, 0.1, torch.bfloat16, CUDA)
ROW = 2 * 2 * 64 * 2
"""Bytes of a token in one layer."""


def test_the_estimate_names_every_device() -> None:
    layers, there = [LAYER, replace(LAYER, layer=1)], torch.device("cpu")
    for method, right in (
        (Full(), {CUDA: 2 * ROW * 100}),
        (Full(placement="cpu"), {there: 2 * ROW * 100}),
        (
            RetroInfer(placement="wave_buffer", cache_budget=0.1),
            {there: 2 * ROW * 100, CUDA: 2 * ROW * 10},
        ),
    ):
        assert room.needed(method, layers, [None] * 2, [70, 30]) == right
    own = replace(LAYER, device=there)
    buffered = RetroInfer(placement="wave_buffer", cache_budget=0.5)
    assert room.needed(buffered, [own], [None], [100]) == {there: ROW * 150}


def test_a_sliding_layer_needs_its_window_where_the_model_is() -> None:
    layers, rows = [LAYER, replace(LAYER, layer=1)], [10_000, 150, 0]
    need = room.needed(RetroInfer(placement="cpu"), layers, [100, None], rows)
    assert need == {CUDA: 2 * 200 * ROW, torch.device("cpu"): 10_150 * ROW}
    here = replace(LAYER, device=torch.device("cpu"))
    for tokens in (3, 80, 500):
        state, k_GTD = WindowState(here, 100), torch.randn(2, tokens, 64).bfloat16()
        state.prefill(k_GTD.repeat_interleave(2, 0), k_GTD, k_GTD)
        assert state._k_GTD is not None
        held = 2 * state._k_GTD.nbytes
        assert room.needed(Full(), [here], [100], [tokens]) == {here.device: held}


@pytest.mark.parametrize(
    ("free", "method", "message"),
    [
        ({"cpu": 10**12, "cuda": 10**6}, Full(), "2.0 GiB of GPU memory, and 0.0 GiB are free"),
        (
            {"cpu": 2**30, "cuda": 10**12},
            RetroInfer(placement="wave_buffer"),
            "'wave_buffer': keys and values of 2 rows of up to 2097152 tokens need 2.0 GiB of host",
        ),
    ],
)
def test_too_little_memory_is_said_with_what_would_help(
    monkeypatch: pytest.MonkeyPatch, free: dict[str, int], method: Full, message: str
) -> None:
    monkeypatch.setattr(room, "available", lambda device: free[device.type])
    room.check_room(method, [LAYER], [None], [1000])
    with pytest.raises(ValueError, match=message) as found:
        room.check_room(method, [LAYER], [None], [2**21, 2**21])
    assert "a smaller ctx or batch" in str(found.value)
    assert "\n" not in str(found.value)


def test_steps_that_are_insisted_on_need_their_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    method, tokens = Loki(placement="gpu", dense_layers=()), 10_000
    codes_bytes = 2 * tokens * 32  # half of 64 columns
    monkeypatch.setattr(room, "available", lambda device: tokens * ROW + codes_bytes)
    room.check_room(method, [LAYER], [None], [tokens])
    with pytest.raises(ValueError, match="keys and values and what steps keep of 1 rows"):
        room.check_room(method, [LAYER], [None], [tokens], insisted=True)
    room.check_room(method, [LAYER], [100], [tokens], insisted=True)  # no such steps
    monkeypatch.setattr(room, "available", lambda device: tokens * ROW + 2 * codes_bytes)
    room.check_room(method, [LAYER], [None], [tokens, 0], insisted=True)


def test_host_memory_is_known_here() -> None:
    found = free.available(torch.device("cpu"))
    assert found is not None
    assert 0 < found < 2**50
    assert free.available(torch.device("meta")) is None


@pytest.mark.parametrize(
    ("line", "folder", "files", "right"),
    [
        ("0::/a/b", "a", {"max": "9000", "current": "5000"}, 4700),
        ("0::/a/b", "a/b", {"max": "max", "current": "5000"}, 8192),
        ("0::/elsewhere", "", {"max": "9000", "current": "5000"}, 4700),
        ("4:cpu,memory:/a", "memory/a", {"limit_in_bytes": "9000", "usage_in_bytes": "1"}, 8192),
        ("4:memory:/a", "memory", {"limit_in_bytes": "9000", "usage_in_bytes": "8000"}, 1900),
        ("4:cpu:/a", "memory", {"limit_in_bytes": "9000", "usage_in_bytes": "8000"}, 8192),
    ],
)
def test_a_control_group_may_leave_less(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    folder: str,
    files: dict[str, str],
    right: int,
) -> None:
    """Of what a group has used, 700 (version 2) or 900 bytes are files that can go."""
    monkeypatch.setattr(free, "PROC", tmp_path / "proc")
    monkeypatch.setattr(free, "CGROUPS", tmp_path / "groups")
    there = tmp_path / "groups" / folder
    for each in (tmp_path / "proc" / "self", there):
        each.mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:  8 kB\n")
    (tmp_path / "proc" / "self" / "cgroup").write_text(f"9:cpuset:/x\n{line}\n")
    for name, text in files.items():
        (there / f"memory.{name}").write_text(f"{text}\n")
    total = "total_active_file 300\n" if "memory" in folder else ""
    (there / "memory.stat").write_text(f"active_file 100\ninactive_file 600\n{total}")
    assert free.available(torch.device("cpu")) == right
