"""The published model as one would train it today: the same model and schedule, on GPUs that have the memory."""

from dataclasses import replace

import pytest

from configs import computation
from configs.load import load_config
from configs.schema import AttentionPath, Config, Precision, Recompute
from launch.estimate.plan import ClusterPlan
from launch.estimate.search import fastest_that_fits

GPUS = {"h100": "H100", "h200": "H200", "b200": "B200", "a100_80g": "A100-80G"}


def preset(name: str) -> Config:
    return load_config([f"experiment=glm_130b_{name}"])


@pytest.mark.parametrize("name", GPUS)
def test_only_what_makes_it_fast_differs_from_the_published_run(name: str) -> None:
    published, fast = load_config(["experiment=glm_130b"]), preset(name)
    assert fast.experiment == f"glm_130b_{name}"
    assert replace(fast.model, hidden_dropout=0.1, attention_dropout=0.1) == published.model
    assert fast.optim == published.optim
    assert fast.objective == published.objective
    assert fast.data == published.data
    assert fast.stability == published.stability
    assert fast.precision is Precision.bf16
    path, _ = computation.attention_path(fast.model, on_gpu=True)
    assert path is AttentionPath.flex
    assert fast.parallel.recompute is Recompute.none
    assert (fast.parallel.tp, fast.parallel.pp, fast.parallel.zero_stage) == (4, 8, 1)
    assert (fast.cluster.nodes, fast.cluster.gpus_per_node) == (96, 8)


@pytest.mark.parametrize(("name", "gpu"), GPUS.items())
def test_it_fits_its_gpus_and_runs_on_their_own_peak(name: str, gpu: str) -> None:
    config = preset(name)
    plan = ClusterPlan.of(config)
    assert config.cluster.gpu == gpu
    assert plan.missing_gib == 0
    assert plan.gpu is not None and plan.gpu.peak_tflops > 312 or gpu == "A100-80G"
    # The published run's rounds of full recompute and dropout on the same GPUs.
    words = [f"cluster.gpu={gpu}", "cluster.peak_tflops=null", "precision=bf16"]
    as_published = ClusterPlan.of(load_config(["experiment=glm_130b", *words]))
    assert plan.step is not None and as_published.step is not None
    assert plan.step.total < 0.75 * as_published.step.total


@pytest.mark.parametrize("name", GPUS)
def test_the_search_finds_nothing_faster_than_by_a_hundredth(name: str) -> None:
    """Another layout may be that much faster at the full batch; more stages wait more at the ramp's small ones."""
    config = preset(name)
    best, own = fastest_that_fits(config), ClusterPlan.of(config)
    assert best is not None and best.plan.step is not None and own.step is not None
    assert own.step.total <= 1.01 * best.plan.step.total
    assert best.plan.config.parallel.recompute is config.parallel.recompute
