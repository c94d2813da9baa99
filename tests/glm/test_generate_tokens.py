"""A text with blanks is tokenized as training tokenizes the text around them."""

from pathlib import Path

from data_pipeline.tokenizer import load_tokenizer
from glm.generate import Blanks
from tests.helpers.texts import sentencepiece_model


def test_text_behind_a_blank_has_the_tokens_of_training(tmp_path: Path):
    path = tmp_path / "prefix.model"
    path.write_bytes(sentencepiece_model(remove_extra_whitespaces=False))
    tokenizer = load_tokenizer(f"sp:{path}")
    blanks = Blanks.from_text("the cat[MASK] on a[MASK] mat", tokenizer)
    whole, mask = tokenizer.encode("the cat sat on a red mat"), tokenizer.special.mask
    hidden = [tokenizer.encode(word, is_continuation=True) for word in (" sat", " red")]
    first, second = blanks.blank_positions
    between = blanks.context[first + 1 : second]
    filled = [*blanks.context[:first], *hidden[0], *between, *hidden[1]]
    assert [*filled, *blanks.context[second + 1 :]] == whole
    assert blanks.context[first] == blanks.context[second] == mask
    assert tokenizer.decode(blanks.context) == "the cat[MASK] on a[MASK] mat"
