"""The detector of bad steps beside rules of other programs:  python -m benchmarks detection [--json FILE]

Records of runs with heavy-tailed noise (benchmarks/step_records.py): how many alarms there are without a fault, whether and
when each fault is found, and what the detector costs a step. The rules of the others are in benchmarks/peer_rules.py.
"""

import copy
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Protocol

from benchmarks.peer_rules import PEERS, Peer
from benchmarks.report import Record, json_file
from benchmarks.step_records import FAULTS, NOISES, Fault, Noise, healthy
from configs.schema import StabilityConfig
from train.stability.detector import LOSS, Detector
from train.stability.records import StepRecord

SEEDS = range(4)
NUM_STEPS = 20_000
FAULT_STEPS, FOUND_WITHIN = 6_000, 400
"""Length of runs with a fault, and steps in which it may be found."""
FAULTS_AT = {"": 2_500, ", noise x 1.5": 4_500}
"""Where a fault begins if not with the change of the mixture, and how its name continues."""
NUM_LAYERS = 2
SIGNALS = (10, 28, 75)
"""Of the measured cost: a loss, two norms, and the layers of a small model, of a large one, and of GLM-130B (72)."""
ROUNDS, ROUND_STEPS = 5, 1_000
OURS = "this program"


class Watcher(Protocol):
    """Is told of a run's steps."""

    def step(self, record: StepRecord) -> set[str]:
        """Which alarms a step raises."""
        ...


class Ours:
    """The detector, as the training loop calls it.

    Args:
        num_layers: of the model.
        config: the thresholds; None: the defaults.
    """

    def __init__(self, num_layers: int = NUM_LAYERS, config: StabilityConfig | None = None) -> None:
        self._detector = Detector(config or StabilityConfig(), [LOSS], num_layers)

    def step(self, record: StepRecord) -> set[str]:
        """`back`: an alarm that goes back; `out`: the step is left out."""
        watching = self._detector
        watching.declare(record)
        judged = None if record.norms is None else watching.judge(record.norms, record.step)
        found = watching.observe(record)
        is_out = judged is not None and watching.leaves_out(judged)
        is_back = any(alarm.goes_back for alarm in found)
        return {name for name, is_so in (("back", is_back), ("out", is_out)) if is_so}


class Theirs:
    """A peer's rule on each of its figures.

    Args:
        peer: the rule.
    """

    def __init__(self, peer: Peer) -> None:
        self._rules = {figure: peer.new() for figure in peer.figures}

    def step(self, record: StepRecord) -> set[str]:
        """`loss`, `norm`: an alarm of that figure."""
        loss, norms = record.losses[LOSS], record.norms
        assert loss is not None and norms is not None
        figures = {"loss": loss, "norm": norms.total}
        return {name for name, rule in self._rules.items() if rule.observe(figures[name])}


def watchers() -> dict[str, Watcher]:
    """New ones of all rules, ours first."""
    return {OURS: Ours(), **{name: Theirs(peer) for name, peer in PEERS.items()}}


@dataclass(frozen=True)
class Alarms:
    """Of one rule without a fault, for one kind of noise."""

    rule: str
    noise: str
    num_steps: int
    counts: dict[str, list[int]]
    """Alarms of each kind, by seed."""

    def rate(self, kind: str) -> float:
        """Alarms in 10,000 steps."""
        return 1e4 * sum(self.counts[kind]) / (self.num_steps * len(self.counts[kind]))


@dataclass(frozen=True)
class Found:
    """When a rule has found a fault, for one kind of noise."""

    rule: str
    fault: str
    noise: str
    steps: list[int | None]
    """By seed: steps after it shows, from 1; None: not within FOUND_WITHIN."""
    alarms: list[int]
    """By seed: steps with an alarm that the run without the fault does not have, of FOUND_WITHIN."""


def false_alarms(
    noise: Noise,
    seeds: Sequence[int] = SEEDS,
    num_steps: int = NUM_STEPS,
    rules: Sequence[str] = (OURS, *PEERS),
) -> list[Alarms]:
    """Count the alarms of rules in healthy runs."""
    kinds = {name: PEERS[name].figures if name in PEERS else ("back", "out") for name in rules}
    counts = {name: {kind: [0] * len(seeds) for kind in of_rule} for name, of_rule in kinds.items()}
    for number, seed in enumerate(seeds):
        watching = {name: watcher for name, watcher in watchers().items() if name in rules}
        for record in healthy(seed, noise, num_steps).records(NUM_LAYERS):
            for name, watcher in watching.items():
                for kind in watcher.step(record):
                    counts[name][kind][number] += 1
    return [Alarms(name, noise.label, num_steps, counts[name]) for name in kinds]


def detection(noise: Noise, seeds: Sequence[int] = SEEDS) -> list[Found]:
    """Write each fault into healthy runs, and see who finds it."""
    of_seeds = [_of_seed(noise, seed) for seed in seeds]
    named = [f"{fault.name}{place}" for fault in FAULTS for place in _places(fault)]
    return [
        Found(
            *(name, fault, noise.label),
            steps=[
                next((step for step in found[name, fault] if step > 0), None) for found in of_seeds
            ],
            alarms=[len(found[name, fault]) for found in of_seeds],
        )
        for fault in named
        for name in watchers()
    ]


