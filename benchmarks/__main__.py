"""Run benchmarks:  python -m benchmarks NAME [words]

NAME is a file of this folder without ending, or the beginning of several: `data` runs data_prepare and its like in
turn. `cost` takes further words (benchmarks/cost.py), `parallel` and `scale` take --json FILE, and
`stability_study` needs it. Figures are printed beside what they are compared to in the same run; docs/benchmarks.md
keeps those of the releases.
"""

import importlib
import pkgutil
import sys

import benchmarks


def main(words: list[str]) -> int:
    """Run the benchmarks that the first word names; one with a command of its own gets the others.

    Returns:
        The exit code.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    chosen = [name for name in names for word in words[:1] if f"{name}_".startswith(f"{word}_")]
    found = [importlib.import_module(f"benchmarks.{name}") for name in chosen]
    runnable = [module for module in found if hasattr(module, "run")]
    if len(runnable) == 1 and hasattr(runnable[0], "main"):
        return runnable[0].main(words[1:])
    if len(words) != 1 or not runnable:
        print(f"{__doc__}\nThere are: {', '.join(names)}", file=sys.stderr)
        return 2
    for module in runnable:
        print(f"== {module.__name__.partition('.')[2]}", flush=True)
        module.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
