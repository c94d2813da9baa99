"""Is a part of NVIDIA Apex usable? Only its compiled extensions tell.

Apex installed without them has all its packages and fails at the first use; an extension that was built for another
PyTorch fails to be imported; and `pip install apex` is an unrelated package.
"""

import importlib


def is_usable(extension: str, module: str) -> bool:
    """True if a compiled extension of Apex and the module over it can be imported.

    Args:
        extension: top-level name, such as "amp_C".
        module: such as "apex.optimizers".
    """
    try:
        # The extension first: the unrelated package has none and is not imported.
        importlib.import_module(extension)
        importlib.import_module(module)
    except ImportError:
        return False
    return True
