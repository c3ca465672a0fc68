"""Indexes over keys: which cached tokens a query should read."""
