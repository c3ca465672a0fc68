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

def decode(q: Annotated[torch.Tensor, dict(device='cpu', writable=False)], keys: Annotated[torch.Tensor, dict(device='cpu', writable=False)], values: Annotated[torch.Tensor, dict(device='cpu', writable=False)], key_scale: Annotated[torch.Tensor, dict(dtype='float32', shape=(None, None), device='cpu', writable=False)] | None, value_scale: Annotated[torch.Tensor, dict(dtype='float32', shape=(None, None), device='cpu', writable=False)] | None, bias: Annotated[torch.Tensor, dict(dtype='float32', shape=(None, None), device='cpu', writable=False)] | None, starts: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)] | None, sizes: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)] | None, counts: Annotated[torch.Tensor, dict(dtype='int32', order='C', device='cpu', writable=False)] | None, first: int, scale: float, softcap: float, out: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu')], lse: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu')], threads: int, isa: str) -> None:
    """
    Attend one query position to all entries, or to those that runs name; softcap 0 is none.
    """

def merge(outs: Sequence[Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)]], lses: Sequence[Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu', writable=False)]], out: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu')], lse: Annotated[torch.Tensor, dict(dtype='float32', order='C', device='cpu')], threads: int, isa: str) -> None:
    """
    Merge P partial attentions (out [.., D], lse [..]) into `out` and `lse`.
    """
