"""The operation `merge`; see README.md for the maths."""

from longspan_kernels.merge.reference import merge

__all__ = ["merge"]
