"""Killing a process at a chosen moment of its work."""

import os
import signal
import traceback
from collections.abc import Callable


def run_forked(work: Callable[[], None]) -> int:
    """Run `work` in a child of this process; returns its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class KilledAtCall:
    """Wraps functions so that the process kills itself before the n-th call of any of them.

    Args:
        number: of the call, from 1.
    """

    def __init__(self, number: int) -> None:
        self._left = number

    def wrap(self, owner: object, name: str) -> None:
        """Replace `owner.name`, which is never put back: for use in a forked child."""
        original = getattr(owner, name)

        def wrapped(*arguments: object, **options: object) -> object:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        setattr(owner, name, wrapped)
