"""Memory per part, against counts by hand; benchmarks/memory.py compares with the allocator."""

from dataclasses import replace

import pytest

from configs import derive
from configs.load import load_config
from launch.estimate.memory import StageMemory, checkpoint_bytes, memory_of_stages

GIB = 2**30


def stages(*words: str, on_gpu: bool = True) -> list[StageMemory]:
    return memory_of_stages(load_config(list(words)), on_gpu)


@pytest.mark.parametrize(
    ("words", "per_parameter"),
    [
        (("precision=fp32", "parallel.zero_stage=0"), 4 + 4 + 8),
        (("precision=fp32", "cluster.gpus_per_node=4"), 4 + 4 + 12 / 4),
        # bf16 sums in fp32, and that sum is not sharded.
        (("precision=bf16", "cluster.gpus_per_node=4"), 2 + 4 + 12 / 4),
        (("precision=auto",), 2 + 4 + 12),
        (("precision=fp16", "cluster.gpus_per_node=4"), 2 + 2 + 12 / 4),
    ],
)
def test_bytes_per_parameter(words: tuple[str, ...], per_parameter: float) -> None:
    config = load_config(list(words))
    (stage,) = memory_of_stages(config)
    assert stage.state == pytest.approx(per_parameter * derive.parameters(config.model), abs=2)


def test_only_what_replicas_shard_shrinks_with_them() -> None:
    one, four = stages()[0], stages("cluster.gpus_per_node=4")[0]
    assert four.masters == pytest.approx(one.masters / 4, abs=1)
    assert four.moments == pytest.approx(one.moments / 4, abs=1)
    assert (four.weights, four.gradients) == (one.weights, one.gradients)


def test_glm_130b_keeps_a_whole_state_of_18_gb_on_each_gpu() -> None:
    # 4 bytes of fp16 weights and gradients and 12 / 24 of masters and moments, for each of 4,087,119,872.
    last = stages("experiment=glm_130b")[-1]
    assert last.state == pytest.approx(4.5 * 4_087_119_872, abs=4)
    # DeepSpeed's reduce bucket of 5e8 fp16 elements: one from the first backward pass on, one more to reduce.
    assert last.in_backward == 10**9
    assert last.in_reduction == 2 * 10**9


def test_with_recompute_a_layer_keeps_its_input_alone() -> None:
    words = ("experiment=glm_130b",)
    config = load_config(list(words))
    hidden = 2048 * 12288 * 2
    first, second = memory_of_stages(config)[:2]
    # Eight micro-batches in flight on the first stage and seven on the second, with eight and nine layers.
    rest_of_first = first.activations - 8 * (1 + 8) * hidden
    rest_of_second = second.activations - 7 * (1 + 9) * hidden
    # The first stage also keeps one byte of the embedding's dropout per element.
    assert rest_of_first - rest_of_second == 8 * hidden // 2


def test_a_stage_holds_as_many_micro_batches_as_follow_it_at_most() -> None:
    words = ("parallel.pp=2", "optim.micro_batch_size=1", "precision=bf16")
    many = stages(*words, "optim.global_batch_size=8")
    single = stages(*words, "optim.global_batch_size=1")
    assert many[0].activations > single[0].activations
    assert many[1].activations == single[1].activations


def test_tensor_parallelism_leaves_whole_hidden_states_on_every_rank() -> None:
    words = ("precision=bf16", "model.hidden_size=512", "model.num_heads=8", "model.ffn_size=1408")
    config = load_config([*words, "parallel.tp=1"])
    cut = replace(config, parallel=replace(config.parallel, tp=8))
    whole, eighth = memory_of_stages(config)[0], memory_of_stages(cut)[0]
    assert eighth.activations > whole.activations / 8
    assert eighth.outputs == whole.outputs


def test_a_checkpoint_has_masters_moments_and_half_precision_weights() -> None:
    config = load_config(["experiment=glm_130b"])
    assert checkpoint_bytes(config) == 14 * 128_697_794_560
    assert checkpoint_bytes(load_config(["precision=fp32"])) == 12 * derive.parameters(
        load_config([]).model
    )
