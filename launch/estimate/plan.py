"""One configuration on its GPUs: memory, step time, run time, cost. The table and the search both read this."""

import math
from dataclasses import dataclass

from configs import derive, pipeline
from configs.hardware import Gpu, gpu_of
from configs.schema import Config, DeviceKind
from launch.estimate.memory import (
    StageMemory,
    checkpoint_bytes,
    memory_of_stages,
    saved_bytes_per_parameter,
)
from launch.estimate.network import Layout, Transformer
from launch.estimate.reliability import best_interval, goodput
from launch.estimate.speed import StepTime, flops_share, step_time

GIB = 2**30
# The CUDA context and NCCL's buffers, in GiB, and the share of memory that the caching allocator loses to fragmentation.
RESERVED_GIB = 1.5
FRAGMENTED = 0.05
# A checkpoint blocks training while it is copied to pinned host memory (PCIe 4 x16 reaches 20 to 25).
HOST_COPY_GB_PER_SECOND = 10.0


@dataclass(frozen=True)
class ClusterPlan:
    """Memory, time and failures of a configuration on its cluster."""

    config: Config
    stages: list[StageMemory]
    gpu: Gpu | None
    step: StepTime | None
    """None without a GPU to model."""

    @classmethod
    def of(cls, config: Config) -> "ClusterPlan":
        """Estimate a configuration on the cluster that it names."""
        gpu = gpu_of(config.cluster)
        stages = memory_of_stages(config, is_on_gpu(config))
        step = None
        if gpu is not None:
            step = step_time(
                Transformer.of(config), Layout.of(config), gpu, config.optim.global_batch_size
            )
        return cls(config, stages, gpu, step)

    @property
    def gpus(self) -> int:
        """Number of ranks."""
        return derive.planned_world_size(self.config)

    @property
    def fullest(self) -> StageMemory:
        """The stage that needs most memory."""
        return max(self.stages, key=lambda stage: stage.peak)

    @property
    def missing_gib(self) -> float:
        """Memory that the fullest stage lacks, in GiB; 0 if it fits, or if the GPU is not known."""
        if self.gpu is None:
            return 0.0
        return max(self.fullest.peak / GIB - usable_gib(self.gpu), 0.0)

    @property
    def seconds_per_step(self) -> float | None:
        """Seconds of a step of the full batch: measured if given, otherwise modelled."""
        measured = self.config.cluster.measured_seconds_per_step
        if measured is not None:
            return measured
        return None if self.step is None else self.step.total

    @property
    def mfu(self) -> float | None:
        """Model FLOPs of the full batch per second, as a share of the peak."""
        seconds = self.seconds_per_step
        if seconds is None or self.gpu is None:
            return None
        rate = self.config.optim.global_batch_size / seconds
        return flops_share(Transformer.of(self.config), rate, self.gpus, self.gpu)

    @property
    def run_seconds(self) -> float | None:
        """Seconds of all steps, including the smaller ones of the batch ramp, without failures."""
        full = self.seconds_per_step
        if full is None:
            return None
        levels = derive.ramp_levels(self.config.optim)
        return sum(level.num_steps * full * self._share(level.batch_size) for level in levels)

    @property
    def mtbf_seconds(self) -> float | None:
        """Mean time between failures of the whole cluster."""
        return None if self.gpu is None else self.gpu.mtbf_hours * 3600 / self.gpus

    @property
    def save_block_seconds(self) -> float:
        """How long a save blocks training, in seconds: the copy of a rank's share to the host."""
        return self.staging_bytes_per_rank / (HOST_COPY_GB_PER_SECOND * 1e9)

    @property
    def save_write_seconds(self) -> float:
        """How long the copy is written in the background, in seconds."""
        cluster = self.config.cluster
        speed = cluster.storage_gb_per_second or min(cluster.nodes, 50)
        return checkpoint_bytes(self.config) / (speed * 1e9)

    @property
    def staging_bytes_per_rank(self) -> int:
        """Host memory of one rank's share of a checkpoint."""
        config = self.config
        dp = derive.data_parallel_size(config, self.gpus)
        held = max(pipeline.stage_parameters(config))
        return held * saved_bytes_per_parameter(config) // dp

    @property
    def best_interval_seconds(self) -> float | None:
        """The best interval between saves, in seconds: at least the time to write one, and at least one step."""
        if self.mtbf_seconds is None or self.seconds_per_step is None:
            return None
        best = best_interval(self.save_block_seconds, self.mtbf_seconds)
        return max(best, self.save_write_seconds, self.seconds_per_step)

    def goodput(self, interval_seconds: float) -> float | None:
        """Share of the wall time that is progress, saving at this interval."""
        if self.mtbf_seconds is None:
            return None
        restart = self.config.cluster.restart_minutes * 60
        return goodput(interval_seconds, self.save_block_seconds, restart, self.mtbf_seconds)

    def _share(self, batch_size: int) -> float:
        """Time of a step of `batch_size`, relative to a step of the full batch."""
        optim, parallel = self.config.optim, self.config.parallel
        if self.step is not None and self.gpu is not None:
            network, layout = Transformer.of(self.config), Layout.of(self.config)
            return step_time(network, layout, self.gpu, batch_size).total / self.step.total
        dp = derive.data_parallel_size(self.config, self.gpus)
        chunks = pipeline.num_chunks(parallel)
        slots, full = (
            pipeline.slots(parallel.pp, derive.grad_accum(optim, dp, size), chunks)
            for size in (batch_size, optim.global_batch_size)
        )
        return slots / full


def usable_gib(gpu: Gpu) -> float:
    """Memory of a GPU that tensors can use, in GiB."""
    return max(gpu.memory_gib - RESERVED_GIB, 0.0) * (1 - FRAGMENTED)


def needed_gib(peak_bytes: int) -> int:
    """Smallest memory of a GPU, in whole GiB, on which tensors can use this many bytes."""
    return math.ceil(peak_bytes / GIB / (1 - FRAGMENTED) + RESERVED_GIB)


def is_on_gpu(config: Config) -> bool:
    """True if the configuration runs on GPUs."""
    return config.cluster.gpu is not None or config.device is DeviceKind.cuda
