"""Facts about one rank, as plain data that can be compared with those of other ranks."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ParameterShape:
    """A parameter as a rank holds it."""

    shape: tuple[int, ...]
    axis: int | None
    """Cut over the tensor-parallel ranks; None: whole on each."""
    is_copy: bool
    """A tied copy that another stage owns."""


@dataclass(frozen=True)
class StepIndices:
    """A step's samples on one rank."""

    first_sample: int
    num_samples: int
    """Samples of the global batch."""
    micro_batches: list[list[int]]
    """Drawn indices."""


@dataclass(frozen=True)
class RankFacts:
    """One rank of the run."""

    rank: int
    tp_rank: int
    pp_rank: int
    dp_rank: int
    groups: dict[str, list[int]]
    """Members of each of its groups, by library and axis."""
    neighbours: tuple[int | None, int | None]
    """Ranks of the stage before and after."""
    chunks: list[range]
    """List entries that it holds, in the order in which a pass meets them."""
    parameters: dict[str, ParameterShape]
    tied: dict[str, list[int]]
    """Ranks that hold a copy of each tied module, as this rank knows them."""
    steps: list[StepIndices] = field(default_factory=list[StepIndices])
    """Samples of some steps, on ranks that read data."""

    def __str__(self) -> str:
        """Name the place as messages do."""
        return f"rank {self.rank} (pp {self.pp_rank}, dp {self.dp_rank}, tp {self.tp_rank})"
