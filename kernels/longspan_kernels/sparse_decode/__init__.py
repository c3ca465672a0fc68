"""The operation `sparse_decode`; see README.md for the maths."""

from longspan_kernels.sparse_decode.reference import sparse_decode

__all__ = ["sparse_decode"]
