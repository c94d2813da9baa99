"""A `tokenizer.json` of the Hugging Face tokenizers library."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from configs.errors import DataError
from data_pipeline.special_roles import assign_roles
from data_pipeline.tokenizer_parts import Decoder, fingerprint_of, read_tokenizer_file


class HuggingFaceTokenizer:
    """See data_pipeline.tokenizer.Tokenizer."""

    def __init__(self, path: Path, spec: str, named: Mapping[str, str]) -> None:
        self.spec = spec
        content = read_tokenizer_file(path)
        self._tokenizer, self._continuing, self.notes = _load(path, content)
        # The largest id, not the count: published vocabularies have gaps.
        size = max(self._tokenizer.get_vocab().values(), default=-1) + 1
        self._unknown: str | None = getattr(self._tokenizer.model, "unk_token", None)
        self.roles = assign_roles(self._tokenizer.token_to_id, size, named, self._unknown)
        usual = assign_roles(self._tokenizer.token_to_id, size, {})
        self.special, self.smask = self.roles.special, self.roles.smask
        self.vocab_size = self.roles.vocab_size
        self.fingerprint = fingerprint_of("hf", content, self.roles, usual)
        self._guarded = self.roles.own_ids
        self._spelled = {token: self._spell(token) for token in self._guarded}
        self._decoder = Decoder(self._plain, self.roles, self.encode("a"))

    def find(self, text: str) -> int | None:
        """Id of a token that may have a role."""
        return None if text == self._unknown else self._tokenizer.token_to_id(text)

    def encode(self, text: str, is_continuation: bool = False) -> list[int]:
        """See Tokenizer."""
        return self._apart(text, self._continuing if is_continuation else self._tokenizer)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """See Tokenizer."""
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [
            ids if self._guarded.isdisjoint(ids) else self.encode(text)
            for text, ids in zip(texts, (encoding.ids for encoding in encoded), strict=True)
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """See Tokenizer."""
        return self._decoder.decode(ids)

    def decode_span(self, ids: Sequence[int], follows: bool) -> str:
        """See Tokenizer."""
        return self._decoder.decode(ids, follows=follows)

    def _plain(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False)

    def _apart(self, text: str, tokenizer: tokenizers.Tokenizer) -> list[int]:
        """Encode a text; what would become a special token is cut inside, wherever a normaliser finds it."""
        encoding = tokenizer.encode(text, add_special_tokens=False)
        ids: list[int] = encoding.ids
        if self._guarded.isdisjoint(ids):
            return ids
        found = [
            place
            for token, place in zip(ids, encoding.offsets, strict=True)
            if token in self._guarded
        ]
        cuts = sorted({begin + 1 for begin, end in found if end - begin > 1})
        if not cuts:  # a single character that the normaliser turns into a marker
            return [part for token in ids for part in self._spelled.get(token, [token])]
        ids = self._apart(text[: cuts[0]], tokenizer)
        for begin, end in zip(cuts, [*cuts[1:], len(text)], strict=True):
            ids = ids + self._apart(text[begin:end], self._continuing)
        return ids

    def _spell(self, token: int) -> list[int]:
        """Ordinary ids that write a special token's text.

        Raises:
            DataError: there is no other way to write it.
        """
        text = self._tokenizer.id_to_token(token) or ""
        ids = [
            part
            for piece in text
            for part in self._continuing.encode(piece, add_special_tokens=False).ids
        ]
        if len(text) < 2 or not self._guarded.isdisjoint(ids):
            raise DataError(
                f'{self.spec} has no other way to write "{text}" than the token itself, which a text must not become. '
                "Give that role to another token."
            )
        return ids


def _load(
    path: Path, content: bytes
) -> tuple[tokenizers.Tokenizer, tokenizers.Tokenizer, list[str]]:
    """The tokenizer, the same one for a text that continues another, and what was changed of it."""
    try:
        state: Any = json.loads(content)
        notes = _make_exact(state)
        first = _ready(json.dumps(state) if notes else content.decode())
        parts = {name: _within(state.get(name)) for name in ("normalizer", "pre_tokenizer")}
        if all(part == state.get(name) for name, part in parts.items()):
            return first, first, notes
        return first, _ready(json.dumps({**state, **parts})), notes
    except (KeyboardInterrupt, SystemExit):
        raise
    # The library raises bare Exception, and its panics are not even an Exception.
    except BaseException as error:
        raise DataError(f"{path} is not a tokenizer.json ({error}).") from error


def _ready(state: str) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer.from_str(state)
    # A published file may cut at 512 tokens, fill up, and turn "[MASK]" in a text into the token.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    tokenizer.encode("a b", add_special_tokens=False)  # some faults only show here
    return tokenizer


def _make_exact(state: dict[str, Any]) -> list[str]:
    """Switch off what makes tokenization random."""
    dropout = state["model"].get("dropout")
    if not dropout:
        return []
    state["model"]["dropout"] = None
    return [
        f"its BPE dropout of {dropout} is switched off, so that a text has the same tokens each time"
    ]


def _within(part: Any) -> Any:
    """A normaliser or pre-tokenizer that treats the beginning of a text like its middle."""
    kind = part["type"] if part else None
    if kind == "Prepend":
        return None
    if kind == "Metaspace":
        # Its older name, which would be read too, is add_prefix_space.
        return {"type": kind, "replacement": part["replacement"], "prepend_scheme": "never"} | {
            key: part[key] for key in ("split",) if key in part
        }
    if kind == "ByteLevel":
        return {**part, "add_prefix_space": False}
    if kind == "Strip":
        return {**part, "strip_left": False}
    if kind == "Sequence":
        name = "normalizers" if "normalizers" in part else "pretokenizers"
        inner = [_within(each) for each in part[name]]
        return {**part, name: [each for each in inner if each is not None]}
    return part
