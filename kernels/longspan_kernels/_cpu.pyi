"""
The native CPU kernels of longspan; called through longspan_kernels.<operation>.
"""

from collections.abc import Sequence
from typing import Annotated

import torch


def isas() -> list[str]:
    """Instruction sets that this machine runs, narrowest first."""

def compiler() -> str:
    """The compiler that built this extension."""

def merge(outs: Sequence[Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)]], lses: Sequence[Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)]], out: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu')], lse: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu')], threads: int, isa: str) -> None:
    """
    Merge P partial attentions (out [.., D], lse [..]) into `out` and `lse`.
    """
