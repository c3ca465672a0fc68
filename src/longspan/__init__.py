"""The laboratory for long-context sparse attention."""

__version__ = "0.1.0"
