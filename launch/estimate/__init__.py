"""What a configuration means before it costs anything:  python -m launch estimate experiment=glm_130b

    python -m launch estimate [overrides]             sizes, memory, time, cost, checkpoints
    python -m launch estimate --search [overrides]    the best tp x pp x micro-batch that fits the cluster's GPUs

What is arithmetic is exact: parameters, batches, FLOPs, and MFU and HFU of a known time. What is a model says so.
"""

from launch.estimate.command import estimate

__all__ = ["estimate"]
