"""What torch's C++ asks of any CUDA device, for a build of torch that knows of none.

Every operation makes the device of its tensors the current one, through a guard that only builds
for CUDA bring along. torch's headers hold one for tests, which is compiled here.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

SOURCE = """
#include <c10/core/impl/FakeGuardImpl.h>
namespace c10::impl {
C10_REGISTER_GUARD_IMPL(CUDA, FakeGuardImpl<DeviceType::CUDA>);
}
"""
TORCH = Path(torch.__file__).parent


def why_not() -> str | None:
    """Why no GPU can be emulated here; None if one can."""
    if torch.version.cuda is not None or torch.version.hip is not None:
        return "torch is built for GPUs, where tests/models/test_on_gpu.py and its like run"
    if find_spec("triton") is None:
        return "Triton is not installed, whose interpreter runs the kernels"
    if compiler() is None:
        return "there is no C++ compiler (c++ or g++) for the guard of the emulated device"
    return None


def compiler() -> str | None:
    """Where one is."""
    return shutil.which("c++") or shutil.which("g++")


def load() -> None:
    """Compile the guard and register it, for the life of the process."""
    found = compiler()
    assert found is not None
    with TemporaryDirectory() as folder:
        source, library = Path(folder, "guard.cpp"), Path(folder, "guard.so")
        source.write_text(SOURCE)
        abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
        headers = f"-I{TORCH / 'include'}"
        lies = f"-L{TORCH / 'lib'}", "-lc10"
        asked = [found, "-std=c++20", "-O0", "-shared", "-fPIC", abi, headers]
        subprocess.run([*asked, str(source), "-o", str(library), *lies], check=True)
        ctypes.CDLL(str(library))
