"""The operation `wave_search`; see README.md for the maths."""

from longspan_kernels.wave_search.reference import wave_search

__all__ = ["wave_search"]
