"""The data: index in, sample out, NumPy only."""
