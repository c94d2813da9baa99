"""The dry run: build every rank of a run on one machine, without its memory or network, and check them against each other.

Rank coordinates, process groups, pipeline modules and schedules come from the code that a run executes (Megatron-core's
parallel_state, DeepSpeed's topology, PipelineModule and TrainSchedule, our engine and sampler), on meta tensors and
torch's fake process group; only the comparison is here.
"""
