"""The Triton kernels on a GPU beside what their bytes need, and beside torch. Writes a file named
after the GPU.

    python kernels/bench/gpu.py              120,000 tokens, 4 prompts of 8 KV heads
    python kernels/bench/gpu.py --tokens 30000 --prompts 1
"""

from __future__ import annotations

import argparse
import re
import time
from functools import partial
from pathlib import Path

import torch
import triton
from gpu_baselines import indexing, searching
from gpu_decode import cached, decoding, gathering
from gpu_prefill import building, choosing, prefilling
from gpu_timing import GROUPS, copied


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Triton kernels against bandwidth and torch.")
    parser.add_argument("--tokens", type=int, default=120_000)
    parser.add_argument("--prompts", type=int, default=4)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("there is no CUDA device; kernels/bench/run.py measures the CPU's kernels")
    torch.manual_seed(0)
    name, peak = torch.cuda.get_device_name(), copied()
    told = (
        f"# Triton kernels on {name}\n\ntorch {torch.__version__}, triton {triton.__version__},"
        f" {time.strftime('%B %Y')}. A copy moves {peak / 1e9:.0f} GB/s, read and written. Medians;"
        " decode steps are timed in CUDA graphs.\n"
    )
    rows = given.prompts * GROUPS
    made = [
        partial(decoding, rows, given.tokens, peak),
        partial(gathering, given.tokens, peak),
        partial(cached, given.tokens, peak),
        partial(building, given.tokens),
        partial(prefilling, given.tokens),
        partial(choosing, given.tokens),
        partial(searching, given.tokens, peak),
        partial(indexing, given.tokens),
    ]
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    path = Path(__file__).parent / f"{slug}.md"
    print(told)
    parts = [told]
    with torch.no_grad():
        for call in made:
            parts.append(call().markdown())
            print(parts[-1], flush=True)
            path.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
