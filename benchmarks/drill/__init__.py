"""The log of GLM-130B's training run as a drill on a small model; `python -m benchmarks log_drill` runs it."""
