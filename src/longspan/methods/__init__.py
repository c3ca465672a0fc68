"""Methods: how a decode step reads the cached context."""
