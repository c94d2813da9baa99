"""The constants of the speed model are what the counter counts, on shapes from which they were not taken."""

from typing import Any

import pytest

from configs import computation
from configs.load import load_config
from configs.schema import AttentionPath, Config, Precision
from launch.estimate.layer_time import moved_bytes
from launch.estimate.network import Layout, Transformer
from launch.estimate.traffic import allowed_share, our_traffic
from tests.helpers.distributed import run_distributed

FAST = ("model.hidden_dropout=0", "model.attention_dropout=0")
SHAPES = (
    ("experiment=glm_130b", "precision=bf16", *FAST, "cluster.gpu=H200"),
    ("experiment=glm_130b_h100", "parallel.sequence=true"),
    ("experiment=glm_130b", "cluster.gpu=H200"),
    ("model=glm_10b", "precision=bf16", *FAST, "parallel.tp=2"),
    ("model=glm_335m", "precision=fp32", *FAST),
    ("model=glm_2b", "precision=bf16", "model.hidden_dropout=0.1", "model.attention_dropout=0"),
    ("model=glm_2b", "precision=fp32", "model.hidden_dropout=0", "model.attention_dropout=0.1"),
    ("experiment=glm_130b_h100", "model.norm=pre", "model.qk_norm=true"),
    ("model=glm_2b", "precision=bf16", "model.norm=sandwich", "model.hidden_dropout=0.1"),
    ("model=glm_2b", "precision=fp32", "model.norm=sandwich", "model.qk_norm=true", *FAST),
    ("model=glm_2b", "precision=bf16", "model.softmax_fp32=false", *FAST),
    ("experiment=glm_130b", "precision=fp16", "model.softmax_fp32=false"),
)
# Several rows share a part of the work of dropout.
ONE_ROW = "optim.micro_batch_size=1"


def counted(rank: int, world_size: int, configs: list[Config]) -> list[Any]:
    """What moves in the passes of each configuration, with the products of materialised scores; and its sums."""
    from benchmarks.counting.network import count_network

    found = []
    for config in configs:
        cost = count_network(config)
        path, _ = computation.attention_path(config.model, on_gpu=True)
        sides = (cost.layer.forward, cost.layer.backward)
        moved = [
            side.other.moved + (side.attention.moved if path is AttentionPath.reference else 0)
            for side in sides
        ]
        sums = [side.collectives.total() for side in sides]
        found.append((moved, sums, cost.head.both.other.moved))
    return found


def gradients(rank: int, world_size: int, precision: Precision) -> tuple[float, float]:
    from benchmarks.counting.gradients import count_gradients
    from tests.helpers.rank_runs import allow_fp16
    from train.world import World, prepare_environment

    world = World(rank, rank, world_size)
    prepare_environment(world, "cpu")
    allow_fp16()
    cost = count_gradients(precision, world=world)
    return cost.bytes_per_micro_batch, cost.bytes_per_step


def test_layers_and_head_move_what_the_constants_say() -> None:
    configs = [load_config([*words, ONE_ROW, "parallel.recompute=false"]) for words in SHAPES]
    (found,) = run_distributed(counted, 1, configs)
    for config, (moved, sums, head) in zip(configs, found, strict=True):
        network, layout = Transformer.of(config), Layout.of(config)
        traffic = network.traffic
        for side, expected in zip((traffic.forward, traffic.backward), moved, strict=True):
            # Queries and keys, counted with the scores, weigh less where heads are narrower than 128.
            assert moved_bytes(network, layout, side) == pytest.approx(expected, rel=0.04)
        if config.parallel.tp > 1 and not layout.sequence:
            assert [traffic.sums_forward, traffic.sums_backward] == sums
        tokens, local = layout.micro_batch_size * network.seq_length, network.vocab_size / layout.tp
        modelled = tokens * traffic.head.hidden * network.hidden_size
        again = computation.head_chunks(tokens, int(local), network.hidden_size) - 1
        weights = traffic.head.weights + again * traffic.head.weights_again
        modelled += local * (tokens * traffic.head.logits + weights * network.hidden_size)
        # A cut sequence cuts a part of the head's hidden states too, which the model leaves whole.
        assert modelled == pytest.approx(head, rel=0.04 if layout.sequence else 0.03)


@pytest.mark.parametrize("precision", [Precision.bf16, Precision.fp16, Precision.fp32])
def test_the_engine_moves_what_the_constants_say(precision: Precision) -> None:
    traffic = our_traffic(precision)
    for replicas in (2, 4):
        micro_batch, step = run_distributed(gradients, replicas, precision)[0]
        assert traffic.gradients == pytest.approx(micro_batch, rel=0.01)
        assert traffic.step + traffic.update / replicas == pytest.approx(step, rel=0.01)


def masked(rank: int, world_size: int, configs: list[Config]) -> list[float]:
    from benchmarks.counting.rows import allowed_share as counted_share

    return [counted_share(config) for config in configs]


def test_the_mask_allows_what_the_constants_say() -> None:
    words = ("model.seq_length=1024", "data.instructions=[]")
    configs = [
        load_config(
            [*words, f"objective.gmask_share={share}", f"objective.windows_per_row={windows}"]
        )
        for share, windows in ((0.0, 4), (1.0, 4), (0.7, 4), (0.0, 8))
    ]
    (found,) = run_distributed(masked, 1, configs)
    for config, share in zip(configs, found, strict=True):
        assert allowed_share(config.objective) == pytest.approx(share, rel=0.06)
