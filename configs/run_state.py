"""What the processes of a run have written about themselves, and the state of a run for people.

Whether one is at work is asked in configs/at_work.py. Looking changes nothing.
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
    """Its name."""
    boot: ShortText
    """Changes with every start of its kernel; "" if unknown. Containers may share a name, but not a kernel as well."""


@dataclass(frozen=True)
class GenerationFacts:
    """What a process has written into its generation file, all lines together."""

    machine: Machine | None = None
    pid: Count = 0
    launch: dict[str, Count | ShortText] = field(default_factory=dict)
    """Who started it (train.world.Launch)."""
    continues_after: Count | None = None
    """Step of the checkpoint that it continued from; None: it did not come so far."""
    ending: ShortText | None = None
    """done, stopped or failed; None: it is at work, or could not say."""


def this_machine() -> Machine:
    """The machine that this process runs on."""
    return Machine(**at_work.this_machine())


def read_generation(run: Path, number: int) -> GenerationFacts | None:
    """Read what a process wrote about itself; None if that is nothing, yet or any more.

    Lines that cannot be read are passed over: the last one is cut where a process was killed.

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
    """The state of a run for people: that of status.json, or "interrupted" where it is out of date.

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
