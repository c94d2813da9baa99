"""What CUDA, its libraries, PyTorch's allocator and its profiler read from the environment, once, when they start.

So it is set before PyTorch is imported, on machines without a GPU as well, where nobody reads it. What the user has set
stays.
"""

import os
from collections.abc import MutableMapping
from importlib import metadata

# PyTorch before 2.9 knows the former name only; both are a user's choice.
_ALLOCATOR, _FORMER_ALLOCATOR = "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"


def prepare_cuda(
    environment: MutableMapping[str, str] | None = None, torch_version: str | None = None
) -> None:
    """Set the variables that are not set yet.

    Args:
        environment: to change; None: this process's.
        torch_version: None: the installed one.
    """
    variables = os.environ if environment is None else environment
    version = metadata.version("torch") if torch_version is None else torch_version
    # Megatron-core 0.16 asks for this on GPUs before Blackwell when tensor parallelism is used.
    variables.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    # Lets deterministic matrix products run where the run asks for them.
    variables.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # The profiler's library would print a line of its own whenever a trace begins and ends.
    variables.setdefault("KINETO_LOG_LEVEL", "99")
    is_chosen = _ALLOCATOR in variables or _FORMER_ALLOCATOR in variables
    if not is_chosen and "rocm" not in version:  # PyTorch has no such segments on AMD's GPUs
        # The number of targets, and with it the size of the logits, differs between micro-batches, which leaves gaps in
        # segments of a fixed size.
        major, minor = (int(part) for part in version.split(".")[:2])
        name = _ALLOCATOR if (major, minor) >= (2, 9) else _FORMER_ALLOCATOR
        variables[name] = "expandable_segments:True"
