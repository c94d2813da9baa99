"""Steps and ranks of the profiler."""

import pytest

from configs.errors import ConfigError
from configs.load import load_config


@pytest.mark.parametrize("steps", ["[5,3]", "[0,3]", "[1]", "[1,2,3]", "[-2,-1]", "[]"])
def test_steps_that_are_not_a_range(steps: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config([f"log.profile_steps={steps}"])
    assert "must be two steps, the first at least 1" in str(error.value)


@pytest.mark.parametrize("steps", ["[1,1]", "[100,103]", "null"])
def test_steps_that_are(steps: str) -> None:
    load_config([f"log.profile_steps={steps}"])


@pytest.mark.parametrize("ranks", ["[4]", "[0,7]", "[-1]"])
def test_a_rank_that_does_not_exist_is_told_at_the_start(ranks: str) -> None:
    words = ["log.profile_steps=[2,3]", f"log.profile_ranks={ranks}", "optim.micro_batch_size=1"]
    load_config(words)  # how many there will be is not known
    with pytest.raises(ConfigError) as error:
        load_config(words, 4)
    assert "must be ranks of this start, 0 to 3" in str(error.value)
    load_config([*words, "log.profile_steps=null"], 4)
