"""One run through the timeline: attempts, and between them what its user types - nothing else."""

import json
import random
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.drill import corpora
from benchmarks.drill.faults import Faults, attempt
from benchmarks.drill.timeline import (
    BATCH,
    ENLARGED,
    POISONED,
    TIMELINE,
    Act,
    Ends,
    Place,
    Variant,
    first_words,
    in_samples,
)
from configs.errors import EXIT_DONE, EXIT_PEER_FAILED, EXIT_STOPPED, EXIT_USER_INPUT
from configs.interventions import read_interventions
from configs.run_paths import RunPaths
from tests.helpers.distributed import Ranks

_ATTEMPT_SECONDS = 1800.0
_POLL_SECONDS = 0.02
_KILLED = -9
_EXPECTED = {
    Ends.stopped: EXIT_STOPPED,
    Ends.killed: _KILLED,
    Ends.hung: EXIT_PEER_FAILED,
    Ends.done: EXIT_DONE,
}


@dataclass
class Outcome:
    """What one run came to."""

    seed: int
    variant: str
    ended: bool
    """It came to its end with nothing typed but the timeline's own words."""
    message: str = ""
    """Why it did not."""
    valid_loss: float | None = None
    """Held-out loss at the end."""
    rollbacks: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    left_out: list[int] = field(default_factory=list[int])
    """Samples drawn before each step that was left out in the history that counts."""
    starts: int = 0
    steps: int = 0
    trained_again: int = 0
    """Steps that rollbacks cut off."""
    lost_file: str = ""
    """What the start without a file of its corpus said."""
    seconds: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list[tuple[int, float]])
    """Samples seen and training loss."""


class Drill:
    """Takes one run through the timeline.

    Args:
        folder: of this run; what is there is used again.
        made: folder with the corpora.
        seed: of the run, and of the moments of its kills.
        variant: what is wrong with it.
    """

    def __init__(self, folder: Path, made: Path, seed: int, variant: Variant) -> None:
        self._variant, self._seed = variant, seed
        self._run = folder / "run"
        self._errors = folder / "errors.txt"
        self._data = corpora.own_copy(made, folder / "corpora")
        self._moments = random.Random(seed)
        self._ranks = 1
        self._words = {
            **first_words(variant),
            "seed": str(seed),
            "run.dir": str(self._run),
            "data.paths": f"[{self._data / corpora.TEXT}]",
            "data.instructions": f"[{self._data / corpora.WRONG}]",
            "data.cache_dir": str(folder / "cache"),
        }
        self._outcome = Outcome(seed, variant.value, ended=False)
        self._faults = Faults()
        if variant.is_disturbed:
            self._faults = Faults(in_samples(POISONED), in_samples(ENLARGED))

    def run(self) -> Outcome:
        """Go through all acts, until one ends otherwise than it should."""
        started = time.monotonic()
        for act in TIMELINE:
            code = self._perform(act)
            if code != _EXPECTED[act.ends]:
                said = self._errors.read_text().strip().splitlines()
                self._outcome.message = f"{act.story}: exit code {code}: {' '.join(said[-3:])}"
                break
            if act.loses_file and not self._start_without_a_file():
                break
            if act.changes is not None:
                place = Place(*self._position())
                changes = act.changes(place, self._variant)
                self._words |= {
                    key: value.replace("{right}", str(self._data / corpora.RIGHT))
                    for key, value in changes.items()
                }
            self._ranks = act.ranks or self._ranks
        else:
            self._outcome.ended = True
        self._outcome.seconds = time.monotonic() - started
        self._read_results()
        return self._outcome

    def _perform(self, act: Act) -> int:
        """One attempt; returns the exit code that all of its ranks have, or the first one that differs."""
        until = act.until * BATCH
        stop = {"run.stop_after_samples": str(until)} if act.ends is Ends.stopped else {}
        hangs_at = until if act.ends is Ends.hung else None
        ranks = self._start(stop, Faults(self._faults.poisoned, self._faults.enlarged, hangs_at))
        try:
            if act.ends is Ends.killed:
                self._wait_until(until, ranks)
                ranks.kill_all()
            codes = ranks.wait(_ATTEMPT_SECONDS)
        finally:
            ranks.kill_all()
        return next((code for code in codes if code != codes[0]), codes[0]) or 0

    def _start(self, further: dict[str, str], faults: Faults) -> Ranks:
        self._outcome.starts += 1
        self._errors.write_text("")
        overrides = tuple(f"{key}={value}" for key, value in (self._words | further).items())
        return Ranks(attempt, self._ranks, overrides, self._errors, faults)

    def _wait_until(self, samples: int, ranks: Ranks) -> None:
        """Return at a random moment after the step that reaches a position, or when a rank has ended."""
        while self._position()[0] < samples:
            if any(process.exitcode is not None for process in ranks.processes):
                return
            time.sleep(_POLL_SECONDS)
        time.sleep(self._moments.random() / 4)

    def _start_without_a_file(self) -> bool:
        """A file of the corpus is away for one start, which says so, and back for the next."""
        lost = self._data / f"{corpora.TEXT}.bin"
        away = lost.rename(lost.with_suffix(".away"))
        try:
            codes = self._start({}, self._faults).wait(_ATTEMPT_SECONDS)
        finally:
            away.rename(lost)
        said = self._errors.read_text().strip()
        self._outcome.lost_file = said.splitlines()[-1] if said else ""
        is_right = codes == [EXIT_USER_INPUT] and str(lost) in said and "Traceback" not in said
        if not is_right:
            self._outcome.message = f"without {lost.name}: exit code {codes[0]}: {said[-300:]}"
        return is_right

    def _position(self) -> tuple[int, int]:
        """Samples seen and drawn after the last whole line of the metrics; zeros before the first."""
        path = RunPaths(self._run).metrics
        if not path.exists():
            return 0, 0
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - 4096, 0))
            lines = file.read().split(b"\n")[:-1]
        last = json.loads(lines[-1]) if lines else {}
        return last.get("samples_seen", 0), last.get("data/samples_drawn", 0)

    def _read_results(self) -> None:
        outcome, paths = self._outcome, RunPaths(self._run)
        lines = [json.loads(line) for line in paths.metrics.open()]
        outcome.steps = len(lines)
        outcome.curve = [(line["samples_seen"], line["train/loss"]) for line in lines]
        if outcome.ended:
            outcome.valid_loss = lines[-1]["valid/loss"]
        outcome.rollbacks = [asdict(each) for each in read_interventions(self._run).rollbacks]
        if outcome.rollbacks:
            outcome.trained_again = sum(
                each["found_step"] - each["checkpoint_step"] for each in outcome.rollbacks
            )
        before = 0
        for line in lines:
            if line["optim/skipped_steps"] > before:
                outcome.left_out.append(line["data/samples_drawn"])
            before = line["optim/skipped_steps"]


def run_or_read(folder: Path, made: Path, seed: int, variant: Variant) -> Outcome:
    """The outcome of a run, from its folder if it is there."""
    place = folder / f"{seed}_{variant.value}"
    kept = place / "outcome.json"
    if kept.exists():
        return Outcome(**json.loads(kept.read_text()))
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    outcome = Drill(place, made, seed, variant).run()
    kept.write_text(json.dumps(asdict(outcome)))
    return outcome
