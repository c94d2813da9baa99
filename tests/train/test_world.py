"""Reading the launcher's environment."""

import pytest

from configs.errors import ConfigError
from train.world import World


def test_without_a_launcher_it_is_one_process() -> None:
    assert World.from_environment({"PATH": "/bin"}) == World(0, 0, 1, "none")


def test_torchrun_is_recognised() -> None:
    variables = {
        "RANK": "5",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "8",
        "TORCHELASTIC_RUN_ID": "x",
    }
    assert World.from_environment(variables) == World(5, 1, 8, "torchrun")


def test_srun_is_recognised_only_inside_a_step_of_several_tasks() -> None:
    variables = {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NTASKS": "4"}
    assert World.from_environment(variables).size == 1  # the batch script itself
    variables["SLURM_STEP_ID"] = "0"
    assert World.from_environment(variables) == World(3, 1, 4, "slurm")


def test_half_an_environment_is_an_error_that_says_what_to_type() -> None:
    with pytest.raises(ConfigError, match="LOCAL_RANK not set.*torchrun --standalone"):
        World.from_environment({"RANK": "0", "WORLD_SIZE": "2"})