def _places(fault: Fault) -> dict[str, int]:
    """How the fault's name continues, and where it then begins."""
    return {"": FAULT_STEPS // 2} if fault.is_at_change else FAULTS_AT


def _of_seed(noise: Noise, seed: int) -> dict[tuple[str, str], list[int]]:
    """By rule and fault: the steps of each rule's alarms after each fault shows, from 1; all start from the rule's state just before the fault."""
    series = healthy(seed, noise, FAULT_STEPS)
    watching, found = watchers(), {}
    for index, record in enumerate(series.records(NUM_LAYERS)):
        here = [
            (fault, name) for fault in FAULTS for name, at in _places(fault).items() if at == index
        ]
        for fault, place in here:
            faulty = series.copy()
            fault.write(faulty, index)
            undisturbed, disturbed = (
                list(islice(each.records(NUM_LAYERS, since=index), FOUND_WITHIN))
                for each in (series, faulty)
            )
            for name, watcher in watching.items():
                found[name, f"{fault.name}{place}"] = _new_alarms(
                    watcher, undisturbed, disturbed, fault
                )
        for watcher in watching.values():
            watcher.step(record)
    return found


def _new_alarms(
    watcher: Watcher, undisturbed: list[StepRecord], disturbed: list[StepRecord], fault: Fault
) -> list[int]:
    """Steps whose alarms the run without the fault does not have; from 1 where the fault shows."""
    calm, alarmed = copy.deepcopy(watcher), copy.deepcopy(watcher)
    pairs = zip(undisturbed, disturbed, strict=True)
    return [
        number - fault.shows + 1
        for number, (usual, record) in enumerate(pairs)
        if alarmed.step(record) - calm.step(usual)
    ]


def costs() -> dict[int, list[float]]:
    """CPU microseconds of a step's declare, judge and observe, by number of signals, in rounds that take turns."""
    runs = {}
    for signals in SIGNALS:
        num_layers = signals - 3
        records = list(healthy(0, NOISES[0], (ROUNDS + 1) * ROUND_STEPS).records(num_layers))
        runs[signals] = Ours(num_layers), records
    found: dict[int, list[float]] = {signals: [] for signals in SIGNALS}
    for number in range(ROUNDS + 1):  # windows fill in the first one
        for signals, (watcher, records) in runs.items():
            begin = time.process_time()
            for record in records[number * ROUND_STEPS : (number + 1) * ROUND_STEPS]:
                watcher.step(record)
            if number:
                found[signals].append(1e6 * (time.process_time() - begin) / ROUND_STEPS)
    return found


def alarm_lines(alarms: Sequence[Alarms]) -> Iterator[str]:
    """A table: a line for each rule and kind of alarm."""
    noises = list(dict.fromkeys(each.noise for each in alarms))
    yield "alarms without a fault, in 10,000 steps"
    yield f"  {'':30}" + "".join(f"{noise:>12}" for noise in noises)
    by_rule = {(each.rule, each.noise): each for each in alarms}
    for rule in dict.fromkeys(each.rule for each in alarms):
        for kind in by_rule[rule, noises[0]].counts:
            rates = [by_rule[rule, noise].rate(kind) for noise in noises]
            yield f"  {f'{rule}, {kind}':30}" + "".join(f"{rate:12.1f}" for rate in rates)


def found_lines(found: Sequence[Found]) -> Iterator[str]:
    """A table for each fault: how often it was found, and after how many steps."""
    noises = list(dict.fromkeys(each.noise for each in found))
    by_name = {(each.fault, each.rule, each.noise): each.steps for each in found}
    for fault in dict.fromkeys(each.fault for each in found):
        yield fault
        yield f"  {'':22}" + "".join(f"{noise:>24}" for noise in noises)
        for rule in dict.fromkeys(each.rule for each in found):
            cells = [_cell(by_name[fault, rule, noise]) for noise in noises]
            yield f"  {rule:22}" + "".join(f"{cell:>24}" for cell in cells)


def _cell(steps: Sequence[int | None]) -> str:
    known = [each for each in steps if each is not None]
    if not known:
        return f"0 of {len(steps)}"
    low, high = min(known), max(known)
    after = f"{low}" if low == high else f"{low} .. {high}"
    return f"{len(known)} of {len(steps)}, step {after}"


def cost_lines(measured: dict[int, list[float]]) -> Iterator[str]:
    """What the detector costs."""
    yield "CPU microseconds of a step"
    for signals, rounds in measured.items():
        yield (
            f"  {signals:3} signals  {statistics.median(rounds):6.0f} ({min(rounds):.0f} .. {max(rounds):.0f})"
        )


def run() -> None:
    """Print the tables."""
    main([])


def main(words: list[str]) -> int:
    """Run the command; returns the exit code."""
    path = json_file(words)
    record = Record("detection")
    print(record.heading())
    for name, peer in PEERS.items():
        print(f"{name}: {peer.source}")
    measured = costs()
    print("\n".join(cost_lines(measured)), flush=True)
    found = [each for noise in NOISES for each in detection(noise)]
    print("\n".join(found_lines(found)), flush=True)
    alarms = [each for noise in NOISES for each in false_alarms(noise)]
    print("\n".join(alarm_lines(alarms)), flush=True)
    if path is not None:
        text = record.text(
            microseconds=measured,
            found=[asdict(each) for each in found],
            alarms=[asdict(each) for each in alarms],
        )
        path.write_text(text + "\n")
    return 0
