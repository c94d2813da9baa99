"""The clusters that tests share: started once, of two and of four nodes."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.slurm.cluster import Cluster, why_impossible


@pytest.fixture(scope="session")
def four_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that the tests leave as they find it."""
    reason = why_impossible()
    if reason is not None:
        pytest.skip(reason)
    cluster = Cluster(tmp_path_factory.mktemp("slurm"), 4)
    with contextlib.ExitStack() as ending:
        ending.callback(cluster.stop)
        yield cluster.start()
