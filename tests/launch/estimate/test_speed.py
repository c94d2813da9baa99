"""The pace of a pipeline is its slowest stage's, whichever that is."""

from dataclasses import replace

import pytest

from configs import derive
from configs.hardware import PRESETS
from configs.load import load_config
from configs.schema import Recompute
from launch.estimate.search import candidates
from launch.estimate.speed import Layout, StepTime, Transformer, step_time

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


def modelled(network: Transformer, pp: int, recompute: Recompute = Recompute.none) -> StepTime:
    return step_time(network, Layout(1, pp, 1, 8, 1, recompute, 2, 4), GPU, 64)


def network(vocab_size: int) -> Transformer:
    config = load_config([*LARGE_VOCABULARY, f"model.vocab_size={vocab_size}"])
    return Transformer.of(config)


def test_a_head_larger_than_its_stages_missing_layer_sets_the_pace() -> None:
    large = network(150_528)
    layer = modelled(replace(large, num_layers=1, vocab_size=0), 1).micro_batch
    head = modelled(large, 1).micro_batch - 36 * layer
    assert head == pytest.approx(3.9 * layer, rel=0.02)
    # 38 entries over 8 stages: five layers on most of the first six, three
    # layers and the head on the last.
    assert derive.layers_of_stage(36, 8, 7) == 3
    assert modelled(large, 8).micro_batch == pytest.approx(3 * layer + head)
    assert modelled(large, 8).micro_batch > 1.2 * 5 * layer


def test_a_head_smaller_than_a_layer_leaves_the_pace_to_the_stages_with_most_layers() -> None:
    small = network(1024)
    layer = modelled(replace(small, num_layers=1, vocab_size=0), 1).micro_batch
    assert modelled(small, 8).micro_batch == pytest.approx(5 * layer)


def test_the_head_is_not_recomputed() -> None:
    large = network(150_528)
    once, twice = modelled(large, 8), modelled(large, 8, recompute=Recompute.full)
    assert twice.micro_batch - once.micro_batch == pytest.approx(twice.recompute)
    without_head = modelled(replace(large, vocab_size=0, num_layers=3), 1, recompute=Recompute.full)
    assert twice.recompute == pytest.approx(without_head.micro_batch / 4)


def test_the_search_does_not_cut_a_small_model_with_a_large_vocabulary_into_many_stages() -> None:
    found = candidates(load_config(list(LARGE_VOCABULARY)))
    pace = {
        pp: min(each.seconds for each in found if each.plan.config.parallel.pp == pp)
        for pp in (1, 2, 8)
    }
    assert pace[2] < pace[1] < pace[8]
