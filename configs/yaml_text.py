"""Read YAML from outside as plain mappings and lists; tags are not executed, and aliases are not expanded.

The dialect is OmegaConf's, as for the presets: 8e-5 is a number, a date is text, and keys must not be repeated.
"""

from typing import Any, cast

_LARGEST_TEXT = 2**20
_DEEPEST_NESTING = 16


def parse_yaml(text: str) -> dict[str, Any]:
    """Read one mapping.

    Raises:
        ValueError: the text is not YAML, not a mapping, too large, nested too deeply, or holds an alias; the message
            names the line.
    """
    # Imported late: a command that reads no YAML starts without these modules.
    from omegaconf import OmegaConf
    from omegaconf.errors import GrammarParseError, OmegaConfBaseException
    from yaml import MarkedYAMLError, YAMLError

    try:
        _refuse_what_grows(text)
        parsed: Any = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise ValueError(f"{where}{error.problem or error.context}") from error
    except GrammarParseError as error:
        raise ValueError(
            "it holds ${, which begins an interpolation. Write plain values"
        ) from error
    except (
        OmegaConfBaseException,
        YAMLError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise ValueError(str(error).partition("\n")[0]) from error
    if not isinstance(parsed, dict):
        raise ValueError("it is not a mapping of keys to values")
    return cast(dict[str, Any], parsed)


def render_yaml(values: dict[str, Any]) -> str:
    """Render one mapping, which `parse_yaml` reads back unchanged."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(values))


def _refuse_what_grows(text: str) -> None:
    from yaml import (
        AliasEvent,
        CollectionEndEvent,
        CollectionStartEvent,
        DocumentStartEvent,
        SafeLoader,
        ScalarEvent,
    )

    if len(text) > _LARGEST_TEXT:
        raise ValueError(f"it has {len(text):,} characters")
    loader: Any = SafeLoader(text)
    depth = documents = 0
    while loader.check_event():
        event: Any = loader.get_event()
        documents += isinstance(event, DocumentStartEvent)
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        line = event.start_mark.line + 1
        if isinstance(event, AliasEvent):
            raise ValueError(f"line {line}: an alias (*{event.anchor}). Write the value out")
        if depth > _DEEPEST_NESTING:
            raise ValueError(f"line {line}: it is nested without end")
        if isinstance(event, ScalarEvent) and depth == 0 and event.value:
            raise ValueError("it is not a mapping of keys to values")
        if documents > 1:
            raise ValueError(f"line {line}: a second document begins")
