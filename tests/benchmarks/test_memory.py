"""The memory model against the allocator: within a tenth on every stage of every layout."""

import pytest

from benchmarks.live_memory import peak_live_bytes
from benchmarks.memory import LAYOUTS, Layout, compare
from configs import derive, pipeline
from configs.load import load_config
from configs.schema import Recompute
from launch.estimate.memory import memory_of_stages
from tests.helpers.distributed import run_distributed

SMALL = [
    "model.num_layers=4",
    "model.hidden_size=512",
    "model.num_heads=8",
    "model.ffn_size=1408",
    "model.vocab_size=8192",
    "model.seq_length=256",
    "optim.micro_batch_size=2",
    "optim.global_batch_size=8",
    "optim.total_samples=16",
]


@pytest.mark.parametrize(
    "words",
    [
        ("precision=bf16", "parallel.pp=2"),
        ("precision=fp32", "parallel.tp=2", "parallel.recompute=full"),
        (
            *("precision=bf16", "parallel.pp=2", "optim.micro_batch_size=8"),
            *("model.norm=sandwich", "model.embedding_norm=true", "model.qk_norm=true"),
        ),
        (
            *("precision=bf16", "parallel.tp=2", "optim.micro_batch_size=8"),
            *("model.norm=pre", "model.softmax_fp32=false"),
        ),
    ],
)
def test_the_estimate_is_within_a_tenth_of_the_measured_peak(words: tuple[str, ...]) -> None:
    overrides = [*SMALL, *words, "cluster.gpus_per_node=2"]
    measured = run_distributed(peak_live_bytes, 2, overrides)
    config = load_config(overrides)
    stages = memory_of_stages(config, on_gpu=False)
    per_stage = 2 // config.parallel.pp
    for stage in stages:
        ranks = measured[stage.stage * per_stage : (stage.stage + 1) * per_stage]
        assert stage.peak == pytest.approx(max(ranks), rel=0.1), stage


@pytest.mark.slow
@pytest.mark.parametrize("run", LAYOUTS, ids=lambda run: run.name)
def test_ten_layouts_of_at_least_200_mb_are_within_a_tenth(run: Layout) -> None:
    config = load_config(list(run.words))
    size = 4 if config.precision.value == "fp32" else 2
    assert size * derive.parameters(config.model) >= 200e6
    for estimated, measured in compare(run):
        assert estimated == pytest.approx(measured, rel=0.1)


def test_the_layouts_differ_in_everything_that_memory_depends_on() -> None:
    configs = [load_config(list(run.words)) for run in LAYOUTS]
    assert len(configs) == 13
    assert {pipeline.num_chunks(config.parallel) for config in configs} == {1, 2}
    assert {config.precision.value for config in configs} == {"fp32", "bf16"}
    assert {config.parallel.tp for config in configs} == {1, 2}
    assert {config.parallel.pp for config in configs} == {1, 2, 4}
    assert {derive.data_parallel_size(c, derive.planned_world_size(c)) for c in configs} == {1, 2}
    assert {config.parallel.recompute for config in configs} == set(Recompute)
    assert len({config.optim.micro_batch_size for config in configs}) >= 3
