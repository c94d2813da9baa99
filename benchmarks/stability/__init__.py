"""The parts of `python -m benchmarks stability_study`."""
