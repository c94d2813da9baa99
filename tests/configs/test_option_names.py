"""Messages of shared code name what the command at hand takes."""

from configs.option_names import as_options

OPTIONS = {"data.special_tokens.": "--special-token ", "data.tokenizer": "--tokenizer"}


def test_keys_become_options_with_their_values() -> None:
    text = "Type data.tokenizer=hf:FILE and data.special_tokens.eos=X. Check data.tokenizer."
    told = "Type --tokenizer hf:FILE and --special-token eos=X. Check --tokenizer."
    assert as_options(text, OPTIONS) == told


def test_other_names_stay() -> None:
    text = "my.data.tokenizer=1 data.tokenizers data.tokenizer.json data.paths=[x]"
    assert as_options(text, OPTIONS) == text
