"""The operation `segmented_kmeans`; see README.md for the maths."""

from longspan_kernels.segmented_kmeans.reference import segmented_kmeans

__all__ = ["segmented_kmeans"]
