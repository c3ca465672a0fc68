"""What cannot fit is refused before the prompt is read, in one line."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from longspan.methods.full import Full
from longspan.methods.retroinfer import RetroInfer
from longspan.models import room
from longspan.types import LayerGeometry

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
        assert room.needed(method, layers, 100) == right
    own = replace(LAYER, device=there)
    buffered = RetroInfer(placement="wave_buffer", cache_budget=0.5)
    assert room.needed(buffered, [own], 100) == {there: ROW * 150}


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
    room.check_room(method, [LAYER], [1000])
    with pytest.raises(ValueError, match=message) as found:
        room.check_room(method, [LAYER], [2**21, 2**21])
    assert "a smaller ctx or batch" in str(found.value)
    assert "\n" not in str(found.value)


def test_host_memory_is_known_here() -> None:
    free = room.available(torch.device("cpu"))
    assert free is not None
    assert 0 < free < 2**50
    assert room.available(torch.device("meta")) is None
