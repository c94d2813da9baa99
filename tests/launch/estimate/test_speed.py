"""The pace of a pipeline is its slowest stage's, whichever that is."""

from dataclasses import replace

import pytest

from configs import cutting
from configs.hardware import PRESETS
from configs.load import load_config
from configs.schema import Recompute
from launch.estimate.network import Layout, Transformer
from launch.estimate.search import candidates
from launch.estimate.speed import StepTime, step_time

GPU = PRESETS["H100"]
# In glm_2b with GLM-130B's vocabulary the head computes as much as four layers.
LARGE_VOCABULARY = (
    "model=glm_2b",
    "model.vocab_size=150528",
    "precision=bf16",
    "optim.micro_batch_size=1",
    "optim.global_batch_size=256",
    "optim.total_samples=100000",
    "cluster.gpu=H100",
    "cluster.nodes=2",
    "cluster.gpus_per_node=8",
)


def modelled(
    network: Transformer, pp: int, recompute: Recompute = Recompute.none
) -> tuple[float, StepTime]:
    """Seconds of a micro-batch on the slowest stage without adding up gradients, and the step."""
    step = step_time(network, Layout(1, pp, 1, 8, 1, recompute, 2, 4), GPU, 64)
    return step.micro_batch - step.accumulation, step


def layer_of(given: Transformer) -> float:
    (two, _), (one, _) = (modelled(replace(given, num_layers=count), 1) for count in (2, 1))
    return two - one


def network(vocab_size: int) -> Transformer:
    config = load_config([*LARGE_VOCABULARY, f"model.vocab_size={vocab_size}"])
    return Transformer.of(config)


def test_a_head_larger_than_its_stages_missing_layer_sets_the_pace() -> None:
    large = network(150_528)
    layer, (whole, _) = layer_of(large), modelled(large, 1)
    head = whole - 36 * layer
    assert head > 2.5 * layer
    # By entries three layers would stand beside the head, which is slower than five. It is left with none.
    assert cutting.layers_of_parts(36, 8) == (4, 5, 5, 5, 5, 5, 4, 3)
    assert cutting.layers_of_parts(36, 8, large.head_layers) == (5, 5, 5, 5, 5, 5, 6, 0)
    pace, _ = modelled(large, 8)
    assert pace == pytest.approx(max(6 * layer, head))


def test_a_head_smaller_than_a_layer_leaves_the_pace_to_the_stages_with_most_layers() -> None:
    small = network(1024)
    layer = layer_of(small)
    pace, _ = modelled(small, 8)
    assert pace == pytest.approx(5 * layer)


def test_the_head_is_not_recomputed() -> None:
    large = network(150_528)
    (once, _), (twice, step) = modelled(large, 4), modelled(large, 4, Recompute.full)
    assert twice - once == pytest.approx(step.recompute)
    # The third of four stages takes eleven layers, about as long as the last with five and the head.
    assert cutting.layers_of_parts(36, 4, large.head_layers) == (10, 10, 11, 5)
    _, without_head = modelled(replace(large, vocab_size=0, num_layers=6), 1, Recompute.full)
    assert step.recompute in (
        pytest.approx(without_head.recompute * 11 / 6),
        pytest.approx(without_head.recompute * 5 / 6),
    )


def test_the_search_does_not_cut_a_small_model_with_a_large_vocabulary_into_many_stages() -> None:
    found = candidates(load_config(list(LARGE_VOCABULARY)))
    pace = {
        pp: min(each.seconds for each in found if each.plan.config.parallel.pp == pp)
        for pp in (1, 2, 8)
    }
    assert max(pace[1], pace[2]) < pace[8]
