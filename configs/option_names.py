"""Messages in the words of the command at hand: code that several commands share names the keys of train.

`prepare` takes --tokenizer where train takes data.tokenizer: whoever typed the one is not told of the other.
"""

import re
from collections.abc import Mapping


def as_options(text: str, options: Mapping[str, str]) -> str:
    """Write a command's options where a message names keys.

    Args:
        text: a message that names keys of train.
        options: by key; of a key that ends with a full stop, the rest stays: `{"data.special_tokens.":
            "--special-token "}` makes `data.special_tokens.eos=X` to `--special-token eos=X`.

    Returns:
        The message with `--option value` for `key=value`, and `--option` for the key alone.
    """
    for key, option in options.items():
        named = rf"(?<![\w.]){re.escape(key)}"
        if key.endswith("."):
            text = re.sub(named, lambda _, option=option: option, text)
            continue
        text = re.sub(rf"{named}=", lambda _, option=option: f"{option} ", text)
        text = re.sub(rf"{named}(?!\.?\w)", lambda _, option=option: option, text)
    return text
