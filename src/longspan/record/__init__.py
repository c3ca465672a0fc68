"""Record: what a run leaves behind."""
