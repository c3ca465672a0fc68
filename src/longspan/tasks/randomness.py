"""lm-eval draws from the process's global random generators; here they are lent and given back."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def global_random(seed: int | None = None) -> Iterator[None]:
    """Seed Python's and NumPy's global generators (None: leave them) and restore both on
    leaving.
    """
    import numpy as np

    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    if seed is not None:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
