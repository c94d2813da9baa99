"""python -m train.profile RUN: what the profiler's traces of a run say, in a terminal. Reads JSON; PyTorch is not needed."""
