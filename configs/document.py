"""docs/configuration.md from the schema:  python -m configs.document > docs/configuration.md

The docstring under each field of configs/schema is its documentation, so that each text is written once.
"""

import ast
import sys
from dataclasses import is_dataclass
from enum import Enum
from functools import lru_cache
from importlib import resources
from typing import Any, NamedTuple, cast, get_args, get_type_hints

from configs.bounds import bounds_of
from configs.schema import Config


class Key(NamedTuple):
    """One key of the configuration."""

    name: str
    type: str
    """The type, with the bound of a number: "int or null, at least 1"."""
    default: str
    text: str


@lru_cache(maxsize=1)
def documented_keys() -> list[Key]:
    """List all keys in the schema's order."""
    texts = _field_texts()
    return list(_keys(Config, "", texts))


def render() -> str:
    """Render the whole page."""
    lines = [
        "# Configuration",
        "",
        "Generated from `configs/schema` by `python -m configs.document`; a test keeps it current.",
        "",
        "Type keys as `python -m train optim.lr=2e-4 model.num_layers=6`, groups as `model=glm_110m`. Each key can be",
        "overridden alone: a default of null is off, or derived from other keys (`configs/derive.py`).",
    ]
    section = None
    for key in documented_keys():
        head = key.name.rpartition(".")[0] or "run-wide"
        if head != section:
            section = head
            lines += [
                "",
                f"## {head}",
                "",
                "| key | type | default | meaning |",
                "|---|---|---|---|",
            ]
        text = key.text.replace("|", "\\|").replace("\n", " ")
        lines.append(f"| `{key.name}` | {key.type} | `{key.default}` | {text} |")
    return "\n".join(lines) + "\n"


def without_none(hint: Any) -> Any:
    """The type that a key has when it is set: `int` of `int | None`."""
    alternatives: list[Any] = [part for part in get_args(hint) if part is not type(None)]
    return alternatives[0] if type(None) in get_args(hint) else hint


def _keys(owner: type, prefix: str, texts: dict[tuple[str, str], str]) -> list[Key]:
    defaults = owner()
    found: list[Key] = []
    for name, hint in get_type_hints(owner).items():
        inner: Any = without_none(hint)
        if is_dataclass(inner):
            found += _keys(cast(type, inner), f"{prefix}{name}.", texts)
            continue
        kind = _type_name(inner) + (" or null" if inner is not hint else "")
        kind = ", ".join([kind, *(bound.words for bound in bounds_of(owner).get(name, ()))])
        default = shown(getattr(defaults, name))
        found.append(Key(prefix + name, kind, default, texts[(owner.__name__, name)]))
    return found


def _type_name(hint: Any) -> str:
    if get_args(hint):
        return str(hint)
    plain = cast(type, hint)
    if issubclass(plain, Enum):
        return ", ".join(str(member.value) for member in plain)
    return plain.__name__


def shown(default: Any) -> str:
    """A default as it is typed."""
    if isinstance(default, Enum):
        return str(default.value)
    if default is None or isinstance(default, bool):
        return {None: "null", True: "true", False: "false"}[default]  # as they are typed
    return str(default)


def _field_texts() -> dict[tuple[str, str], str]:
    """Docstrings under fields, by (class, field)."""
    files = (resources.files("configs") / "schema").iterdir()
    sources = [file.read_text(encoding="utf-8") for file in files if file.name.endswith(".py")]
    texts: dict[tuple[str, str], str] = {}
    for node in (node for source in sources for node in ast.parse(source).body):
        if not isinstance(node, ast.ClassDef):
            continue
        for statement, following in zip(node.body, node.body[1:], strict=False):
            if isinstance(statement, ast.AnnAssign) and isinstance(following, ast.Expr):
                assert isinstance(statement.target, ast.Name)
                assert isinstance(following.value, ast.Constant)
                text = " ".join(str(following.value.value).split())
                texts[(node.name, statement.target.id)] = text
    return texts


if __name__ == "__main__":
    sys.stdout.write(render())
