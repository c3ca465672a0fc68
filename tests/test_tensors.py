"""What all layers of the package share: waiting for devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan.tensors import wait_for_devices

if TYPE_CHECKING:
    import pytest


def test_gpus_that_nothing_was_given_to_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """To wait for one takes half a gigabyte of it, or fails where it is somebody else's."""
    waited: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    used = "_cuda_hasPrimaryContext"
    monkeypatch.setattr(torch._C, used, lambda index: index in (1, 2), raising=False)
    wait_for_devices()
    assert waited == [1, 2]
