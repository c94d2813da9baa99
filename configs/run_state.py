"""What the processes of a run have written about themselves, and the state of a run for people.

configs/at_work.py finds out whether a process is still at work. These functions only read.
"""

import contextlib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from configs import at_work
from configs.at_work import generation_lines, generation_path
from configs.errors import RecordError
from configs.records import Count, ShortText, convert
from configs.run_status import read_status


@dataclass(frozen=True)
class Machine:
    """Where a process runs."""

    host: ShortText
    """Host name."""
    boot: ShortText
    """Identifier that changes with every boot; "" if unknown. Machines may share a host name, but not this as well."""


@dataclass(frozen=True)
class GenerationFacts:
    """The contents of a generation file, all lines together."""

    machine: Machine | None = None
    pid: Count = 0
    launch: dict[str, Count | ShortText] = field(default_factory=dict)
    """The launcher that started the process (train.world.Launch)."""
    continues_after: Count | None = None
    """Step of the checkpoint that the process continued from; None: it ended before that."""
    ending: ShortText | None = None
    """done, stopped or failed; None: the process is at work, or was killed."""


def this_machine() -> Machine:
    """The machine that this process runs on."""
    return Machine(**at_work.this_machine())


def read_generation(run: Path, number: int) -> GenerationFacts | None:
    """Read a generation file; None if it is empty or gone.

    Lines that cannot be read are passed over: if the process was killed, its last line may be incomplete.

    Raises:
        OSError: the file system failed.
    """
    path = generation_path(run, number)
    known = GenerationFacts()
    for line in generation_lines(path):
        with contextlib.suppress(RecordError):
            added = convert(line, GenerationFacts, str(path))
            known = replace(known, **{name: getattr(added, name) for name in _names_in(added)})
    return None if known.machine is None else known


def shown_state(run: Path) -> str:
    """The state of a run for people: that in status.json, or "interrupted" if that is out of date.

    Returns:
        running, done, stopped, failed, interrupted, or "unknown" without a status.json.

    Raises:
        RecordError: status.json cannot be read.
        OSError: the file system failed.
    """
    status = read_status(run)
    return "unknown" if status is None else at_work.shown(status.state, run)


def _names_in(facts: GenerationFacts) -> list[str]:
    nothing = GenerationFacts()
    names = (each.name for each in fields(facts))
    return [name for name in names if getattr(facts, name) != getattr(nothing, name)]
