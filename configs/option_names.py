"""Messages with the options of the command that was typed: code that several commands share names the keys of train.

`prepare` takes --tokenizer where train takes data.tokenizer, so its messages must name --tokenizer.
"""

import re
from collections.abc import Mapping


def as_options(text: str, options: Mapping[str, str]) -> str:
    """Replace the keys in a message by a command's options.

    Args:
        text: a message that names keys of train.
        options: the option for each key. Of a key that ends with a full stop only that part is replaced:
            `{"data.special_tokens.": "--special-token "}` turns `data.special_tokens.eos=X` into
            `--special-token eos=X`.

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
