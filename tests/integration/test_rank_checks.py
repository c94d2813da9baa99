"""Whole runs with a silent error, and with a slow rank: who is named, where, and that nobody is in a clean run."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.distributed import Ranks
from tests.helpers.silent import flip_weight, slow_down
from tests.helpers.whole_runs import command, quietly
from train.world import node_name

EVERY = 4
STEPS = 24
HOST = node_name()


def attempt(
    rank: int,
    world_size: int,
    overrides: tuple[str, ...],
    errors: Path,
    fault: str,
    guilty: int,
    begins: int,
) -> None:
    """`python -m train` with a fault on one rank: a parameter whose bit flips before a step, or "slow" from it on."""
    from train.engine.pipeline import PipelineEngine

    train_step = PipelineEngine.train_step
    done = 0

    def faulty(engine: Any, *arguments: Any) -> Any:
        nonlocal done
        done += 1
        if done == begins and rank == guilty:
            if fault == "slow":
                slow_down(engine.module, 0.3)
            else:
                flip_weight(engine, fault)
        return train_step(engine, *arguments)

    PipelineEngine.train_step = faulty
    os._exit(quietly(list(overrides), errors))


def events_of(
    folder: Path,
    world_size: int,
    words: tuple[str, ...],
    fault: str,
    guilty: int,
    begins: int,
    code: int = 0,
) -> list[dict[str, Any]]:
    """What a run with a fault recorded beside its usual events; it must have ended with `code`."""
    errors = folder / "errors.txt"
    overrides = command(
        folder,
        f"run.dir={folder / 'run'}",
        f"optim.total_samples={8 * STEPS}",
        "optim.warmup_samples=8",
        *words,
    )
    ranks = Ranks(attempt, world_size, overrides, errors, fault, guilty, begins)
    try:
        codes = ranks.wait(170)
    finally:
        ranks.kill_all()
    assert codes == [code] * world_size, errors.read_text()
    lines = [json.loads(line) for line in (folder / "run" / "events.jsonl").open()]
    return [line for line in lines if line["event"] in ("slow_rank", "weights_differ")]


FLIPS = [
    pytest.param(2, ("parallel.tp=2",), "final_norm.weight", 1, [0, 1], id="norm"),
    pytest.param(2, ("parallel.pp=2",), "word_embeddings.weight", 1, [0, 1], id="tied"),
    pytest.param(
        *(4, ("parallel.zero_stage=0",)),
        *("layers.1.mlp.dense_out.weight", 2, [2]),
        id="replica",
    ),
]


@pytest.mark.parametrize("world_size, words, parameter, guilty, named", FLIPS)
def test_a_flipped_bit_is_named_within_the_next_comparison(
    world_size: int,
    words: tuple[str, ...],
    parameter: str,
    guilty: int,
    named: list[int],
    tmp_path: Path,
) -> None:
    every = f"stability.checksum_every_steps={EVERY}"
    events = events_of(tmp_path, world_size, (*words, every), parameter, guilty, EVERY + 2)
    found = [event for event in events if event["event"] == "weights_differ"]
    assert found[0]["step"] == 2 * EVERY
    (one,) = [each for each in found[0]["differences"] if each["parameter"] == parameter]
    assert (one["ranks"], one["hosts"]) == (named, [HOST] * len(named))
    assert all(each["ranks"] == named for each in found[0]["differences"])
    said = (tmp_path / "run" / "log.txt").read_text()
    assert said.count("Silent error: in step 8 the bits of") == 1
    assert all(f"rank {rank} on {HOST}" in said for rank in named)


def test_copies_that_differ_end_the_attempt_unless_spikes_are_only_told(tmp_path: Path) -> None:
    words = ("parallel.tp=2", "stability.checksum_every_steps=2", "stability.on_spike=stop")
    found = events_of(tmp_path, 2, words, "final_norm.weight", 1, 4, code=3)
    assert [event["step"] for event in found] == [4]
    said = (tmp_path / "errors.txt").read_text()
    assert "Silent error: in step 4" in said and "continues from the newest checkpoint" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "world_size, words, guilty, begins",
    [
        (4, ("parallel.tp=2",), 2, 1),
        (4, ("parallel.tp=2", "parallel.pp=2", "precision=bf16"), 3, 3),
    ],
)
def test_a_slow_rank_is_named_within_20_steps_and_nobody_else(
    world_size: int, words: tuple[str, ...], guilty: int, begins: int, tmp_path: Path
) -> None:
    (event,) = events_of(tmp_path, world_size, words, "slow", guilty, begins)
    assert event["event"] == "slow_rank"
    assert (event["rank"], event["host"], event["state"]) == (guilty, HOST, "slow")
    assert event["step"] - begins < 20
    said = (tmp_path / "run" / "log.txt").read_text()
    assert said.count(f"Rank {guilty} on {HOST} is slow") == said.count(" is slow: ") == 1


def test_nobody_is_named_in_a_clean_run(tmp_path: Path) -> None:
    words = ("parallel.tp=2", "parallel.pp=2", "stability.checksum_every_steps=1")
    assert events_of(tmp_path, 8, words, "none", -1, 0) == []
