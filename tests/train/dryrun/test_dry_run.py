"""Ranks built by the real code, with and without a fault planted below the dry run."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.helpers.distributed import run_distributed
from tests.helpers.places import ROOT
from tests.helpers.tiny import EVEN_SIZES

SMALL = (
    *EVEN_SIZES,
    "model.num_layers=6",
    "model.vocab_size=128",
    "parallel.tp=2",
    "parallel.pp=4",
    "cluster.gpus_per_node=16",
    "optim.micro_batch_size=1",
    "optim.global_batch_size=8",
    "optim.total_samples=100",
    "optim.batch_ramp.start=4",
    "optim.batch_ramp.increment=2",
)
PUBLISHED = ("experiment=glm_130b",)
# The published run with two replicas instead of 24.
TWO_REPLICAS = (*PUBLISHED, "cluster.nodes=8")


def problems_of(
    rank: int, world_size: int, overrides: tuple[str, ...], fault: str
) -> dict[str, list[str]]:
    """Build every rank in this process and check; returns the problems of each check that has any."""
    from configs import derive
    from configs.load import load_config
    from train.dryrun.build import build_ranks
    from train.dryrun.checks import CHECKS

    if fault:
        FAULTS[fault]()
    config = load_config(list(overrides))
    facts = build_ranks(config, range(derive.planned_world_size(config)))
    found = {name: check(config, facts) for name, check in CHECKS.items()}
    return {name: problems for name, problems in found.items() if problems}


def sample_problems_of(rank: int, world_size: int, fault: str) -> list[str]:
    """Build the ranks of the published run that read data, one of each tensor-parallel group, and check their samples."""
    from configs.load import load_config
    from train.dryrun.build import build_ranks
    from train.dryrun.checks import sample_problems

    if fault:
        FAULTS[fault]()
    tp, last, dp = 4, 7, 24
    readers = [(stage * dp + replica) * tp for stage in (0, last) for replica in range(dp)]
    config = load_config(list(PUBLISHED))
    return sample_problems(config, build_ranks(config, readers))


def _unbalance() -> None:
    """Another balancing: the first stage gives a layer to the second."""
    from configs import cutting

    entries = cutting.stage_entries

    def shifted(
        num_layers: int, pp: int, num_chunks: int = 1, head: float = 1.0
    ) -> list[list[range]]:
        (first,), (second,), *others = entries(num_layers, pp, num_chunks, head)
        border = first.stop - 1
        return [[range(first.start, border)], [range(border, second.stop)], *others]

    cutting.stage_entries = shifted


def _tie_other_ranks() -> None:
    """A library that ties each first stage to the last stage of the other replica."""
    from deepspeed.runtime.pipe.topology import PipelineParallelGrid

    stage_to_global = PipelineParallelGrid.stage_to_global

    def crossed(self: Any, stage_id: int, **place: int) -> int:
        if "data" in place and stage_id == 3:
            place["data"] = 1 - place["data"]
        return stage_to_global(self, stage_id, **place)

    PipelineParallelGrid.stage_to_global = crossed


def _draw_twice() -> None:
    """A sampler that gives every replica the first micro-batch of replica 0."""
    from train import batches

    indices = batches.micro_batch_indices

    def same(first: int, number: int, dp: int, dp_rank: int, size: int) -> range:
        return indices(first, number, dp, 0 if number == 0 else dp_rank, size)

    batches.micro_batch_indices = same


def _read_as_the_second_replica() -> None:
    """A reader that takes all replicas after the second for the second: what a run of two cannot show."""
    from train import batches

    indices = batches.micro_batch_indices

    def clamped(first: int, number: int, dp: int, dp_rank: int, size: int) -> range:
        return indices(first, number, dp, min(dp_rank, 1), size)

    batches.micro_batch_indices = clamped


def _cut_unlike() -> None:
    """A rank that cuts its stages elsewhere than the others."""
    from train.engine.stages import StagedModule

    cut = StagedModule._partition_layers

    def other(self: Any, method: str = "uniform") -> None:
        if self.global_rank == 5:
            method = "0,1,4,6,9"
        cut(self, method)

    StagedModule._partition_layers = other


def _forget_a_bias() -> None:
    """One tensor-parallel rank without the bias of a matrix."""
    from glm.tensor_parallel import RowLinear, tp_rank

    build = RowLinear.__init__

    def without(self: Any, *arguments: Any) -> None:
        build(self, *arguments)
        if tp_rank() == 1:
            self.bias = None

    RowLinear.__init__ = without


FAULTS: dict[str, Callable[[], None]] = {
    "wrong stage balance": _unbalance,
    "mismatched tied ranks": _tie_other_ranks,
    "a sample drawn twice": _draw_twice,
    "replicas after the second read as the second": _read_as_the_second_replica,
    "a rank cuts elsewhere": _cut_unlike,
    "a missing parameter": _forget_a_bias,
}


def found(overrides: tuple[str, ...], fault: str = "") -> dict[str, list[str]]:
    return run_distributed(problems_of, 1, overrides, fault)[0]


def drawn(fault: str = "") -> list[str]:
    return run_distributed(sample_problems_of, 1, fault)[0]


def test_the_ranks_of_a_small_run_fit_together() -> None:
    assert found(SMALL) == {}


def test_two_replicas_of_the_published_run_fit_together() -> None:
    assert found(TWO_REPLICAS) == {}


def test_all_replicas_of_the_published_run_draw_each_sample_once() -> None:
    assert drawn() == []


@pytest.mark.slow
def test_all_768_ranks_of_the_published_run_fit_together() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "launch", "dryrun", *PUBLISHED],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *checks, ending = done.stdout.splitlines()
    assert len(checks) == 7 and all(line.endswith(" good") for line in checks)
    assert ending.startswith("768 ranks (tp 4 x pp 8 x dp 24) built and compared in ")
    assert ending.endswith(" s: they fit together")


def test_skipped_samples_are_not_drawn_and_not_missed() -> None:
    assert found((*SMALL, "data.skip_samples=[[2,7],[20,30]]")) == {}


def test_layers_that_do_not_divide_are_no_fault_of_the_ranks() -> None:
    assert found((*SMALL, "model.num_layers=7")) == {}


@pytest.mark.parametrize(
    ("fault", "check", "words"),
    [
        (
            "wrong stage balance",
            "stages",
            "the parts hold [0, 3, 2, 1] layers instead of [1, 2, 2, 1]",
        ),
        ("mismatched tied ranks", "tied weights", "its tied embed is shared with rank 0"),
        (
            "a sample drawn twice",
            "samples",
            "the step after 0 samples draws sample 0 twice (dp 0, dp 1)",
        ),
        (
            "a rank cuts elsewhere",
            "stages",
            "it holds the entries 1 to 3, other ranks of its stage 2 to 3",
        ),
        (
            "a missing parameter",
            "parameters",
            "different parameters than its tensor-parallel group",
        ),
    ],
)
def test_a_planted_fault_is_found(fault: str, check: str, words: str) -> None:
    problems = found(SMALL, fault)
    assert check in problems
    assert any(words in problem for problem in problems[check]), problems[check]


def test_a_replica_that_reads_another_ones_samples_is_found_among_24() -> None:
    problems = drawn("replicas after the second read as the second")
    twice = "draws sample 1 twice (dp 1, dp 2, dp 3, "
    assert any(twice in problem for problem in problems), problems
    assert any("never draws sample 2; " in problem for problem in problems), problems


UNEVEN = (
    "model.num_layers (7) + embedding + head = 9 does not divide over parallel.pp (4): the stages hold [3, 2, 2, 2]. "
    "Training accepts this; about 25% of each step is idle, since all wait for the largest. "
    "Try model.num_layers=6 or model.num_layers=10."
)


@pytest.mark.parametrize(
    ("more", "code", "checked", "ending"),
    [
        (
            (),
            2,
            ["balance       1 problems", f"  {UNEVEN} Or add --allow-uneven if that is intended."],
            ["1 problems"],
        ),
        (("--allow-uneven",), 0, [], ["they fit together", f"Remark: {UNEVEN}"]),
    ],
    ids=["refused", "allowed"],
)
def test_the_command_refuses_uneven_stages_unless_they_are_meant(
    more: tuple[str, ...], code: int, checked: list[str], ending: list[str]
) -> None:
    words = [*SMALL, "model.num_layers=7", *more]
    done = subprocess.run(
        [sys.executable, "-m", "launch", "dryrun", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.endswith(" good")] == lines[:7]
    assert lines[7 : 7 + len(checked)] == checked
    told, *remarks = lines[7 + len(checked) :]
    assert told.startswith("16 ranks (tp 2 x pp 4 x dp 2) built and compared in ")
    assert told.endswith(ending[0])
    assert remarks == ending[1:]
