"""Placement: where keys and values live."""
