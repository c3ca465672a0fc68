"""Models: decoders whose attention is ours."""
