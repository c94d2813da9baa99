"""docs/configuration.md from the schema:  python -m configs.document > docs/configuration.md

The docstring under each field of configs/schema.py is its documentation; nothing is written twice.
"""

import ast
import sys
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import lru_cache
from importlib import resources
from typing import Any, NamedTuple, get_args, get_type_hints

from configs.schema import BatchRampConfig, Config


class Key(NamedTuple):
    """One key of the configuration."""

    name: str
    type: str
    default: str
    text: str


@lru_cache(maxsize=1)
def documented_keys() -> list[Key]:
    """All keys in the schema's order."""
    texts = _field_texts()
    return list(_keys(Config, "", texts))


def render() -> str:
    """The whole page."""
    lines = [
        "# Configuration",
        "",
        "Generated from `configs/schema.py` by `python -m configs.document`; a test keeps it current.",
        "",
        "Type keys as `python -m train optim.lr=2e-4 model.num_layers=6`, groups as `model=glm_110m`. Each key can be",
        "overridden alone: a default of None is derived from other keys (`configs/derive.py`).",
    ]
    section = None
    for key in documented_keys():
        head = key.name.rpartition(".")[0] or "run-wide"
        if head != section:
            section = head
            lines += ["", f"## {head}", "", "| key | type | default | meaning |", "|---|---|---|---|"]
        text = key.text.replace("|", "\\|").replace("\n", " ")
        lines.append(f"| `{key.name}` | {key.type} | `{key.default}` | {text} |")
    return "\n".join(lines) + "\n"


def _keys(owner: type, prefix: str, texts: dict[tuple[str, str], str]) -> list[Key]:
    hints = get_type_hints(owner)
    found: list[Key] = []
    for field in fields(owner):  # type: ignore[arg-type]
        hint = hints[field.name]
        if is_dataclass(hint) and isinstance(hint, type):
            found += _keys(hint, f"{prefix}{field.name}.", texts)
        elif BatchRampConfig in get_args(hint):
            found += _keys(BatchRampConfig, f"{prefix}{field.name}.", texts)
        else:
            default = field.default_factory() if field.default is MISSING else field.default  # type: ignore[misc]
            text = texts[(owner.__name__, field.name)]
            found.append(Key(prefix + field.name, _type_name(hint), _show(default), text))
    return found


def _type_name(hint: Any) -> str:
    parts = [part for part in get_args(hint) if part is not type(None)]
    if type(None) in get_args(hint):
        return _type_name(parts[0])
    if isinstance(hint, type) and issubclass(hint, Enum):
        return ", ".join(member.value for member in hint)
    return str(hint) if parts else hint.__name__


def _show(default: Any) -> str:
    return default.value if isinstance(default, Enum) else str(default)


def _field_texts() -> dict[tuple[str, str], str]:
    """Docstrings under fields, by (class, field)."""
    source = (resources.files("configs") / "schema.py").read_text(encoding="utf-8")
    texts: dict[tuple[str, str], str] = {}
    for node in ast.parse(source).body:
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
