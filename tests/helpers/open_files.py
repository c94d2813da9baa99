"""A limit of open files that means the same in every test process, however many files that holds."""

import gc
import os
import resource


def limit_open_files(soft: int, hard: int) -> None:
    """Close what this process inherited beyond the standard streams, and set its limits.

    For a forked child that ends with its work: a test runner's own open files would count otherwise.
    """
    gc.freeze()  # an inherited file that is collected later would close a new one of its number
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
