"""What a run would take, before it costs anything:  python -m launch estimate experiment=glm_130b

    python -m launch estimate [overrides]             sizes, memory, time, cost, checkpoints
    python -m launch estimate --search [overrides]    the best tp x pp x micro-batch that fits the cluster's GPUs

Parameters, batches, FLOPs, and the MFU and HFU of a given step time are exact. Modelled numbers are marked as such.
"""

from launch.estimate.command import estimate

__all__ = ["estimate"]
