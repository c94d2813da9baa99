"""How a tokenizer is named: KIND:FILE, with special tokens that cannot be found by name as #eos=TEXT&pad=TEXT.

The roles are part of the name, so they go wherever it goes: to workers, into shards, into a run folder. Texts are
percent-encoded, as in an address.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, unquote

from configs.errors import DataError, RecordError
from configs.records import decode, read_file
from data_pipeline.special_roles import ROLES

KINDS = ("hf", "sp", "icetk")
SPECS = "hf:FILE, sp:FILE, icetk:FILE or bytes"

# Names of these roles in the files that Hugging Face keeps beside a tokenizer.
_FOREIGN_ROLES = {"eos": "eos_token", "pad": "pad_token", "mask": "mask_token"}


def split_spec(spec: str) -> tuple[str, str, dict[str, str]]:
    """Kind, file or folder, and texts of named roles."""
    kind, _, name = spec.partition(":")
    file, mark, tail = name.rpartition("#")
    pairs = [part.split("=", 1) for part in tail.split("&")]
    if not mark or any(len(pair) != 2 or pair[0] not in ROLES for pair in pairs):
        return kind, name, {}  # a file's name may have a # of its own
    return kind, file, {role: unquote(text) for role, text in pairs}


def join_spec(kind: str, name: str, named: Mapping[str, str]) -> str:
    """Join what `split_spec` has split; for bytes, which has no file, the kind alone."""
    if not name:
        return kind
    tail = "&".join(f"{role}={quote(named[role], safe='[]<>|')}" for role in ROLES if role in named)
    return f"{kind}:{name}#{tail}" if tail else f"{kind}:{name}"


def with_roles(spec: str, named: Mapping[str, str]) -> str:
    """Name roles of a tokenizer's special tokens, over those that its spec names.

    Raises:
        DataError: it has no file, and so no tokens to name.
    """
    if not named:
        return spec
    kind, name, before = split_spec(spec)
    if not name:
        raise DataError(
            f"The tokenizer {spec} has no special tokens to choose from: its own are used. Leave data.special_tokens out."
        )
    return join_spec(kind, name, {**before, **named})


def spec_in(spec: str, folder: str) -> str:
    """Spec of the same tokenizer when its file lies in `folder`."""
    kind, name, named = split_spec(spec)
    return join_spec(kind, str(Path(folder) / Path(name).name) if name else "", named)


def parse_role(word: str) -> tuple[str, str]:
    """Read ROLE=TEXT, as it is typed.

    Raises:
        DataError: it is not of that form.
    """
    role, equals, text = word.partition("=")
    if not equals or role not in ROLES or not text:
        raise DataError(
            f"--special-token ({word}) must be ROLE=TEXT. Roles: {', '.join(ROLES)}. Try --special-token 'eos=[STOP]'."
        )
    return role, text


def file_in(kind: str, folder: Path) -> Path:
    """The tokenizer's file in a folder of a published model.

    Raises:
        DataError: there is none, or one of several.
    """
    if kind == "hf":
        found = [path for path in [folder / "tokenizer.json"] if path.is_file()]
        wanted = "tokenizer.json"
    else:
        found = sorted(path for path in folder.glob("*.model") if path.is_file())
        wanted = "*.model"
    if len(found) == 1:
        return found[0]
    held = f"has {len(found)} files {wanted}" if found else f"has no {wanted}"
    raise DataError(
        f"The folder {folder} {held}. Name the tokenizer's file: data.tokenizer={kind}:FILE."
    )


def roles_beside(path: Path, find: Callable[[str], int | None]) -> dict[str, str]:
    """Texts of the roles that the files beside a published tokenizer name, as far as its vocabulary has them.

    Raises:
        DataError: such a file cannot be read.
    """
    texts: dict[str, str] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        try:
            stored = decode(read_file(path.parent / name), dict[str, Any], str(path.parent / name))
        except FileNotFoundError:
            continue
        except RecordError as error:
            raise DataError(f"{error} Name the tokenizer's file instead of its folder.") from error
        for role, key in _FOREIGN_ROLES.items():
            value = stored.get(key)
            if isinstance(value, dict):  # an added token, described
                value = cast(dict[str, Any], value).get("content")
            text: Any = value
            if isinstance(text, str) and find(text) is not None:
                texts[role] = text
    if texts.get("pad") in (texts.get("eos"), texts.get("mask")):
        texts.pop("pad", None)  # what fills a row must not look like the end of a document
    return texts


def read_kept_spec(path: Path) -> str:
    """Spec in a file spec.txt.

    Raises:
        FileNotFoundError: there is none.
        RecordError: it is not such a file.
    """
    text = read_file(path, 2**16).decode(errors="replace").strip()
    kind, name, _ = split_spec(text)
    if not text.isprintable() or not (text == "bytes" or (kind in KINDS and name)):
        raise RecordError(
            f"{path} names no tokenizer. Name the one of the run with data.tokenizer={SPECS}."
        )
    return text
