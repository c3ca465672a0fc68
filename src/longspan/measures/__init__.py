"""Measures: quality, recall and latency, in passes that never contaminate one another."""
