"""The configuration in a checkpoint, which leaves out the cluster; the run folder keeps that.

Checkpoints are copied to other clusters and given to other people. So `cluster.*` is not written, and in checkpoints of
earlier versions it is ignored: reading one gives its defaults.
"""

from configs.load import from_yaml, to_stored_yaml
from configs.schema import Config
from configs.yaml_text import parse_yaml, render_yaml

_CLUSTER = "cluster"


def to_checkpoint_yaml(config: Config) -> str:
    """Render the configuration without `cluster.*`."""
    values = parse_yaml(to_stored_yaml(config))
    del values[_CLUSTER]
    return render_yaml(values)


def from_checkpoint_yaml(text: str) -> Config:
    """Read the configuration of a checkpoint of any version.

    Raises:
        ConfigError: as for `from_yaml`.
    """
    return from_yaml(text, without=_CLUSTER)
