"""The rows that are arithmetic, against the published run and against counts by hand."""

from configs.load import load_config
from launch.estimate.command import estimate


def table(*words: str) -> dict[str, str]:
    """The rows by name."""
    rows = {}
    for line in estimate(list(words)).splitlines():
        name, _, text = line.partition("  ")
        rows[name] = text.strip()
    return rows


def test_the_published_run_is_told_in_its_own_numbers() -> None:
    rows = table("experiment=glm_130b")
    assert rows["parameters"] == "128,697,794,560"
    assert rows["processes"] == "768 = tp 4 x pp 8 x dp 24"
    assert rows["stage 0"] == (
        "embedding + 8 layers: 16,346,611,712 parameters, 4,087,095,296 per rank"
    )
    assert rows["stages 1-6"] == "9 layers: 16,309,039,104 parameters, 4,077,757,440 per rank"
    assert rows["stage 7"] == (
        "8 layers + final norm and head: 16,346,636,288 parameters, 4,087,119,872 per rank"
    )
    assert rows["batch"] == (
        "4,224 rows = micro-batch 1 x 176 accumulated x dp 24; 8,650,752 tokens per step; pipeline bubble 3.8%"
    )
    assert rows["at the start"] == (
        "192 rows = micro-batch 1 x 8 accumulated x dp 24; 393,216 tokens per step; pipeline bubble 46.7%"
    )
    assert rows["ramp"] == "24 rows more every 32,697 samples, the full batch after 4,296 steps"
    assert rows["steps"] == "55,014"
    assert rows["learning rate"] == (
        "0 to 8e-05 in 1,098,632 samples, then cosine to 8e-06 at 197,753,905"
    )
    assert rows["computation"].endswith("FLOP in total; with recompute 1.33 times that")
    once = table("experiment=glm_130b_h100")["computation"]
    assert once.endswith("FLOP in total")


def test_samples_and_tokens_are_those_of_whole_steps() -> None:
    rows = table("optim.total_samples=100")
    assert rows["steps"] == "7"
    assert rows["samples"] == "112 (optim.total_samples 100 in whole steps)"
    assert rows["tokens"] == "57,344 in rows of 512"


def test_one_process_has_one_stage_and_no_bubble() -> None:
    rows = table()
    assert rows["processes"] == "1 = tp 1 x pp 1 x dp 1"
    assert rows["stage 0"].startswith("embedding + 4 layers + final norm and head: ")
    assert "bubble" not in rows["batch"]
    assert "ramp" not in rows


def test_a_stage_of_the_head_alone_is_named_so() -> None:
    rows = table("parallel.pp=4")
    assert rows["stage 0"].startswith("embedding + 1 layer: ")
    assert rows["stage 3"].startswith("final norm and head: ")


def test_uneven_stages_are_remarked_on() -> None:
    assert "about 25% of each step is idle" in table("parallel.pp=4")["uneven"]
    assert "uneven" not in table("parallel.pp=2")
    assert "uneven" not in table("experiment=glm_130b")


def test_every_schedule_is_put_in_words() -> None:
    assert table("optim.schedule=constant")["learning rate"] == (
        "0 to 0.001 in 409 samples, then constant"
    )
    assert table("optim.schedule=wsd")["learning rate"] == (
        "0 to 0.001 in 409 samples, then constant, over the last 409 samples linear to 0.0001 at 4,096"
    )


def test_the_estimate_of_every_experiment_can_be_made() -> None:
    for experiment in ("default", "glm_10b_1node", "glm_130b", "glm_130b_a100_80g"):
        assert table(f"experiment={experiment}")["model"].startswith(
            f"{load_config([f'experiment={experiment}']).model.num_layers} layers"
        )
