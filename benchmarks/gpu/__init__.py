"""Everything that needs a GPU, in one short session:  python -m benchmarks gpu [FOLDER] [options]

    FOLDER         where the results go; none: gpu_session
    --wheels DIR   wheels to install first, beside the machine's own packages; none: .whl
    --only NAMES   some of the sections, such as attention,layer
    --dry-run      the same sections with tiny sizes on CPU

Sections run one after the other in processes of their own (benchmarks/gpu/plan.py), each until a fixed second of the
session, at most 280 in all. One that fails or takes too long stops no other, and keeps what it has measured. Each
prints a line of JSON as it ends; the last lines are a table. FOLDER/session.json has everything, FOLDER/session.log what
the sections printed. Exit code 0: every section ran and found nothing wrong.

This package imports nothing but the standard library: libraries may come with the wheels.
"""

import sys
from pathlib import Path

from benchmarks.gpu.session import Options, run_session
from configs.errors import UserError
from configs.terminal import tell

_WORDS = ("--wheels", "--only")


def run() -> None:
    """Run all sections."""
    main([])


def main(words: list[str]) -> int:
    """Run the command; returns the exit code."""
    try:
        options = _parsed(words)
    except UserError as error:
        tell(str(error), sys.stderr)
        return 2
    return run_session(options)


def _parsed(words: list[str]) -> Options:
    given: dict[str, str] = {}
    rest = list(words)
    for name in _WORDS:
        if name in rest:
            at = rest.index(name)
            if at + 1 == len(rest):
                raise UserError(f"{name} needs a value. Try --wheels .whl or --only attention")
            given[name] = rest[at + 1]
            del rest[at : at + 2]
    is_dry = "--dry-run" in rest
    folders = [word for word in rest if not word.startswith("--")]
    unknown = [word for word in rest if word.startswith("--") and word != "--dry-run"]
    if unknown or len(folders) > 1:
        wrong = ", ".join([*unknown, *folders[1:]])
        raise UserError(f"{wrong}: there are one folder, --wheels DIR, --only NAMES and --dry-run")
    return Options.of(
        Path(folders[0] if folders else "gpu_session"),
        Path(given.get("--wheels", ".whl")),
        given.get("--only"),
        is_dry,
        has_wheels="--wheels" in given,
    )
