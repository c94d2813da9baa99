"""The configuration of a run: its typed schema, its checks, and the numbers derived from it."""
