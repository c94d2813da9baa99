"""Build and check every rank of a run on this machine:

    python -m launch dryrun [overrides] [--allow-uneven]

    --allow-uneven   only remark on a number of layers that does not divide over
                     the stages

For example, python -m launch dryrun experiment=glm_130b: all 768 ranks of the
published run take some minutes on two cores. Exit code 0: they fit together;
2: they do not, or the stages are uneven, which training accepts.
"""

import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Iterator
from functools import partial

from configs import derive, pipeline
from configs.checks.batches import uneven_stages
from configs.errors import EXIT_DONE, EXIT_USER_INPUT, DistributedError, UserError
from configs.load import load_config
from configs.schema import Config
from configs.terminal import tell
from configs.version import asks_version, version_text
from train.world import World, prepare_environment, process_start

# Ranks that a process builds before it reports progress.
_PORTION = 16
# Problems of a check that are printed.
_SHOWN = 8
ALLOW_UNEVEN = "--allow-uneven"


def cli(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if "--help" in words or "-h" in words:
        sys.stdout.write(str(__doc__))
        return EXIT_DONE
    if asks_version(words):
        sys.stdout.write(version_text() + "\n")
        return EXIT_DONE
    try:
        config = load_config([word for word in words if word != ALLOW_UNEVEN])
        problems = dry_run(config, ALLOW_UNEVEN in words)
    except (UserError, DistributedError) as error:
        tell(str(error), sys.stderr)
        return EXIT_USER_INPUT
    return EXIT_USER_INPUT if problems else EXIT_DONE


def dry_run(config: Config, allow_uneven: bool) -> list[str]:
    """Build all ranks, check them, and print a line per check.

    Args:
        config: configuration of the run.
        allow_uneven: a number of layers that does not divide over the stages is a remark, not a problem.

    Returns:
        All problems.
    """
    warnings.filterwarnings("ignore", module="megatron|deepspeed|torch.distributed")
    prepare_environment(World(), "cpu")
    # Imported late, since PyTorch, DeepSpeed and Megatron-core take seconds to import.
    from train.dryrun.build import build_ranks, checked_steps
    from train.dryrun.checks import CHECKS
    from train.dryrun.facts import RankFacts

    world_size = derive.planned_world_size(config)
    portions = [
        range(start, min(start + _PORTION, world_size)) for start in range(0, world_size, _PORTION)
    ]
    facts: list[RankFacts] = []
    # Forked, so that the libraries are imported once; one process per core.
    with multiprocessing.get_context("fork").Pool(min(os.cpu_count() or 1, len(portions))) as pool:
        for found in pool.imap(partial(build_ranks, config), portions):
            facts += found
            _progress(len(facts), world_size)
    rows: dict[str, list[str]] = {name: check(config, facts) for name, check in CHECKS.items()}
    dp = derive.data_parallel_size(config, world_size)
    counts = {
        derive.grad_accum(config.optim, dp, derive.batch_size_at(config.optim, seen))
        for seen in checked_steps(config)
    }
    rows["schedule"] = [
        problem for count in sorted(counts) for problem in _rehearsed(config, count)
    ]
    uneven = uneven_stages(config)
    if uneven and not allow_uneven:
        rows["balance"] = [f"{uneven} Or add {ALLOW_UNEVEN} if that is intended."]
    _print(rows, config, len(facts), time.time() - process_start())
    if uneven and allow_uneven:
        sys.stdout.write(f"Remark: {uneven}\n")
    return [problem for problems in rows.values() for problem in problems]


def _rehearsed(config: Config, num_micro_batches: int) -> list[str]:
    """Problems of a step's schedule."""
    pp, chunks = config.parallel.pp, pipeline.num_chunks(config.parallel)
    if chunks > 1:
        from train.dryrun.interleaved import rehearse

        return rehearse(num_micro_batches, pp, chunks)
    from train.dryrun.schedule import simulate
    from train.engine import stage_instructions

    return simulate(num_micro_batches, pp, stage_instructions)


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(
            f"\r{done} of {total} ranks built{' ' * 8}" + ("\n" if done == total else "")
        )
        sys.stderr.flush()


def _print(rows: dict[str, list[str]], config: Config, num_ranks: int, seconds: float) -> None:
    for line in _lines(rows):
        sys.stdout.write(line + "\n")
    count = sum(len(problems) for problems in rows.values())
    ending = "they fit together" if count == 0 else f"{count} problems"
    tp, pp = config.parallel.tp, config.parallel.pp
    sys.stdout.write(
        f"{num_ranks} ranks (tp {tp} x pp {pp} x dp {num_ranks // (tp * pp)}) built and compared in {seconds:,.0f} s: "
        f"{ending}\n"
    )


def _lines(rows: dict[str, list[str]]) -> Iterator[str]:
    for name, problems in rows.items():
        yield f"{name:<14}{'good' if not problems else f'{len(problems)} problems'}"
        yield from (f"  {problem}" for problem in problems[:_SHOWN])
        if len(problems) > _SHOWN:
            yield f"  and {len(problems) - _SHOWN} more"


if __name__ == "__main__":
    sys.exit(cli())
