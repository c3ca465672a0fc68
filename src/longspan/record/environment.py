"""Where a run ran: hardware, versions, threads. No names of people or machines, no paths, no
environment variables.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "longspan", "torch", "numpy", "transformers", "tokenizers", "triton", "faiss-cpu", "faiss-gpu",
    "flash-attn", "lm-eval", "hydra-core", "pydantic",
)  # fmt: skip


def environment() -> dict[str, Any]:
    """Facts for environment.json, JSON types only."""
    return {
        "hardware": _hardware(),
        "gpus": _gpus(),
        "threads": _threads(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "source": _source(),
        "kernels": _kernels(),
    }


def _hardware() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    known = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "asimd", "bf16", "sve")
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    return {
        "cpu": facts.get("model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "simd": [flag for flag in known if flag in flags],
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def _gpus() -> list[dict[str, Any]]:
    import torch

    if not torch.cuda.is_available():
        return []
    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in found]


def _threads() -> dict[str, int]:
    import torch

    return {"torch": torch.get_num_threads(), "interop": torch.get_num_interop_threads()}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _source() -> dict[str, Any]:
    """A digest of the Python files that ran and, in a checkout, their commit."""
    here = Path(__file__).resolve().parents[3]
    checkout = (here / ".git").exists()
    commit = _git(here, "rev-parse", "HEAD") if checkout else None
    changed = _git(here, "status", "--porcelain", "--untracked-files=no", "--", "src", "kernels")
    return {"digest": source_digest(), "commit": commit, "changed": bool(changed) and checkout}


def source_digest() -> str:
    """Ten digits of the SHA-256 of every Python file of longspan and its kernels."""
    import longspan
    import longspan_kernels

    digest = hashlib.sha256()
    for package in (longspan, longspan_kernels):
        for root in package.__path__:
            for path in sorted(Path(root).rglob("*.py")):
                digest.update(path.relative_to(root).as_posix().encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:10]


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _kernels() -> dict[str, Any]:
    """Whether the native kernels serve, by which instructions and compiler."""
    from longspan_kernels.dispatch import build_info

    return build_info()
