"""The operation `dense_prefill`; see README.md for the maths."""

from longspan_kernels.dense_prefill.reference import dense_prefill

__all__ = ["dense_prefill"]
