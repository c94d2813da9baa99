"""Ending the process without taking Python's and the libraries' objects apart, which takes longer than loading them.

Everything that is to happen at the end still does: threads that are not daemons are waited for, whatever is registered
with atexit runs (logging, wandb, coverage, multiprocessing), and what was printed is flushed. The last step alone is
left out, in which thousands of modules are deleted one by one.
"""

import atexit
import contextlib
import os
import sys


def end_fast(code: int) -> None:
    """Let this process end fast with an exit code, once its main program has returned.

    The program's last statement but `sys.exit`: nothing may be registered with atexit after it.
    """

    def end() -> None:
        atexit.unregister(end)
        atexit._run_exitfuncs()  # those that were registered before
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # closed, or nobody reads it
                stream.flush()
        os._exit(code)

    # The last to be registered is the first to run: by then threads have ended, and a profiler around the main program
    # has written what it found.
    atexit.register(end)
