"""Prefill: how a prompt is attended while it is read, whatever method decodes afterwards."""
