"""A run that continues on another cluster: checkpoints name no cluster, and nothing of it is compared."""

import json
from pathlib import Path

import pytest

from configs.load import from_yaml
from configs.run_checkpoints import committed
from configs.run_paths import RunPaths
from tests.helpers.checkpoints import forge
from tests.helpers.whole_runs import command, run_attempt

HERE = ("cluster.account=mine", "cluster.partition=gpu", "cluster.restart_minutes=7")
THERE = ("cluster.account=theirs", "cluster.time=2:00:00", "cluster.peak_tflops=100")


def manifests(run: Path) -> dict[Path, str]:
    """The configuration in each checkpoint's manifest, oldest first."""
    folders = sorted(committed(RunPaths(run).checkpoints))
    return {
        folder: json.loads((folder / "manifest.json").read_text())["config"] for folder in folders
    }


@pytest.mark.parametrize("is_of_old", [False, True])
@pytest.mark.parametrize("is_lost", [False, True])
def test_nothing_is_said_of_another_cluster(tmp_path: Path, is_of_old: bool, is_lost: bool) -> None:
    run = tmp_path / "run"
    words = command(tmp_path, f"run.dir={run}", "checkpoint.save_every_samples=48")
    assert run_attempt(1, (*words, *HERE, "run.stop_after_samples=48")) == [75]
    stored = from_yaml((run / "config.yaml").read_text()).cluster
    assert (stored.account, stored.partition) == ("mine", "gpu")
    for folder, config in manifests(run).items():
        assert "cluster" not in config and "mine" not in config
        if is_of_old:  # versions before this one wrote the whole
            forge(
                folder, config=f"{config}cluster:\n  account: mine\n  nodes: 1\n  key_of_old: 1\n"
            )
    if is_lost:
        (run / "config.yaml").unlink()
    assert run_attempt(1, (*words, *THERE)) == [0]
    events = [json.loads(line) for line in (run / "events.jsonl").open()]
    assert [event["event"] for event in events].count("resume") == 1
    assert "config_change" not in {event["event"] for event in events}
    log = (run / "log.txt").read_text()
    assert "cluster." not in log and "mine" not in log
    assert from_yaml((run / "config.yaml").read_text()).cluster.account == "theirs"
    assert "theirs" not in list(manifests(run).values())[-1]
