"""GLM-130B's vocabulary: what its tokenizer adds to `ice_text.model`, and how it writes whitespace.

Ids 0 to 19,999 are image tokens (text never has them), then come the 130,000 pieces of the SentencePiece file, then
the special tokens, one piece for a tab and one for every run of 2 to 80 blanks. The released weights were trained
without byte fallback, whose pieces later versions of the original put behind these.
"""

import struct

from data_pipeline.special_tokens import SpecialTokens

OFFSET = 20_000
NUM_PIECES = 130_000
_LONGEST_RUN = 80
_TAB = "<|tab|>"
_NEWLINE = "<n>"
_SPECIAL_PIECES = ("[MASK]", "[gMASK]", "[sMASK]", "<eod>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>")
_WHITESPACE_PIECES = (_TAB, *(f"<|blank_{length}|>" for length in range(2, _LONGEST_RUN + 1)))

# The end of a document is the file's own </s>; padding is an image token.
SPECIAL = SpecialTokens(mask=150_000, gmask=150_001, sop=150_004, eop=150_005, eos=20_002, pad=0)
SMASK = 150_002
# How the file writes them, by role; padding has no text.
ROLE_TEXTS = {
    "mask": "[MASK]",
    "gmask": "[gMASK]",
    "sop": "<sop>",
    "eop": "<eop>",
    "eos": "</s>",
    "smask": "[sMASK]",
}
# 150,088; the released weights have 150,528 rows, of which the others were never used.
VOCAB_SIZE = OFFSET + NUM_PIECES + len(_SPECIAL_PIECES) + len(_WHITESPACE_PIECES)

# SentencePiece's ModelProto.SentencePiece.Type.
_CONTROL = 3
_USER_DEFINED = 4


def with_added_pieces(model: bytes) -> bytes:
    """Append GLM-130B's own pieces to a SentencePiece model file.

    The file is one protocol buffer whose pieces are a repeated field, so that appended bytes are appended pieces:
    neither protobuf nor the schema is needed. Special tokens are control pieces, which no text can produce.
    """
    added = [serialised_piece(text, _CONTROL) for text in _SPECIAL_PIECES]
    added += [serialised_piece(text, _USER_DEFINED) for text in _WHITESPACE_PIECES]
    return model + b"".join(added)


def serialised_piece(text: str, kind: int, score: float = 0.0) -> bytes:
    """One entry of ModelProto.pieces: field 1 of the file, holding piece (1), score (2) and type (3)."""
    piece = text.encode()
    assert len(piece) < 100, "lengths are written in one byte"
    message = bytes([0x0A, len(piece)]) + piece
    message += b"\x15" + struct.pack("<f", score)
    message += bytes([0x18, kind])
    return bytes([0x0A, len(message)]) + message


def mark_whitespace(text: str) -> str:
    """Write newlines, tabs and runs of blanks as their pieces; longest runs first."""
    text = text.replace("\n", _NEWLINE).replace("\t", _TAB)
    if "  " in text:
        for length in range(_LONGEST_RUN, 1, -1):
            text = text.replace(" " * length, f"<|blank_{length}|>")
    return text


def unmark_whitespace(text: str) -> str:
    """Replace the pieces that `mark_whitespace` writes by the white space they stand for."""
    text = text.replace(_NEWLINE, "\n").replace(_TAB, "\t")
    if "<|blank_" in text:
        for length in range(_LONGEST_RUN, 1, -1):
            text = text.replace(f"<|blank_{length}|>", " " * length)
    return text
