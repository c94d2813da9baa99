"""For all tests: a worker per core, and property tests neither timed (the machine may be busy) nor random."""

from typing import Any

import pytest
from hypothesis import settings

from tests.helpers.workers import group_of, turn_of, workers_for

# Helpers whose assertions compare for tests: a failure shows the values.
pytest.register_assert_rewrite("tests.helpers.rows")

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Set what `-n` and `--dist` would, unless they are given; without pytest-xdist there is nothing to set."""
    option = config.option
    if not config.pluginmanager.hasplugin("xdist") or hasattr(config, "workerinput"):
        return
    if option.numprocesses is None and not option.tx and option.capture != "no":
        option.numprocesses = 0 if option.usepdb else workers_for(config.args)
    if option.numprocesses and option.dist == "no":
        option.dist = "loadscope"
        option.loadscopereorder = False  # the order is ours


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out whole groups, in the order of the collected tests."""
    from xdist.scheduler import LoadScopeScheduling

    class InGroups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return InGroups(config, log) if config.option.dist == "loadscope" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On workers the longest tests come first."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: turn_of(item.nodeid))
