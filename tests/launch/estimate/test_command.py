"""What the command prints, what it refuses, and what it advises to type."""

import re

import pytest

from configs.errors import ConfigError
from configs.load import load_config
from launch.estimate.command import estimate
from launch.estimate.plan import ClusterPlan
from launch.estimate.search import candidates, fastest_that_fits


def problems_of(*words: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        estimate(list(words))
    return caught.value.problems


def typed(problem: str) -> list[str]:
    """The words after "Try"."""
    return problem.rpartition("Try ")[2].rstrip(".").split()


def test_the_published_run_is_told_with_its_cost() -> None:
    text = estimate(["experiment=glm_130b", "cluster.measured_seconds_per_step=88.5"])
    assert "88.50 s (measured): 47.7 samples/s, 97,749 tokens/s" in text
    assert "134.1 TFLOP/s per GPU of 312: HFU 43.0%, MFU 32.4%" in text
    for row in ("run", "energy", "cost", "checkpoint", "failures", "save every"):
        assert f"\n{row} " in text
    assert "It fits: " in text


def test_modelled_numbers_are_marked_as_such() -> None:
    text = estimate(["experiment=glm_130b"])
    assert "by the speed model, docs/estimates.md" in text
    assert "measured" not in text


def test_without_a_gpu_the_estimate_names_what_to_type_for_time_and_cost() -> None:
    assert "cluster.gpu=A100-80G" in estimate([])


def test_the_estimate_says_when_recompute_does_not_change_the_peak() -> None:
    """On CUDA the smallest model's peak is in the update, which recompute does not touch; the published one's is not."""
    assert estimate(["model=tiny", "device=cuda"]).endswith(
        "MiB, but the peak would be the same: it is in the update."
    )
    assert "GiB, and the peak " in estimate(["experiment=glm_130b"])


def test_all_problems_come_at_once() -> None:
    found = problems_of("cluster.nodes=0", "cluster.gpu=A100", "parallel.zero_stage=7", "foo=1")
    assert len(found) == 4
    assert any("cluster.nodes (0) must be at least 1" in problem for problem in found)
    assert any("Try cluster.gpu=A100-" in problem for problem in found)


def test_tensor_parallelism_across_nodes_must_be_meant() -> None:
    words = ["experiment=glm_130b", "parallel.tp=16", "parallel.pp=8", "optim.batch_ramp.start=96"]
    unknown, across = sorted(problems_of(*words, "cluster.gpu=H1000"))
    assert "Try cluster.gpu=H100" in unknown
    assert "cluster.tp_across_nodes=true" in across
    assert "parallel.tp=16" not in estimate(["--search", "experiment=glm_130b"])


def test_too_little_memory_is_a_problem_among_others_and_its_advice_fits() -> None:
    words = ["experiment=glm_130b", "parallel.recompute=false"]
    short, other = problems_of(*words, "optim.min_lr=1")[::-1]
    assert "optim.min_lr" in other
    assert "needs 75.7 GiB" in short and "A100-40G" in short
    config = load_config([*words, *typed(short)])
    assert ClusterPlan.of(config).missing_gib == 0


def test_a_model_too_large_for_the_cluster_is_told_so() -> None:
    (problem,) = problems_of("experiment=glm_130b", "cluster.gpu_memory_gib=4")
    assert "No layout of this cluster fits" in problem


def test_a_custom_gpu_needs_all_its_numbers_and_its_advice_is_enough() -> None:
    (problem,) = problems_of("cluster.gpu=custom", "cluster.gpu_memory_gib=64")
    assert "cluster.node_gb_per_second" in problem
    assert "gpu_memory_gib" not in problem
    words = [word for word in typed(problem) if "=" in word]
    assert "64 less" in estimate(["cluster.gpu=custom", "cluster.gpu_memory_gib=64", *words])


def test_the_given_numbers_replace_the_presets() -> None:
    words = ["experiment=glm_130b", "cluster.gpu_price_per_hour=7", "cluster.gpu_watts=100"]
    text = estimate(words)
    assert "at $7 " in text and "at 100 W each" in text


def test_the_search_finds_a_layout_at_least_as_good_as_the_published_one() -> None:
    config = load_config(["experiment=glm_130b"])
    best, published = fastest_that_fits(config), ClusterPlan.of(config)
    assert best is not None and published.step is not None
    assert best.fits
    assert best.seconds <= published.step.total
    # As GLM-130B found, which recomputed whole layers of whole stages: tp 4 before tp 8, eight stages.
    as_it_ran = (
        each
        for each in candidates(config)
        if each.fits and "recompute=full" in each.words and "interleaved" not in each.words
    )
    assert next(as_it_ran).words.startswith("parallel.tp=4 parallel.pp=8 ")


def test_the_search_says_why_the_others_are_slower() -> None:
    best = fastest_that_fits(load_config(["experiment=glm_130b"]))
    assert best is not None
    text = estimate(["--search", "experiment=glm_130b", *best.words.split()])
    assert "the fastest that fits" in text
    assert re.search(r"\+[0-9.]+ s of (pipeline bubble|tensor-parallel sums|traffic between)", text)
    assert "lacks " in text and " GiB on stage" in text
    assert text.endswith("This is the given layout.")


def test_the_search_compares_with_a_worse_layout_that_was_given() -> None:
    words = ["experiment=glm_130b", "parallel.tp=8", "parallel.pp=4"]
    best = fastest_that_fits(load_config(words))
    assert best is not None and "parallel.pp=4 " not in best.words
    text = estimate(["--search", *words])
    assert f"Best: {best.words}" in text
    assert "tensor-parallel sums" in text.splitlines()[-1]


def test_every_candidate_can_be_typed() -> None:
    words = ["experiment=glm_10b_1node"]
    found = candidates(load_config(words))
    assert len(found) > 5
    for candidate in found[::7]:
        plan = ClusterPlan.of(load_config([*words, *candidate.words.split()]))
        assert plan.step is not None and plan.step.total == candidate.seconds


def test_a_cluster_left_at_its_one_rank_is_one_node_of_the_layouts_ranks() -> None:
    words = ["model=glm_2b", "precision=bf16", "parallel.tp=4", "parallel.pp=2", "cluster.gpu=H100"]
    left, said = load_config(words), load_config([*words, "cluster.gpus_per_node=8"])
    assert ClusterPlan.of(left).step == ClusterPlan.of(said).step
    assert estimate(words) == estimate([*words, "cluster.gpus_per_node=8"])
    found = candidates(left)
    assert {each.plan.gpus for each in found} == {8}
    assert [each.seconds for each in found] == [each.seconds for each in candidates(said)]
    typed_plan = ClusterPlan.of(load_config([*words, *found[0].words.split()]))
    assert typed_plan.step == found[0].plan.step


def test_a_search_without_a_gpu_is_refused() -> None:
    (problem,) = problems_of("--search")
    assert typed(problem) == ["cluster.gpu=A100-80G"]
