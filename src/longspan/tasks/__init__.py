"""Tasks: examples and scores."""
