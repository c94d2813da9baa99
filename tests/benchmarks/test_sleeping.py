"""The benchmark of bubbles: what sleeps, for how long, and on real stages."""

import pytest
import torch
from torch import nn

from benchmarks import sleeping
from benchmarks.bubbles import BACKWARD, Bubble, idle_share, table, words_of
from benchmarks.sleeping import Sleep, Sleeper, let_entries_sleep
from configs import pipeline
from configs.load import load_config
from glm.model import layer_list
from glm.tensor_parallel import ensure_initialised
from tests.helpers.distributed import run_distributed
from train.topology import Topology

NUM_LAYERS = 6
SECONDS = 0.002


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of every sleep; none is slept."""
    seconds: list[float] = []
    monkeypatch.setattr(sleeping.time, "sleep", seconds.append)
    return seconds


def test_a_backward_pass_sleeps_twice_as_long_and_passes_the_gradient_on(
    slept: list[float],
) -> None:
    hidden = torch.ones(2, 3, requires_grad=True)
    weight = torch.ones(4, requires_grad=True)
    output = Sleep.apply(Sleeper(0.5), hidden, weight)
    assert torch.equal(output, hidden)
    assert slept == [0.5]
    output.backward(torch.full((2, 3), 7.0))
    assert slept == [0.5, 1.0]
    assert hidden.grad is not None and torch.equal(hidden.grad, torch.full((2, 3), 7.0))
    assert weight.grad is not None and torch.equal(weight.grad, torch.zeros(4))


@pytest.mark.parametrize("pp_rank, entries", [(0, 5), (1, 5)])
def test_embedding_and_head_sleep_like_a_layer(
    slept: list[float], pp_rank: int, entries: int
) -> None:
    ensure_initialised()
    config = load_config(words_of(8, 2, 1), 2)
    (stage,) = pipeline.stage_chunks(config)[pp_rank]
    made = layer_list(config.model, config.seed)[stage.start : stage.stop]
    modules = nn.ModuleList(each.cls(**each.kwargs) for each in made)
    topology = Topology(tp=1, pp=2, dp=1, rank=pp_rank)
    let_entries_sleep(modules, topology, Sleeper(1.0))
    fields = torch.zeros(1, 6, 4, dtype=torch.long)
    state = (torch.ones(4, 16, requires_grad=True), fields)
    if pp_rank == 0:
        state = (torch.ones(1, 4, dtype=torch.long), fields)
    for module, entry in zip(modules, made, strict=True):
        state = module(state) if entry.forward is None else (entry.forward(module, state), fields)
    assert slept == [1.0] * entries
    state[0].sum().backward()
    assert slept == [1.0] * entries + [2.0] * entries
    layers = [module for module in modules if not hasattr(module, "word_embeddings")]
    assert all(weight.grad is not None for each in layers for weight in each.parameters())


def test_idle_is_what_stages_do_not_sleep_of_the_longest_step() -> None:
    assert idle_share([(4.0, 3.0), (3.5, 2.0)]) == 1 - 2.5 / 4
    # As long as theory says, a step is idle for as much as theory says.
    step = (pipeline.slots(4, 8, 2), 8.0)
    assert idle_share([step] * 4) == pytest.approx(pipeline.bubble(4, 8, 2))


def test_the_table_has_theory_median_and_difference() -> None:
    found = [Bubble(1, 8, 0.25, [0.27, 0.26, 0.31]), Bubble(2, 8, 0.125, [0.12, 0.13, 0.11])]
    _, one, two = table(found)
    assert one.split() == ["1F1B", "1", "8", "25.0", "27.0", "+2.0", "26.0", "..", "31.0"]
    assert two.split() == ["interleaved", "2", "8", "12.5", "12.0", "-0.5", "11.0", "..", "13.0"]


def slept_seconds(
    rank: int, world_size: int, words: list[str], counts: list[int]
) -> list[tuple[float, float]]:
    """Steps of each number of micro-batches in a rank of the benchmark."""
    from benchmarks.stepping import sleeping_steps
    from train.world import World

    with sleeping_steps(World(rank, rank, world_size), words, SECONDS) as step:
        return [step(count) for count in counts]


@pytest.mark.parametrize("chunks", [1, 2])
def test_two_stages_sleep_for_every_micro_batch(chunks: int) -> None:
    counts = [2, 5]
    ranks = run_distributed(slept_seconds, 2, words_of(NUM_LAYERS, 2, chunks), counts)
    # What sleeps is a lower bound, however busy the machine is. Four entries on each stage.
    for steps in ranks:
        for (seconds, busy), count in zip(steps, counts, strict=True):
            assert seconds > busy >= count * 4 * (1 + BACKWARD) * SECONDS
