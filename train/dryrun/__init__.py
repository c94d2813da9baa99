"""The dry run: every rank of a run built on one machine without memory or network, and checked against the others.

Places, process groups, grids, pipeline modules and schedules come from the code that a run executes (Megatron-core's
parallel_state, DeepSpeed's topology, PipelineModule and TrainSchedule, our engine and sampler), on meta tensors and
torch's fake process group; only the comparison is here.
"""
