"""What every kernel test needs: the paths that run here, and memory that is never clean by luck."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest
import torch

from longspan_kernels.dispatch import build_info

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


ISAS = [isa for isa in build_info()["isas"] if isa != "amx"]
"""`amx` is avx512_bf16 but in prefill, whose tests run it."""


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> str:
    """Each instruction set that this machine runs, as a backend."""
    return str(request.param)


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.empty` comes full of NaN (or of -77), so that an unwritten output fails."""
    empty = torch.empty

    def poisoned(*args: Any, **kwargs: Any) -> Tensor:
        tensor = empty(*args, **kwargs)
        return tensor.fill_(float("nan") if tensor.is_floating_point() else -77)

    monkeypatch.setattr(torch, "empty", poisoned)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def hears_ctrl_c() -> Iterator[None]:
    """Ctrl-C is ignored in what a script starts in the background, as a test may be."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
