"""The summary at the end of a run: scores and examples on held-out text."""
