"""The six tokens that blank infilling adds to a vocabulary."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the special tokens in one tokenizer's vocabulary."""

    mask: int
    """[MASK]: a short blank."""
    gmask: int
    """[gMASK]: a long blank at the end."""
    sop: int
    """<sop>: start of a target."""
    eop: int
    """<eop>: end of a target."""
    eos: int
    """<eos>: end of a document."""
    pad: int
    """<pad>: fills up a row; never attended to, never predicted."""

    def to_dict(self) -> dict[str, int]:
        """Plain ids by name."""
        return asdict(self)


# How the tokens are written in text, and the order in which they are appended to a vocabulary that lacks them.
SPECIAL_TEXTS = {
    "mask": "[MASK]",
    "gmask": "[gMASK]",
    "sop": "<sop>",
    "eop": "<eop>",
    "eos": "<eos>",
    "pad": "<pad>",
}

# The seventh token, for runs that hide whole sentences. It is not in SpecialTokens, whose ids shards and checkpoints keep.
SMASK_TEXT = "[sMASK]"

MASK_TEXT, GMASK_TEXT = SPECIAL_TEXTS["mask"], SPECIAL_TEXTS["gmask"]
