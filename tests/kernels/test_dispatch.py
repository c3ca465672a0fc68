"""Which path serves a call, what the build says of itself, and that long calls can be stopped."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from longspan_kernels import dispatch, on_gpu
from longspan_kernels.dense_decode import dense_decode

ROOT = Path(__file__).parents[2]


def test_the_extension_is_built_here() -> None:
    info = dispatch.build_info()
    assert info["native"], "the native extension is not built: run `make setup`"
    assert info["isa"] == info["isas"][-1]
    assert info["isas"][0] == "portable"


def test_committed_stub_is_the_built_one() -> None:
    assert dispatch.native.__file__ is not None
    built = Path(dispatch.native.__file__).with_name("_cpu.pyi")
    committed = ROOT / "kernels" / "longspan_kernels" / "_cpu.pyi"
    assert committed.read_text() == built.read_text(), f"copy {built} to {committed}"


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not (shutil.which("cmake") and shutil.which("c++")),
    reason="needs cmake and a compiler for x86",
)
def test_a_compiler_that_is_too_old_is_named(tmp_path: Path) -> None:
    old = tmp_path / "old-c++"
    old.write_text('#!/bin/sh\ncase "$*" in *-mamx-bf16*) exit 1;; esac\nexec c++ "$@"\n')
    old.chmod(0o755)
    command = ["cmake", "-S", ROOT / "kernels", "-B", tmp_path, f"-DCMAKE_CXX_COMPILER={old}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    said = " ".join(done.stderr.split())
    assert f"{old} (" in said
    assert "does not know all instruction sets of the kernels" in said
    assert "right would be g++ 11, clang++ 18 or later" in said


@pytest.mark.parametrize(
    ("width", "dtype", "held", "refused"),
    [
        (256, torch.float32, 166_912, True),
        (256, torch.float32, 232_448, False),
        (256, torch.bfloat16, 101_376, False),
        (128, torch.float32, 101_376, False),
    ],
)
def test_tiles_that_a_gpu_cannot_hold_are_refused(
    monkeypatch: pytest.MonkeyPatch, width: int, dtype: torch.dtype, held: int, refused: bool
) -> None:
    """An A100, an H100 and a consumer's GPU, by the shared memory that a block has there."""
    monkeypatch.setattr(on_gpu, "shared_bytes", lambda index: held)
    rows: Any = SimpleNamespace(
        shape=(2, 5, width), dtype=dtype, is_cuda=True, device=torch.device("cuda", 0)
    )
    said = on_gpu._tile_obstacle([rows])
    assert (said is not None) == refused
    if said is not None:
        assert isinstance(said, dispatch.Unsupported)
        assert f"head size is {width} in torch.float32" in said


def test_an_instruction_set_that_is_not_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="isa is 'mmx'"):
        dispatch.native.merge([], [], torch.zeros(1), torch.zeros(1), 1, "mmx")


def test_without_the_extension_the_reference_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "native", None)
    dispatch.warn_slow.cache_clear()
    with pytest.warns(UserWarning, match="not built"):
        assert dispatch.path("auto", None) is None
    assert dispatch.build_info()["isa"] == "reference"
    with pytest.raises(ValueError, match="not built"):
        dispatch.path("native", None)


def test_the_reference_does_not_stand_in_silently() -> None:
    q_HD, k_GTD = torch.randn(2, 12), torch.randn(1, 5, 12)
    dispatch.warn_slow.cache_clear()
    with pytest.warns(UserWarning, match="head size 12 is not a multiple of 8"):
        dense_decode(q_HD, k_GTD, k_GTD, scale=1.0)
    dense_decode(q_HD, k_GTD, k_GTD, scale=1.0)  # said once: a second warning would be an error
    with pytest.raises(ValueError, match="head size 12 is not a multiple of 8"):
        dense_decode(q_HD, k_GTD, k_GTD, scale=1.0, backend="native")


def test_gradients_go_to_the_reference() -> None:
    q_HD = torch.randn(2, 8, requires_grad=True)
    k_GTD = torch.randn(1, 5, 8)
    assert dense_decode(q_HD, k_GTD, k_GTD, scale=1.0).out.requires_grad
    with torch.no_grad():
        assert not dense_decode(q_HD, k_GTD, k_GTD, scale=1.0, backend="native").out.requires_grad


HEARS = """
import signal  # ignored in what a script starts in the background, as this test may be
signal.signal(signal.SIGINT, signal.default_int_handler)
"""
LONG_CALL = """
import torch
from longspan_kernels.segmented_kmeans import segmented_kmeans
keys = torch.randn(1, 40000, 128)
shape = {{"clusters": 20000, "segments": {segments}, "iterations": 1000}}
print("ready", flush=True)
segmented_kmeans(keys, keys, **shape, threads={threads})
"""


LONG_INSERT = """
import torch
from longspan_kernels.attention_graph import build
graph = build(torch.randn(2000, 128))
keys = torch.randn(1000000, 128)
print("ready", flush=True)
graph.insert(keys)
"""
LONG_CALLS = [LONG_CALL.format(segments=s, threads=t) for s, t in ((1, 1), (1, 2), (8, 2))]


@pytest.mark.parametrize("code", [*LONG_CALLS, LONG_INSERT])
def test_ctrl_c_stops_a_long_call(code: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", HEARS + code],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )  # fmt: skip
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.5)
        assert child.poll() is None
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=15)
    finally:
        child.kill()  # what did not hear would go on for minutes
    assert "KeyboardInterrupt" in errors
