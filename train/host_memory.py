"""Memory that a CPU run frees is kept for its next tensors.

glibc returns large blocks to the kernel at once. A training step frees and takes the same blocks again and again, and each
time the kernel fills them with zeros, page by page: a tenth of a step of 8 layers of width 512, and most of the time of its
activation functions. The process keeps as much memory as its largest step took, which it takes again in the next step.
"""

import ctypes
import os

# <malloc.h>
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# glibc's own variables: the user has chosen.
_CHOICES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
# The largest that a C int holds, and half of it.
_KEPT, _LARGE = (1 << 31) - 1, 1 << 30


def keep_freed_memory() -> bool:
    """Let the C library keep freed blocks of up to 1 GiB; True if it does from now on.

    Does nothing with a C library other than glibc, or where the user has set glibc's own variables.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None or any(name in os.environ for name in _CHOICES):
        return False
    return bool(set_option(_TRIM_THRESHOLD, _KEPT)) and bool(set_option(_MMAP_THRESHOLD, _LARGE))
