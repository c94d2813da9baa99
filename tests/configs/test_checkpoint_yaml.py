"""The configuration in a checkpoint says nothing of a cluster, and reads nothing of one."""

from dataclasses import replace

import pytest

from configs.checkpoint_yaml import from_checkpoint_yaml, to_checkpoint_yaml
from configs.errors import ConfigError
from configs.load import from_yaml, load_config, to_stored_yaml
from configs.schema import ClusterConfig

WORDS = ["experiment=glm_130b", "cluster.account=mine", "cluster.environment=[A=b]", "optim.eps=0"]


def test_everything_but_the_cluster_is_kept() -> None:
    config = load_config(WORDS)
    text = to_checkpoint_yaml(config)
    assert "mine" in to_stored_yaml(config)
    assert "cluster" not in text and "mine" not in text and "A=b" not in text
    assert from_checkpoint_yaml(text) == replace(config, cluster=ClusterConfig())


@pytest.mark.parametrize(
    "cluster",
    ["cluster:\n  account: mine\n  nodes: 96\n", "cluster:\n  key_of_old: 1\n", "cluster: 7\n"],
)
def test_what_an_older_checkpoint_says_of_a_cluster_counts_for_nothing(cluster: str) -> None:
    text = to_checkpoint_yaml(load_config(WORDS))
    assert from_checkpoint_yaml(text + cluster) == from_checkpoint_yaml(text)


def test_other_unknown_keys_and_interpolations_are_refused_as_ever() -> None:
    for text in ("models: 7\n", "cluster:\n  account: ${oc.env:HOME}\n"):
        with pytest.raises(ConfigError):
            from_checkpoint_yaml(text)
    with pytest.raises(ConfigError):
        from_yaml("cluster:\n  key_of_old: 1\n")
