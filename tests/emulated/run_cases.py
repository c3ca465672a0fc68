"""Runs all cases on an emulated GPU, in a process of their own: a line of JSON each."""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import sys
import time
import traceback

SECONDS = 400
"""After which it says what it waits for, and ends; it takes some thirty."""
os.environ["TRITON_INTERPRET"] = "1"  # Triton reads it when it is imported


def main(names: list[str]) -> None:
    """Those of these names, or all."""
    import pytest
    import torch
    from tests.emulated import streams

    faulthandler.dump_traceback_later(SECONDS, exit=True)
    torch.set_num_threads(1)
    start = time.process_time()
    held = streams.install()
    from tests.emulated.cases import CASES

    gc.freeze()  # each capture collects garbage, of which none is in what was imported
    print(f"installed in {time.process_time() - start:.1f} s", file=sys.stderr)
    for name in names or CASES:
        start, failed = time.process_time(), None
        try:
            CASES[name]()
        except (Exception, pytest.fail.Exception):
            failed = traceback.format_exc()
        gc.collect()
        print(json.dumps({"name": name, "failed": failed}), flush=True)
        print(f"{time.process_time() - start:6.2f} s  {name}", file=sys.stderr)
    faulthandler.cancel_dump_traceback_later()
    del held


if __name__ == "__main__":
    main(sys.argv[1:])
