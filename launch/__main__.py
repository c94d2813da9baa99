"""Before a run:  python -m launch estimate experiment=glm_130b

    python -m launch estimate [overrides] [--search]
        sizes, memory, time and cost of a run; --search: the best layout that
        fits
    python -m launch torchrun [overrides] [--submit]
        the command that starts it; --submit starts it here, on one node
    python -m launch slurm [overrides] [--submit] [--chain N]
        writes the sbatch script into the run folder; --submit sends it, --chain
        sends N jobs of which each continues the one before
    python -m launch slurm [overrides] --sweep optim.lr=1e-4,2e-4 [--sweep ...]
        one job array, a run folder for each combination; --table shows the
        results
    python -m launch sweep [overrides] --sweep optim.lr=1e-4,2e-4 [--local]
        the same on this machine, one run after the other; --table, too
    python -m launch status [RUN [--field state]]
        lists the runs in the folder runs, or shows the state of one; --field
        for scripts
    python -m launch layout [overrides] [--nodes N] [--run FOLDER]
        how many ranks to start on the N nodes that are left
    python -m launch pdsh [overrides] cluster.hostfile=FILE
        the line that starts it on the hosts of a file
    python -m launch kubernetes [overrides] cluster.image=IMAGE
                                cluster.volume=CLAIM:PATH
        its manifest, a PyTorchJob
    python -m launch collect FOLDER [overrides] [--with-torch]
        everything that a cluster without internet access needs; install it
        there with bash FOLDER/install.sh
    python -m launch dryrun [overrides] [--allow-uneven]
        builds every rank's part on this machine and checks that they fit
        together
    srun python -m launch preflight [overrides] [--exclude-file FILE]
        checks each node before it joins the run; also under torchrun

python -m launch COMMAND --help explains one; --version shows the versions.
Only dryrun and preflight import PyTorch: the others run on a login node.
"""

import difflib
import sys
from collections.abc import Callable
from importlib import import_module

from configs.errors import EXIT_DONE, EXIT_USER_INPUT, UserError
from configs.terminal import tell
from configs.version import asks_version, version_text
from launch.usage import usage


def _command(module: str, name: str) -> Callable[[list[str]], str | int]:
    """A command whose module is imported only when it runs: most load configurations, which takes a second."""
    return lambda words: getattr(import_module(module), name)(words)


COMMANDS: dict[str, Callable[[list[str]], str | int]] = {
    "estimate": _command("launch.estimate", "estimate"),
    "torchrun": _command("launch.torchrun", "torchrun"),
    "slurm": _command("launch.slurm", "slurm"),
    "sweep": _command("launch.local", "sweep"),
    "status": _command("launch.status", "status"),
    "layout": _command("launch.layout", "layout"),
    "pdsh": _command("launch.hosts", "pdsh"),
    "kubernetes": _command("launch.kubernetes", "kubernetes"),
    "collect": _command("launch.collect", "collect"),
    "dryrun": _command("launch.become", "dryrun"),
    "preflight": _command("launch.become", "preflight"),
}


def cli(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    name, overrides = (words[0], words[1:]) if words else ("", [])
    if name in ("--help", "-h"):
        sys.stdout.write(str(__doc__))
        return EXIT_DONE
    if asks_version(words):
        sys.stdout.write(version_text() + "\n")
        return EXIT_DONE
    if not name:
        sys.stderr.write(str(__doc__))
        return EXIT_USER_INPUT
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        guess = f" Did you mean {close[0]}?" if close else ""
        tell(
            f'There is no command "{name}" in this version.{guess} There are: {", ".join(COMMANDS)}.',
            sys.stderr,
        )
        return EXIT_USER_INPUT
    asks_help = "--help" in overrides or "-h" in overrides
    if asks_help and (help_text := usage(name)) is not None:
        sys.stdout.write(help_text)
        return EXIT_DONE
    try:
        answer = COMMANDS[name](overrides)
    except UserError as error:
        tell(str(error), sys.stderr)
        return EXIT_USER_INPUT
    if isinstance(answer, int):
        return answer
    sys.stdout.write(answer + "\n")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(cli())
