"""The configuration in a checkpoint: what was trained. On which cluster, and for whose account, stays in the run folder.

A checkpoint goes from one cluster to another, and to other people. So `cluster.*` is not written, and what checkpoints of
earlier versions say of it counts for nothing: who reads one has the defaults.
"""

from configs.load import from_yaml, to_stored_yaml
from configs.schema import Config
from configs.yaml_text import parse_yaml, render_yaml

_CLUSTER = "cluster"


def to_checkpoint_yaml(config: Config) -> str:
    """Render what a checkpoint keeps."""
    values = parse_yaml(to_stored_yaml(config))
    del values[_CLUSTER]
    return render_yaml(values)


def from_checkpoint_yaml(text: str) -> Config:
    """Read the configuration of a checkpoint of any version.

    Raises:
        ConfigError: as for `from_yaml`.
    """
    return from_yaml(text, without=_CLUSTER)
