"""The position of a rank in the tp x pp x dp grid: arithmetic on the rank, no process group.

Tensor-parallel ranks are neighbours (they communicate most), then data-parallel ones, pipeline stages are farthest apart:
    rank = (pp_rank * dp + dp_rank) * tp + tp_rank
the order of both DeepSpeed's PipeModelDataParallelTopology and Megatron-core's "tp-cp-ep-dp-pp".
"""

from dataclasses import dataclass

from configs import pipeline
from configs.schema import ParallelConfig


@dataclass(frozen=True)
class Topology:
    """The grid, and one rank's place in it."""

    tp: int
    pp: int
    dp: int
    rank: int
    chunks: int = 1
    """Parts of the model on each stage."""

    @classmethod
    def from_config(cls, parallel: ParallelConfig, rank: int, world_size: int) -> "Topology":
        """Give `rank` its place; the data-parallel size is what tp and pp leave of the world."""
        model_parallel = parallel.tp * parallel.pp
        assert world_size % model_parallel == 0, "configs.validate admits no such world size"
        dp = world_size // model_parallel
        return cls(parallel.tp, parallel.pp, dp, rank, pipeline.num_chunks(parallel))

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return self.tp * self.pp * self.dp

    @property
    def stages(self) -> list[range]:
        """The ranks of each pipeline stage."""
        size = self.tp * self.dp
        return [range(size * stage, size * (stage + 1)) for stage in range(self.pp)]

    @property
    def tp_rank(self) -> int:
        """Index among the ranks that share each layer."""
        return self.rank % self.tp

    @property
    def dp_rank(self) -> int:
        """Index among the model replicas."""
        return self.rank // self.tp % self.dp

    @property
    def pp_rank(self) -> int:
        """Index of the pipeline stage."""
        return self.rank // (self.tp * self.dp)

    @property
    def is_first_stage(self) -> bool:
        """True where tokens enter."""
        return self.pp_rank == 0

    @property
    def is_last_stage(self) -> bool:
        """True where the loss is computed."""
        return self.pp_rank == self.pp - 1

    @property
    def reads_data(self) -> bool:
        """True on the stages that need batches: the first (tokens) and the last (targets); all with several chunks.

        Megatron-core's interleaved schedule sends hidden states alone, so every stage reads the fields of its rows itself.
        """
        return self.is_first_stage or self.is_last_stage or self.chunks > 1

    def __str__(self) -> str:
        """The position, for messages."""
        return f"rank {self.rank}: pp {self.pp_rank}, dp {self.dp_rank}, tp {self.tp_rank}"
