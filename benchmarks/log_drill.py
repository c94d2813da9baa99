"""The log of GLM-130B's training run as a drill:  python -m benchmarks log_drill [--json FILE] [--seeds 1,2,3]

A small model goes through the log's events (benchmarks/drill/timeline.py): failing nodes, a hang, a lost file, wrong
instructions, three explosions from bad data, one from a learning rate, two gradient spikes, changes by its user. Each seed
runs three times: clean, with stability.on_spike=rollback, and with warn. docs/stability.md has the figures.

--seeds N,M   other seeds than the five that are reported
--folder DIR  keeps the runs there, and goes on with those that are there
--only NAME   some of clean, rollback, warn
--json FILE   writes the record
"""

import argparse
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from benchmarks.drill.corpora import make_corpora
from benchmarks.drill.figures import failures, settings, table
from benchmarks.drill.run import Outcome, run_or_read
from benchmarks.drill.timeline import Variant
from benchmarks.report import Record

SEEDS = (1, 2, 3, 4, 5)
"""Reported. The strength of what goes wrong was chosen on seeds 100 to 102."""
_AT_ONCE = 2


def run() -> None:
    """Run all seeds."""
    main([])


def main(words: list[str]) -> int:
    """Run the command.

    Returns:
        The exit code: 1 if a seed did not end as it should.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks log_drill", description=__doc__)
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=[each.value for each in Variant])
    parser.add_argument("--json", type=Path)
    typed = parser.parse_args(words)
    seeds = [int(seed) for seed in typed.seeds.split(",")]
    variants = [Variant(each) for each in typed.only] if typed.only else list(Variant)
    record = Record("log_drill")
    print(record.heading(), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        outcomes = drilled(typed.folder or Path(temporary), seeds, variants)
    if typed.only:
        return 0
    print("\n".join(table(outcomes)))
    found = failures(outcomes)
    print("\n".join(found) or "As wanted.")
    if typed.json is not None:
        figures = {"settings": settings(), "outcomes": [_recorded(each) for each in outcomes]}
        typed.json.write_text(record.text(**figures) + "\n")
    return 1 if found else 0


def drilled(folder: Path, seeds: list[int], variants: list[Variant]) -> list[Outcome]:
    """Run every seed in every variant, two runs at once."""
    made = make_corpora(folder / "corpora")
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        running = [
            pool.submit(run_or_read, folder, made, seed, variant)
            for seed in seeds
            for variant in variants
        ]
        return [_said(each.result()) for each in running]


def _said(outcome: Outcome) -> Outcome:
    loss = "none" if outcome.valid_loss is None else f"{outcome.valid_loss:.4f}"
    print(
        f"seed {outcome.seed}, {outcome.variant}: held-out loss {loss}, {len(outcome.rollbacks)} rollbacks, "
        f"{len(outcome.left_out)} steps left out, {outcome.seconds:.0f} s {outcome.message}",
        flush=True,
    )
    return outcome


def _recorded(outcome: Outcome) -> dict[str, object]:
    """With a curve of every fifth step and without paths of the machine: the record is kept in the repository."""
    values = asdict(outcome)
    del values["lost_file"], values["message"]
    values["curve"] = [[seen, round(loss, 3)] for seen, loss in outcome.curve[::5]]
    return values
