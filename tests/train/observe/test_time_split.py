"""The split of a step's time in whole runs of every schedule, and the passes of a pipeline as they were measured."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.distributed import Ranks
from tests.helpers.whole_runs import command, compared, quietly, run_attempt
from train.observe.step_clock import Pass
from train.observe.time_split import named_passes
from train.parts import PARTS

SPLIT = [*(f"time/{part}" for part in PARTS), "time/rest"]


def attempt(rank: int, world_size: int, overrides: tuple[str, ...], folder: Path) -> None:
    """`python -m train`; each rank notes by itself when its steps end."""
    from train.observe.step_clock import StepClock

    lap = StepClock.lap
    moments: list[float] = []

    def noted(self: Any) -> Any:
        moments.append(time.perf_counter())
        return lap(self)

    StepClock.lap = noted
    code = quietly(list(overrides), folder / "errors.txt")
    (folder / f"moments_{rank}.json").write_text(json.dumps(moments))
    os._exit(code)


def run(folder: Path, world_size: int, *words: str) -> list[dict[str, Any]]:
    """The lines of details.jsonl of a run."""
    overrides = command(folder, f"run.dir={folder / 'run'}", *words)
    ranks = Ranks(attempt, world_size, overrides, folder)
    try:
        codes = ranks.wait(170)
    finally:
        ranks.kill_all()
    assert codes == [0] * world_size, (folder / "errors.txt").read_text()
    return [json.loads(line) for line in (folder / "run" / "details.jsonl").open()]


# Ranks, words, stages, chunks of each, micro-batches of a replica's step.
LAYOUTS = [
    pytest.param(1, ("model.num_layers=2",), 1, 1, 4, id="one-stage"),
    pytest.param(4, ("parallel.tp=2", "parallel.pp=2"), 2, 1, 4, id="1f1b"),
    pytest.param(
        2,
        ("parallel.pp=2", "parallel.schedule=interleaved", "model.num_layers=4"),
        2,
        2,
        4,
        id="interleaved",
    ),
    pytest.param(2, ("parallel.overlap=true", "precision=bf16"), 1, 1, 2, id="overlapped"),
]


@pytest.mark.parametrize("world_size, words, pp, chunks, count", LAYOUTS)
def test_the_parts_of_a_step_add_up_to_it(
    tmp_path: Path, world_size: int, words: tuple[str, ...], pp: int, chunks: int, count: int
) -> None:
    lines = run(tmp_path, world_size, *words, "log.details_every_steps=1")
    assert [line["step"] for line in lines] == list(range(1, 13))
    moments = [
        json.loads((tmp_path / f"moments_{rank}.json").read_text()) for rank in range(world_size)
    ]
    assert all(set(SPLIT) <= set(line) for line in lines)
    for line in lines:
        assert sum(line[name] for name in SPLIT) == pytest.approx(line["time/step"], rel=1e-9)
        assert all(line[name] >= 0 for name in SPLIT)
        assert len(line["ranks/seconds"]) == world_size
    # What the ranks measured by themselves, from the end of the first step to that of the last one.
    measured = sum(line["time/step"] for line in lines[1:])
    assert measured == pytest.approx(
        sum(each[-1] - each[0] for each in moments) / world_size, rel=0.03
    )

    total = {name: sum(line[name] for line in lines) for name in SPLIT}
    assert all(total[f"time/{part}"] > 0 for part in PARTS if part != "bubble")
    assert (total["time/bubble"] > 0) == (pp > 1)

    (line,) = [line for line in lines if "pipeline/passes" in line]
    assert line["step"] == line["pipeline/passes"]["step"] == 2
    stages = line["pipeline/passes"]["stages"]
    assert len(stages) == pp
    for passes in stages:
        for kind in ("forward", "backward"):
            of_kind = [
                (each["micro_batch"], each["chunk"]) for each in passes if each["kind"] == kind
            ]
            assert sorted(of_kind) == [(m, c) for m in range(count) for c in range(chunks)]
        edges = [edge for each in passes for edge in (each["start"], each["end"])]
        assert edges == sorted(edges) and edges[0] > 0, "a stage does one thing after the other"
        assert edges[-1] < 2 * line["time/step"]


def test_measuring_changes_nothing_and_leaves_no_file_when_off(tmp_path: Path) -> None:
    words = command(tmp_path, "parallel.pp=2")
    for name, every in (("on", "2"), ("off", "null")):
        overrides = (*words, f"run.dir={tmp_path / name}", f"log.details_every_steps={every}")
        assert run_attempt(2, overrides) == [0, 0]
    assert compared(tmp_path / "on") == compared(tmp_path / "off")
    assert not (tmp_path / "off" / "details.jsonl").exists()
    lines = [json.loads(line) for line in (tmp_path / "on" / "details.jsonl").open()]
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10, 12]


def test_the_passes_of_a_stage_get_the_micro_batch_and_the_chunk_of_the_schedule() -> None:
    # 2 stages, 2 chunks, 3 micro-batches, which run in one group of 3.
    kinds = ["forward"] * 6 + ["backward"] * 6
    passes = [Pass(kind, float(number), number + 0.5) for number, kind in enumerate(kinds)]
    named = named_passes(passes, num_micro_batches=3, pp=2, chunks=2)
    assert [(each["micro_batch"], each["chunk"]) for each in named] == [
        *((0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)),
        *((0, 1), (1, 1), (2, 1), (0, 0), (1, 0), (2, 0)),
    ]
    assert named[7] == {"kind": "backward", "micro_batch": 1, "chunk": 1, "start": 7.0, "end": 7.5}
