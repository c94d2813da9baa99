"""Which token of a vocabulary has which role: an existing token with a known name, otherwise one that is added."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from configs.errors import DataError
from data_pipeline.special_tokens import SMASK_TEXT, SPECIAL_TEXTS, SpecialTokens

ROLES = (*SPECIAL_TEXTS, "smask")

# Names of these two tokens in other vocabularies.
_OTHER_NAMES = {"eos": ("</s>", "<|endoftext|>", "<eod>"), "pad": ("[PAD]", "<|pad|>")}


@dataclass(frozen=True)
class Roles:
    """The special tokens of one tokenizer."""

    special: SpecialTokens
    smask: int
    """[sMASK]: the vocabulary's own, or the first id after it, `vocab_size`."""
    vocab_size: int
    """One more than the largest id, special tokens included."""
    texts: dict[str, str]
    """How the vocabulary writes the tokens that are its own, by role; the other roles were added."""

    @property
    def own_ids(self) -> frozenset[int]:
        """Ids of the vocabulary that have a role: those that a text must never become."""
        ids = {**self.special.to_dict(), "smask": self.smask}
        return frozenset(ids[role] for role in self.texts)

    @property
    def names(self) -> dict[int, str]:
        """How a special token is written in text, by id."""
        written = {token: SPECIAL_TEXTS[role] for role, token in self.special.to_dict().items()}
        return {**written, self.smask: SMASK_TEXT}


def assign_roles(
    find: Callable[[str], int | None],
    size: int,
    named: Mapping[str, str],
    unknown: str | None = None,
) -> Roles:
    """Give every role an id.

    Args:
        find: id of a token's text; None: the vocabulary lacks it.
        size: one more than the largest id of the vocabulary.
        named: texts of tokens by role, for roles that cannot be found by name.
        unknown: text of the token for words outside of the vocabulary.

    Raises:
        DataError: a role is unknown, its token is not in the vocabulary or can come from text, or a token has two
            roles.
    """
    texts = dict(named)
    for role, text in named.items():
        if text == unknown:
            raise DataError(
                f"{text} cannot be {role}: it is what this tokenizer writes for unknown words. Name another token with "
                f"data.special_tokens.{role}=TEXT, or leave that out."
            )
    ids = {role: _named(find, role, text) for role, text in named.items()}
    if len(set(ids.values())) < len(ids):
        listed = ", ".join(f"{role}={text}" for role, text in named.items())
        raise DataError(
            f"One token cannot have two roles ({listed}). Leave one of them out: it gets a token of its own."
        )
    taken = set(ids.values())
    for role, text in SPECIAL_TEXTS.items():
        if role in ids:
            continue
        for other in (text, *_OTHER_NAMES.get(role, ())):
            token = find(other)
            if token is not None and token not in taken:
                ids[role], texts[role] = token, other
                break
        ids.setdefault(role, size)
        size = max(size, ids[role] + 1)
    if "smask" not in ids:
        token = find(SMASK_TEXT)
        if token is not None and token not in taken:
            ids["smask"], texts["smask"] = token, SMASK_TEXT
    smask = ids.pop("smask", size)
    return Roles(SpecialTokens(**ids), smask, size, texts)


def describe_roles(roles: Roles) -> str:
    """Which token has which role, in one line."""
    ids = {**roles.special.to_dict(), "smask": roles.smask}
    parts: list[str] = []
    for role, name in {**SPECIAL_TEXTS, "smask": SMASK_TEXT}.items():
        text = roles.texts.get(role)
        if text is None:
            if role != "smask":
                parts.append(f"{name} {ids[role]} (added)")
        else:
            parts.append(f"{name} {ids[role]}" if text == name else f"{name} {ids[role]} ({text})")
    return ", ".join(parts)


def _named(find: Callable[[str], int | None], role: str, text: str) -> int:
    if role not in ROLES:
        raise DataError(f"{role} is not a role of a special token. Roles: {', '.join(ROLES)}.")
    token = find(text)
    if token is None:
        raise DataError(
            f'The tokenizer has no token "{text}" to be {role}. Name one of its vocabulary with '
            f"data.special_tokens.{role}=TEXT, or leave that out: one is added."
        )
    return token
