"""The end of a run, for people: what it has learnt, measured and shown on held-out text."""
