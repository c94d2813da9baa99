"""details.jsonl of whole runs: it changes nothing of a run, says the same on every layout, and outlives kills and rollbacks."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.interventions import read_interventions
from configs.run_checkpoints import committed
from configs.run_files import read_details
from data_pipeline.batch import collate
from data_pipeline.look.subject import open_target
from glm.checkpoint.manifest import MASTER
from glm.checkpoint.reader import load_full_tensors, read_manifest
from glm.model import GLMModel
from tests.helpers.distributed import Ranks
from tests.helpers.faults import Fault, attempt_in_phases
from tests.helpers.poison import run_poisoned
from tests.helpers.whole_runs import command, compared, metrics, resumed_at, run_attempt
from train.batches import row_weights, to_micro_batch
from train.parts import PARTS

EVERY, STEPS, BATCH = 4, 12, 8
RARE, COMMON = "rare.txt", "corpus.txt"
# Their own words: what a line of the same layout must have byte for byte.
SAME = ("layers/", "parts/", "train/", "valid/")


def words(folder: Path, run: str, *overrides: str) -> tuple[str, ...]:
    """A run on two sources, of which one is rare and easy; evaluated at steps 3, 6, 9 and 12."""
    both = command(folder)
    rare = folder / RARE
    rare.write_text("\n\n".join("ab " * (300 + number) for number in range(40)))
    return (
        *(word for word in both if not word.startswith("data.paths=")),
        f"data.paths=[{folder / COMMON},{rare}]",
        "data.weights=[7,1]",
        "eval.every_samples=24",
        f"run.dir={folder / run}",
        *overrides,
    )


def details(run: Path) -> list[dict[str, Any]]:
    """All lines."""
    return read_details(run, pytest.fail)


def same(lines: list[dict[str, Any]]) -> str:
    """What must be equal of the lines, as bytes."""
    kept = [
        {key: line[key] for key in line if key.startswith((*SAME, "step", "samples_seen"))}
        for line in lines
    ]
    return json.dumps(kept)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the corpora, and the run `whole`, which nothing happens to."""
    made = tmp_path_factory.mktemp("details")
    assert run_attempt(1, words(made, "whole", f"log.details_every_steps={EVERY}")) == [0]
    return made


def test_a_line_has_every_key_and_stands_at_its_steps(folder: Path) -> None:
    lines = details(folder / "whole")
    assert [line["step"] for line in lines] == [4, 8, 12]
    assert [line["samples_seen"] for line in lines] == [32, 64, 96]
    for line in lines:
        assert list(line) == [
            *("step", "samples_seen"),
            *("layers/gradient_norm", "layers/weight_norm", "parts/weight_norm"),
            *("layers/activation_rms", "memory/weights_gib", "memory/gradients_gib"),
            *("memory/optimizer_gib", "memory/activations_gib", "memory/rest_gib"),
            *(f"train/loss_source/{name}" for name in (COMMON, RARE)),
            *(f"valid/loss_source/{name}" for name in (COMMON, RARE)),
            *("attention/computed_fraction", "speed/mfu_computed", "speed/hfu_computed"),
            *("time/step", *(f"time/{part}" for part in PARTS), "time/rest", "ranks/seconds"),
            *(["pipeline/passes"] if line["step"] == EVERY else []),
        ]
        assert line["memory/activations_gib"] is None, "nothing counts allocations on CPU"
        assert 0 < line["memory/rest_gib"] < 64


def test_losses_of_sources_add_up_to_that_of_all_steps_since_the_line_before(folder: Path) -> None:
    run = folder / "whole"
    dataset, losses = open_target(run).dataset, [line["train/loss"] for line in metrics(run)]
    for number, line in enumerate(details(run)):
        rows = [dataset.locate(i)[0].name for i in range(32 * number, 32 * (number + 1))]
        assert set(rows) == {COMMON, RARE}
        weighted = sum(line[f"train/loss_source/{name}"] for name in rows) / len(rows)
        steps = losses[EVERY * number : EVERY * (number + 1)]
        # Weights of rows are fp32.
        assert weighted == pytest.approx(sum(steps) / EVERY, rel=1e-7)
    assert line[f"train/loss_source/{RARE}"] < line[f"train/loss_source/{COMMON}"]


