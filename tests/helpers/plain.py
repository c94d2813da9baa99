"""Sizes for tests of the configuration: the schema's defaults instead of the default run's.

The default run changes with every measurement; what the checks say about given numbers does not.
"""

from collections.abc import Iterator

import pytest
from omegaconf import DictConfig, OmegaConf

import configs.load
from configs.schema import ModelConfig, OptimConfig


@pytest.fixture(autouse=True)
def schema_sizes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let `model=tiny` and `optim=tiny` change nothing."""
    compose = configs.load._compose

    def plain(choices: dict[str, str]) -> DictConfig:
        composed = compose(choices)
        if not {"experiment", "model"} & choices.keys():
            composed.model = OmegaConf.structured(ModelConfig)
        if not {"experiment", "optim"} & choices.keys():
            composed.optim = OmegaConf.structured(OptimConfig)
        return composed

    monkeypatch.setattr(configs.load, "_compose", plain)
    yield
