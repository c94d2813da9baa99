"""Garbage is collected between steps, and Python is left as it was."""

import gc
import logging
import weakref

import pytest

from train.collection import collecting_between_steps
from train.engine.stages import quiet


class Node:
    """Refers to itself, so that only a collection frees it."""

    def __init__(self) -> None:
        self.me = self


def test_cycles_are_freed_after_a_step_and_not_before() -> None:
    with collecting_between_steps() as collect:
        assert not gc.isenabled() and gc.get_freeze_count() > 0
        young = weakref.ref(Node())
        assert young() is not None
        collect(1)
        assert young() is None
        old = Node()
        gone = weakref.ref(old)
        for step in range(2, 6):
            collect(step)
        del old
        collect(6)
        collect(100)
        assert gone() is None
    assert gc.isenabled() and gc.get_freeze_count() == 0


def test_python_is_as_before_after_an_error_too() -> None:
    gc.disable()
    try:
        with pytest.raises(ValueError), collecting_between_steps():
            raise ValueError
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_no_garbage_is_collected_for_the_memory_reports_of_libraries() -> None:
    before = gc.collect
    with pytest.raises(KeyError), quiet():
        assert gc.collect() == 0
        assert gc.collect is not before
        raise KeyError
    assert gc.collect is before


def test_only_errors_of_deepspeed_are_shown_while_an_engine_is_built() -> None:
    logger = logging.getLogger("DeepSpeed")
    before = logger.level
    with pytest.raises(KeyError), quiet():
        assert not logger.isEnabledFor(logging.WARNING) and logger.isEnabledFor(logging.ERROR)
        raise KeyError
    assert logger.level == before
