"""How many nodes a run goes on with: the published figures, and every batch still to come divides."""

import json
from pathlib import Path

import pytest

from configs import derive
from configs.errors import ConfigError, UserError
from configs.load import load_config
from launch.layout import layout, node_counts


def values(*words: str) -> dict[str, int]:
    return {
        name: int(value)
        for name, _, value in (line.partition("=") for line in layout([*words]).splitlines())
    }


def run_at(folder: Path, samples_seen: int) -> Path:
    (folder / "status.json").write_text(json.dumps({"samples_seen": samples_seen}))
    return folder


@pytest.mark.parametrize(
    "there, samples_seen, nodes, dp",
    [
        (96, 0, 96, 24),
        (95, 0, 48, 12),  # the ramp visits batches that 22 does not divide
        (95, 5_494_584, 88, 22),  # 4224 = 22 x 192
        (96, 5_494_584, 96, 24),
        (87, 5_494_584, 64, 16),
    ],
)
def test_glm_130b_on_the_nodes_that_are_left(
    there: int, samples_seen: int, nodes: int, dp: int, tmp_path: Path
) -> None:
    run = run_at(tmp_path, samples_seen)
    found = values("experiment=glm_130b", f"--nodes={there}", "--run", str(run))
    assert found == {
        "nodes": nodes,
        "ranks": 8 * nodes,
        "ranks_per_node": 8,
        "dp": dp,
        "samples_seen": samples_seen,
    }


def test_every_number_of_nodes_divides_every_batch_still_to_come() -> None:
    config = load_config(["experiment=glm_130b"])
    levels = derive.ramp_levels(config.optim)
    for first, counts in node_counts(config):
        assert counts == sorted(counts, reverse=True)
        for nodes in range(1, config.cluster.nodes + 1):
            dp, rest = divmod(nodes * 8, 32)
            works = rest == 0 and all(
                level.batch_size % dp == 0 for level in levels if level.first_sample >= first
            )
            assert works == (nodes in counts)


def test_too_few_nodes_are_refused_with_the_number_that_works(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--nodes \(3\) is too few: the run needs 4 nodes"):
        layout(["experiment=glm_130b", "--nodes", "3", "--run", str(tmp_path)])


def test_a_new_run_and_no_options_give_the_whole_cluster(tmp_path: Path) -> None:
    assert values("experiment=glm_130b", f"run.dir={tmp_path}")["nodes"] == 96


def test_a_status_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"samples_seen": "many"}')
    with pytest.raises(UserError, match=r"status\.json is damaged"):
        values("--run", str(tmp_path))
