"""Numbers that no cluster has, clusters that never finish, and models that fit nowhere: each is answered, none crashes."""

import re

import pytest

from configs.errors import ConfigError
from configs.load import load_config
from launch.estimate.command import estimate
from launch.estimate.plan import ClusterPlan
from launch.estimate.reliability import goodput
from launch.estimate.search import candidates

NUMBERS = (
    "gpu_memory_gib",
    "peak_tflops",
    "gpu_memory_gb_per_second",
    "node_gb_per_second",
    "network_gb_per_second",
    "gpu_watts",
    "gpu_price_per_hour",
    "gpu_mtbf_hours",
    "storage_gb_per_second",
    "restart_minutes",
    "host_memory_gib",
    "measured_seconds_per_step",
)
PUBLISHED = "experiment=glm_130b"


def answer(*words: str) -> tuple[list[str], str]:
    """Problems, and the text where there is none."""
    try:
        return [], estimate(list(words))
    except ConfigError as error:
        return error.problems, ""


def advised(problem: str) -> list[str]:
    """The words that the last sentence says to type."""
    return re.findall(r"[a-z_.]+=[\w.-]*\w", problem.rpartition("Try ")[2])


@pytest.mark.parametrize("value", ["-1", "0", "nan", "inf", "5e-324", "1e300", "1e308"])
def test_numbers_that_no_cluster_has_are_problems_with_usual_values(value: str) -> None:
    problems, _ = answer(PUBLISHED, *(f"cluster.{key}={value}" for key in NUMBERS))
    assert len(problems) == len(NUMBERS)
    for key, problem in zip(sorted(NUMBERS), sorted(problems), strict=True):
        assert problem.startswith(f"cluster.{key} (")
        (word,) = advised(problem)
        assert word.startswith(f"cluster.{key}=")


@pytest.mark.parametrize("key", ["nodes", "gpus_per_node"])
def test_more_ranks_than_any_cluster_has_are_refused(key: str) -> None:
    (problem,), _ = answer(PUBLISHED, f"cluster.{key}=1e300")
    assert problem.endswith(f"Try cluster.{key}=8.")


@pytest.mark.parametrize("end", ["least", "most"])
@pytest.mark.parametrize("key", NUMBERS)
def test_the_least_and_the_most_that_is_taken_is_answered_in_finite_numbers(
    key: str, end: str
) -> None:
    (problem,), _ = answer(PUBLISHED, f"cluster.{key}=-1")
    limits = re.search(r"between ([\d.e-]+) and ([\d,]+)\.", problem)
    assert limits is not None
    value = limits[1] if end == "least" else limits[2].replace(",", "")
    problems, text = answer(PUBLISHED, f"cluster.{key}={value}")
    assert not re.search(r"\b(nan|inf)\b|\d{30}", text)
    assert all(" (" in problem and advised(problem) for problem in problems)


def test_a_cluster_that_fails_sooner_than_it_starts_makes_no_progress_and_is_told_so() -> None:
    assert goodput(60, 1, 900, 2.3) == pytest.approx(0, abs=1e-100)
    assert goodput(60, 1, 900, 1e-3) == 0
    problems, text = answer(PUBLISHED, "cluster.gpu_mtbf_hours=0.5")
    assert problems == []
    (run,) = [line for line in text.splitlines() if line.startswith("run ")]
    assert "it never ends: one of 768 GPUs fails every 2.34 s, a restart takes 15 min" in run
    assert "cluster.gpu_mtbf_hours" in run
    assert "cost" not in text


def test_a_save_comes_at_most_once_a_step() -> None:
    plan = ClusterPlan.of(load_config([PUBLISHED, "cluster.gpu_mtbf_hours=2"]))
    assert plan.best_interval_seconds == plan.seconds_per_step


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("cluster.nodes=8",), "cluster.gpu=A100-80G"),
        (("cluster.nodes=16", "cluster.gpu_memory_gib=24"), "cluster.nodes=32"),
        (("cluster.gpu_memory_gib=4",), "cluster.gpu_memory_gib=16"),
        (("--search", "cluster.nodes=8"), "cluster.gpu=A100-80G"),
    ],
    ids=["a larger GPU", "more nodes", "more memory", "search"],
)
def test_where_nothing_fits_the_advice_fits(words: tuple[str, ...], advice: str) -> None:
    (problem,), _ = answer(PUBLISHED, *words)
    assert advised(problem)[0] == advice
    given = [word for word in words if word != "--search"]
    changed = load_config([PUBLISHED, *given, *advised(problem)])
    assert ClusterPlan.of(changed).missing_gib == 0


def test_a_measured_time_below_the_peak_s_is_refused() -> None:
    (problem,), _ = answer(PUBLISHED, "cluster.measured_seconds_per_step=1")
    assert "less than the 28.6 s that 768 GPUs need" in problem
    assert answer(PUBLISHED, *advised(problem))[0] == []


def test_the_search_compares_by_the_model_whatever_was_measured() -> None:
    measured = load_config([PUBLISHED, "cluster.measured_seconds_per_step=100"])
    modelled = load_config([PUBLISHED])
    assert [each.plan.mfu for each in candidates(measured)] == [
        each.plan.mfu for each in candidates(modelled)
    ]


def test_the_search_also_looks_at_the_given_micro_batch() -> None:
    words = ["experiment=glm_10b_1node", "optim.micro_batch_size=3", "optim.global_batch_size=960"]
    found = {each.plan.config.optim.micro_batch_size for each in candidates(load_config(words))}
    assert 3 in found and 4 in found


def test_an_unknown_option_is_named() -> None:
    (problem,), _ = answer("--serch", PUBLISHED)
    assert "--search" in problem
