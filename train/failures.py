"""What an error that ends a process means: the user's to correct (2), a peer's, a device's or a file system's (3), a bug (1).

Launchers start a run again after 3 and after nothing else, so what may pass by itself must not look like a user's mistake.
"""

import errno
import traceback

from configs.errors import (
    EXIT_BUG,
    EXIT_PEER_FAILED,
    EXIT_USER_INPUT,
    DistributedError,
    RankError,
    StorageError,
    UserError,
)
from train.memory_phase import phase_of
from train.world import World, node_name

# Words in the errors of gloo and NCCL when a peer is gone, and in PyTorch's errors when a device has failed.
_PEER_SIGNS = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "NCCL",
    "gloo",
)
_DEVICE_SIGNS = ("CUDA error", "uncorrectable ECC")
# An index outside its tensor: the same data and weights cause it again, on every device.
_ASSERT_SIGNS = ("device-side assert",)
# CUDA's and HIP's allocators, the CPU's, and the libraries that allocate for themselves.
_MEMORY_SIGNS = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# A wrong path or call fails again the next time; an error without a number is not the file system's.
_WRONG = (
    None,
    errno.ENOENT,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.EBADF,
)

_MEMORY_ADVICE = (
    "Type the same command with a smaller optim.micro_batch_size, with parallel.recompute=full, with a larger "
    "parallel.tp, parallel.pp or parallel.zero_stage, or on more devices: it continues from the last checkpoint. "
    "python -m launch estimate shows what each takes. If there should be enough, look for another process on that device."
)


def is_full(error: OSError) -> bool:
    """True if the disk is full, or this user's quota is used up."""
    return error.errno in _FULL


def may_pass(error: OSError) -> bool:
    """True if a file system has failed, so that a later start, perhaps on another node, may do better."""
    return error.errno not in (*_FULL, *_WRONG)


def is_out_of_memory(error: BaseException) -> bool:
    """True if a device or this machine has no memory left."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or _mentions(error, _MEMORY_SIGNS)


def verdict(error: Exception, world: World) -> tuple[int, str]:
    """The exit code for an error, and what this process says; "" if it leaves that to rank 0."""
    who = f"[rank {world.rank} on {node_name()}]"
    if isinstance(error, StorageError):
        return EXIT_PEER_FAILED, f"{who} {error}"
    if isinstance(error, UserError):
        reports = world.is_main or isinstance(error, RankError)
        return EXIT_USER_INPUT, str(error) if reports else ""
    if isinstance(error, DistributedError):
        return EXIT_PEER_FAILED, str(error)
    if is_out_of_memory(error):
        when = " ".join(filter(None, ("ran out of memory", phase_of(error))))
        return EXIT_USER_INPUT, f"{who} {when}{_first_words(error)}. {_MEMORY_ADVICE}"
    if isinstance(error, OSError) and is_full(error):
        return EXIT_USER_INPUT, f"{who} {error}. Make room, then type the same command again."
    if isinstance(error, OSError) and may_pass(error):
        return EXIT_PEER_FAILED, f"{who} a file system failed: {error}\n{traceback.format_exc()}"
    if _is_of_torch_distributed(error) or (world.size > 1 and _mentions(error, _PEER_SIGNS)):
        return EXIT_PEER_FAILED, f"{who} lost a peer: {str(error).partition(chr(10))[0]}"
    if _mentions(error, _DEVICE_SIGNS) and not _mentions(error, _ASSERT_SIGNS):
        return EXIT_PEER_FAILED, f"{who} its device failed\n{traceback.format_exc()}"
    return EXIT_BUG, f"{who}\n{traceback.format_exc()}"


def _first_words(error: BaseException) -> str:
    """The first sentence of what PyTorch says, which names what was asked for."""
    words = str(error).partition("\n")[0].split(". ")
    return f" ({'. '.join(words[:2]).rstrip('.')})" if any(words) else ""


def _mentions(error: BaseException, signs: tuple[str, ...]) -> bool:
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


def _is_of_torch_distributed(error: Exception) -> bool:
    # By name, for the error may have come before PyTorch was imported, which takes seconds.
    return any(kind.__name__ == "DistError" for kind in type(error).__mro__)