def test_held_out_losses_of_sources_are_those_of_a_plain_model(folder: Path) -> None:
    run = folder / "whole"
    target = open_target(run, is_validation=True)
    config, dataset = target.config, target.dataset
    model = GLMModel(config.model, config.seed).eval()
    stored = load_full_tensors(committed(run / "checkpoints")[0], MASTER)
    for name, parameter in model.stable_parameters().items():
        parameter.data.copy_(stored[name])
    losses: dict[str, list[float]] = defaultdict(list)
    with torch.no_grad():
        for index in range(config.eval.num_samples):
            batch = collate([dataset[index]])
            weights = row_weights(batch, config.objective.loss_weighting, 0.0)
            inputs, labels = to_micro_batch(batch, weights)
            loss = torch.nn.functional.cross_entropy(model(*inputs), labels[1])
            losses[dataset.locate(index)[0].name].append(float(loss))
    assert len(losses) == 2
    last = details(run)[-1]
    for name, found in losses.items():
        mean = sum(found) / len(found)
        assert last[f"valid/loss_source/{name}"] == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize(
    "world_size, layout",
    [
        (4, ("parallel.tp=2", "parallel.pp=2")),
        (4, ("parallel.pp=2",)),
        (4, ("parallel.tp=2", "parallel.sequence=true")),
        (2, ("parallel.pp=2", "parallel.schedule=interleaved")),
    ],
    ids=str,
)
def test_layouts_write_the_same_losses(
    world_size: int, layout: tuple[str, ...], folder: Path
) -> None:
    run = folder / "_".join(layout).replace("=", "_")
    every = f"log.details_every_steps={EVERY}"
    assert run_attempt(world_size, words(folder, run.name, every, *layout)) == [0] * world_size
    for line, expected in zip(details(run), details(folder / "whole"), strict=True):
        assert line.keys() == expected.keys()
        assert len(line["ranks/seconds"]) == world_size
        for key, value in expected.items():
            if key.startswith(SAME):
                assert line[key] == pytest.approx(value, rel=2e-3), key


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_run_is_the_same_without_details(world_size: int, tmp_path: Path) -> None:
    """On two replicas ZeRO-1's wrapper measures no gradient by itself; what observers ask for must not reach the detector."""
    for name, overrides in (("off", ()), ("on", ("log.details_every_steps=1",))):
        assert run_attempt(world_size, words(tmp_path, name, *overrides)) == [0] * world_size
    off, on = tmp_path / "off", tmp_path / "on"
    assert not (off / "details.jsonl").exists() and len(details(on)) == STEPS
    assert compared(off) == compared(on)
    kept = [read_manifest(committed(run / "checkpoints")[0]).extra["detector"] for run in (off, on)]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("world_size, layout", [(1, ()), (4, ("parallel.tp=2", "parallel.pp=2"))])
def test_a_killed_run_writes_the_lines_of_an_undisturbed_one(
    world_size: int, layout: tuple[str, ...], folder: Path, tmp_path: Path
) -> None:
    every = f"log.details_every_steps={EVERY}"
    run = folder / f"killed_{world_size}"
    typed = words(folder, run.name, every, "checkpoint.save_every_samples=24", *layout)
    # In step 8, which has a line. The checkpoints before it, of steps 3 and 6, are between two lines.
    fault = Fault("step", 8, 0.0, tmp_path / "record", is_now=True)
    ranks = Ranks(attempt_in_phases, world_size, typed, 0, fault, None)
    try:
        ranks.processes[0].join(120)
        assert ranks.processes[0].exitcode == -9
    finally:
        ranks.kill_all()
    assert run_attempt(world_size, typed) == [0] * world_size
    (seen,) = resumed_at(run)
    assert seen % (EVERY * BATCH), "it went on between two lines"
    undisturbed = folder / f"undisturbed_{world_size}"
    assert (
        run_attempt(world_size, words(folder, undisturbed.name, every, *layout)) == [0] * world_size
    )
    assert same(details(run)) == same(details(undisturbed))


def test_a_rolled_back_run_writes_the_lines_of_one_that_was_told_to_leave_the_data_out(
    tmp_path: Path,
) -> None:
    run, told, errors = tmp_path / "run", tmp_path / "told", tmp_path / "errors.txt"
    settings = (
        *("stability.on_spike=rollback", "stability.spike_steps=[3,5]", "stability.skip_steps=5"),
        *("stability.rollback_samples=80", "optim.lr=3e-3", "optim.total_samples=320"),
        *("checkpoint.save_every_samples=32", "eval.every_samples=1000"),
        "log.details_every_steps=7",
    )
    poison = [(160, 200)]
    typed = words(tmp_path, "run", *settings)
    assert run_poisoned(1, typed, errors, poison) == [0], errors.read_text()
    (rollback,) = read_interventions(run).rollbacks
    assert rollback.checkpoint_step % 7, "it went back to a step between two lines"
    ((start, stop),) = rollback.skip
    skip = f"data.skip_samples=[[{start},{stop}]]"
    assert run_poisoned(1, words(tmp_path, "told", *settings, skip), errors, poison) == [0]
    assert same(details(run)) == same(details(told))
    kept = (run / "rolled_back/rollback_1_details.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in kept] == [
        step for step in range(7, rollback.found_step, 7) if step > rollback.checkpoint_step
    ]
