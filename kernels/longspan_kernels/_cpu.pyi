"""
The native CPU kernels of longspan; called through longspan_kernels.<operation>.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy
from numpy.typing import NDArray

def isas() -> list[str]:
    """Instruction sets that this machine runs, narrowest first."""

def compiler() -> str:
    """The compiler that built this extension."""

def merge(
    outs: Sequence[
        Annotated[NDArray[numpy.float32], dict(order="C", device="cpu", writable=False)]
    ],
    lses: Sequence[
        Annotated[NDArray[numpy.float32], dict(order="C", device="cpu", writable=False)]
    ],
    out: Annotated[NDArray[numpy.float32], dict(order="C", device="cpu")],
    lse: Annotated[NDArray[numpy.float32], dict(order="C", device="cpu")],
    threads: int,
    isa: str,
) -> None:
    """
    Merge P partial attentions (out [.., D], lse [..]) into `out` and `lse`.
    """
