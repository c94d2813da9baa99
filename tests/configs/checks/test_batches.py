"""The layout and every batch size of the ramp, against the number of processes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.checks.batches import (
    batch_problems,
    layout_problems,
    nearest_divisor,
    uneven_stages,
)
from configs.errors import ConfigError
from configs.load import load_config
from configs.schema import Config


def problem_of(*words: str, world: int | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(list(words), world)
    (problem,) = caught.value.problems
    return problem


def test_the_published_run_needs_whole_replicas() -> None:
    assert problem_of("experiment=glm_130b", world=1) == (
        "parallel.tp (4) x parallel.pp (8) = 32 must divide the number of processes (1). "
        "Try python -m train.torchrun --nproc-per-node 32 -m train ..."
    )
    load_config(["experiment=glm_130b"], 768)
    load_config(["experiment=glm_130b"], 32)


@pytest.mark.parametrize(
    ("words", "world", "tried"),
    [
        ("parallel.tp=3", 2, "2"),
        ("parallel.tp=3", 4, "4"),
        ("parallel.tp=3 parallel.pp=2", 4, "2"),
        ("parallel.tp=3", 3, "1"),
        ("parallel.tp=8", None, "4"),
        ("parallel.tp=8 cluster.gpus_per_node=2", None, "2"),
        ("parallel.tp=3 parallel.pp=2", 1, "4"),  # no degree fits such ranks
    ],
)
def test_the_proposed_degree_fits_heads_and_ranks_and_is_named_once(
    words: str, world: int | None, tried: str
) -> None:
    assert problem_of(*words.split(), world=world).endswith(f". Try parallel.tp={tried}.")


def test_a_planned_cluster_must_hold_whole_replicas() -> None:
    assert problem_of("experiment=glm_130b", "cluster.nodes=95") == (
        "parallel.tp (4) x parallel.pp (8) = 32 must divide cluster.nodes (95) x cluster.gpus_per_node (8) = 760. "
        "Try cluster.nodes=96."
    )
    # The real number of processes counts, not the plan.
    load_config(["experiment=glm_130b", "cluster.nodes=95"], 768)


def test_a_pipeline_has_no_more_stages_than_layers() -> None:
    assert problem_of("parallel.pp=5", world=5) == (
        "parallel.pp (5) must not exceed model.num_layers (4). Try parallel.pp=4."
    )


def test_every_batch_size_of_the_ramp_is_checked_and_working_sizes_are_named() -> None:
    # 192, 216, 240 ... 4224 are multiples of 24 and of nothing larger.
    assert problem_of("experiment=glm_130b", world=32 * 48) == (
        "A batch size of optim.batch_ramp (216) must be a multiple of optim.micro_batch_size (1) x data-parallel "
        "size (48) = 48. Data-parallel sizes that work for the whole ramp: 3, 4, 6, 8, 12, 24."
    )
    for dp in (3, 4, 6, 8, 12, 24):
        load_config(["experiment=glm_130b"], 32 * dp)


def test_a_run_that_ends_within_its_ramp_is_not_asked_about_later_sizes() -> None:
    ramp = [
        "optim.batch_ramp.start=8",
        "optim.batch_ramp.increment=4",
        "optim.batch_ramp.samples=2000",
    ]
    whole = ["optim.global_batch_size=16", "optim.micro_batch_size=8"]
    assert "optim.batch_ramp (12) must be a multiple" in problem_of(*ramp, *whole)
    load_config([*ramp, *whole, "optim.total_samples=800"])


def test_a_batch_that_does_not_divide_is_told_sizes_that_do() -> None:
    problem = problem_of("optim.global_batch_size=24", world=4)
    assert problem == (
        "optim.global_batch_size (24) must be a multiple of optim.micro_batch_size (4) x data-parallel size (4) "
        "= 16. Data-parallel sizes that work: 1, 2, 3, 6. Or try optim.micro_batch_size=3. Or try optim.global_batch_size=32."
    )
    load_config(["optim.global_batch_size=32"], 4)
    for dp in (1, 2, 3, 6):
        load_config(["optim.global_batch_size=24"], dp)


def test_a_micro_batch_that_fits_no_size_is_told_one_that_does() -> None:
    assert problem_of("optim.global_batch_size=18").endswith(
        "No data-parallel size works with it. Try optim.micro_batch_size=3."
    )
    load_config(["optim.global_batch_size=18", "optim.micro_batch_size=3"])


def test_a_ramp_must_start_below_the_full_batch_and_reach_it() -> None:
    assert problem_of("optim.batch_ramp.start=32") == (
        "optim.batch_ramp.start (32) must not exceed optim.global_batch_size (16). Try optim.batch_ramp.start=2."
    )
    assert problem_of("optim.batch_ramp.start=4", "optim.batch_ramp.increment=8") == (
        "optim.batch_ramp.increment (8) must divide optim.global_batch_size (16) - optim.batch_ramp.start (4) = 12. "
        "Try optim.batch_ramp.increment=6."
    )


@given(world=st.integers(1, 40), tp=st.sampled_from([1, 2, 4]), pp=st.integers(1, 4))
def test_the_number_of_processes_that_a_message_names_works(world: int, tp: int, pp: int) -> None:
    config = Config()
    config.parallel.tp, config.parallel.pp = tp, pp
    found = layout_problems(config, world)
    assert bool(found) == (world % (tp * pp) != 0)
    if found:
        advice = re.search(r"--nproc-per-node (\d+)", found[0])
        assert advice
        assert layout_problems(config, int(advice[1])) == []


def test_the_nearest_divisor_is_not_larger() -> None:
    assert [nearest_divisor(96, near) for near in (0, 1, 5, 7, 96, 200)] == [1, 1, 4, 6, 96, 96]


def test_a_run_is_asked_about_the_batches_that_it_has_before_it() -> None:
    # 88 nodes of 96: 22 replicas divide 4224, and none of the ramp before it.
    published = load_config(["experiment=glm_130b"])
    full = 5_493_164
    assert batch_problems(published, 704, full) == []
    assert load_config(["experiment=glm_130b"], 704, position=lambda _: full) == published
    (problem,) = batch_problems(published, 704, full - 40_000)
    assert problem == (
        "A batch size of optim.batch_ramp (4,176) still to come after 5,453,164 samples must be a multiple of "
        "optim.micro_batch_size (1) x data-parallel size (22) = 22. Data-parallel sizes that work for the rest of the "
        "ramp: 3, 4, 6, 8, 12, 24."
    )


INTERLEAVED = ("parallel.pp=2", "parallel.schedule=interleaved")


@pytest.mark.parametrize(
    "words, problem, better",
    [
        (
            ("parallel.pp=2", "parallel.chunks=2"),
            "parallel.chunks (2) needs parallel.schedule=interleaved: with parallel.schedule (1f1b) a stage is one part. "
            "Try parallel.schedule=interleaved, or parallel.chunks=null.",
            ("parallel.pp=2", "parallel.chunks=2", "parallel.schedule=interleaved"),
        ),
        (
            ("parallel.schedule=interleaved",),
            "parallel.schedule (interleaved) needs several stages, and parallel.pp is 1. "
            "Try parallel.pp=2, or parallel.schedule=1f1b.",
            ("parallel.schedule=1f1b",),
        ),
        (
            (*INTERLEAVED, "parallel.chunks=1"),
            "parallel.chunks (1) must be at least 2. Try parallel.chunks=2.",
            (*INTERLEAVED, "parallel.chunks=2"),
        ),
        (
            (*INTERLEAVED, "parallel.chunks=4"),
            "parallel.pp (2) x parallel.chunks (4) = 8 parts must not exceed model.num_layers (4) + embedding + head = 6. "
            "Try parallel.chunks=3.",
            (*INTERLEAVED, "parallel.chunks=3"),
        ),
        (
            ("parallel.pp=4", "parallel.schedule=interleaved"),
            "parallel.pp (4) x parallel.chunks (2) = 8 parts must not exceed model.num_layers (4) + embedding + head = 6. "
            "Try parallel.schedule=1f1b.",
            ("parallel.pp=4",),
        ),
        (
            (*INTERLEAVED, "optim.global_batch_size=4"),
            "optim.global_batch_size (4) gives each replica 1 micro-batch, and parallel.schedule (interleaved) needs at "
            "least parallel.pp (2). Try parallel.schedule=1f1b, or optim.global_batch_size=8.",
            (*INTERLEAVED, "optim.global_batch_size=8"),
        ),
        (
            (*INTERLEAVED, "optim.batch_ramp.start=4"),
            "The batch size of optim.batch_ramp (4) gives each replica 1 micro-batch, and parallel.schedule "
            "(interleaved) needs at least parallel.pp (2). Try parallel.schedule=1f1b, or optim.batch_ramp.start=8 "
            "optim.batch_ramp.increment=8.",
            (*INTERLEAVED, "optim.batch_ramp.start=8", "optim.batch_ramp.increment=8"),
        ),
    ],
)
def test_the_interleaved_schedule_is_told_what_works(
    words: tuple[str, ...], problem: str, better: tuple[str, ...]
) -> None:
    world = 4 if "parallel.pp=4" in words else 2
    assert problem_of(*words, world=world) == problem
    load_config(list(better), world)


def test_uneven_parts_are_named_in_the_order_of_a_pass() -> None:
    config = load_config([*INTERLEAVED, "model.num_layers=5"], 2)
    assert uneven_stages(config) == (
        "model.num_layers (5) + embedding + head = 7 does not divide over parallel.pp (2) x parallel.chunks (2) = 4 "
        "parts: the parts hold [2, 2, 2, 1]. Training accepts this; about 12% of each step is idle, since all wait for "
        "the largest. Try model.num_layers=2 or model.num_layers=6."
    )
