"""Facts about one rank, as plain data that can be compared with those of other ranks."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ParameterShape:
    """A parameter as a rank holds it."""

    shape: tuple[int, ...]
    axis: int | None
    """Axis that is sharded over the tensor-parallel ranks; None: replicated."""
    is_copy: bool
    """True for a tied copy that another stage owns."""


@dataclass(frozen=True)
class StepIndices:
    """A step's samples on one rank."""

    first_sample: int
    num_samples: int
    """Samples of the global batch."""
    micro_batches: list[list[int]]
    """Drawn indices of each micro-batch."""


@dataclass(frozen=True)
class RankFacts:
    """The facts about one rank."""

    rank: int
    tp_rank: int
    pp_rank: int
    dp_rank: int
    groups: dict[str, list[int]]
    """Members of each of its groups, by library and axis."""
    neighbours: tuple[int | None, int | None]
    """Ranks of the stage before and after."""
    chunks: list[range]
    """List entries that it holds, in the order of the forward pass."""
    parameters: dict[str, ParameterShape]
    tied: dict[str, list[int]]
    """Ranks that hold a copy of each tied module, according to this rank."""
    steps: list[StepIndices] = field(default_factory=list[StepIndices])
    """Samples of the checked steps, on ranks that read data."""

    def __str__(self) -> str:
        """Name the rank and its coordinates, for messages."""
        return f"rank {self.rank} (pp {self.pp_rank}, dp {self.dp_rank}, tp {self.tp_rank})"
