"""The operation `dense_decode`; see README.md for the maths."""

from longspan_kernels.dense_decode.reference import dense_decode

__all__ = ["dense_decode"]
