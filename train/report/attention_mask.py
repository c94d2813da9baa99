"""The panels of the attention mask: a schematic row of each objective of a run, made by the code that makes its samples.

The page is made from the run folder alone, which has no text. So the row is laid out from the run's configuration with
texts of made-up lengths: its windows, blanks and positions are drawn as those of the run's samples are, its words are not
from the corpus.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from configs import validate
from configs.errors import UserError
from configs.load import from_yaml
from configs.objectives import Objective, text_shares
from configs.schema import Config, SliceRule
from configs.terminal import visible
from data_pipeline.instructions import Record
from data_pipeline.mip_windows import mip_windows, records_per_window
from data_pipeline.objective import Making, maker_of
from data_pipeline.packing import Sample, pack_row
from data_pipeline.rng import rng_for
from data_pipeline.sentences import SentenceBlanks
from data_pipeline.special_tokens import SpecialTokens
from data_pipeline.windows import original_row_length
from train.report.panel import Panel
from train.report.read import RunData

_SPECIAL = SpecialTokens(mask=1, gmask=2, sop=3, eop=4, eos=5, pad=0)
_SMASK, _FULL_STOP, _FIRST_WORD, _VOCABULARY = 6, 7, 8, 1000
_SENTENCE, _DOCUMENT = 20, 400
"""Mean lengths of the made-up sentences and documents, in tokens."""
_MOST_SPANS = 600
_LONGEST_ROW = 2**18
_NOTE = (
    "A schematic row: laid out as the run's configuration says, with made-up texts instead of the corpus. A row's token "
    "attends to the coloured columns. Context sees its whole context, in both directions; targets see the context and the "
    "targets before them; segments do not see each other. Below: the position ids, and the second coordinate that counts "
    "within a target."
)


def panels(runs: Sequence[RunData]) -> list[Panel]:
    """A panel for each objective of a run; of several runs, of each one whose rows are laid out differently."""
    found = list[tuple[RunData, Config]]()
    for run in runs:
        config = _config_of(run)
        if config is None or config.model.seq_length > _LONGEST_ROW:
            continue
        if all(_layout(config) != _layout(other) for _, other in found):
            found.append((run, config))
    if len(found) == 1:
        return list(_of_run(found[0][1]))
    return [
        replace(panel, key=f"{panel.key}/{number}", title=f"{panel.title}: {run.name}")
        for number, (run, config) in enumerate(found)
        for panel in _of_run(config)
    ]


def _layout(config: Config) -> tuple[Any, ...]:
    """What the rows of a run depend on, but for chance."""
    return config.model.seq_length, config.objective, bool(config.data.instructions)


def _of_run(config: Config) -> Iterator[Panel]:
    for objective, share in text_shares(config.objective):
        if share > 0:
            yield _panel(sample_of(config, objective), config, share)
    if config.data.instructions:
        yield _panel(instructions_of(config), config, None)


def sample_of(config: Config, objective: Objective) -> Sample:
    """A schematic row of an objective; always the same for a configuration.

    Args:
        config: of a run, without problems.
        objective: one of its rows of text.
    """
    rng = rng_for(config.seed, "schematic", objective.key)
    seq_length, settings = config.model.seq_length, config.objective
    maker = maker_of(objective)
    length = maker.row_tokens(seq_length, settings)
    if settings.slice_rule is SliceRule.glm_130b:
        length = original_row_length(seq_length)
    is_end = np.zeros(_VOCABULARY, dtype=np.bool_)
    is_end[[_SPECIAL.eos, _FULL_STOP]] = True
    sentences = SentenceBlanks(replace(_SPECIAL, mask=_SMASK), is_end)
    making = Making(settings, seq_length, _SPECIAL, sentences)
    made = maker.windows(rng, _text(rng, length), making)
    return pack_row(made.segments, seq_length, _SPECIAL.pad, objective, 0, made.redraws)


def instructions_of(config: Config) -> Sample:
    """A schematic row of instructions; always the same for a configuration."""
    objective = Objective.MIP
    rng = rng_for(config.seed, "schematic", objective.key)
    windows = _instructions(rng, config)
    return pack_row(windows, config.model.seq_length, _SPECIAL.pad, objective, 0)


def segments_of(sample: Sample) -> list[dict[str, Any]]:
    """The segments of a row: `start`, `split` (where its targets begin), `stop`, and where each target begins in `spans`."""
    found = list[dict[str, Any]]()
    for number in range(1, int(sample.segment_ids.max(initial=0)) + 1):
        places = np.flatnonzero(sample.segment_ids == number)
        start, stop = int(places[0]), int(places[-1]) + 1
        split = start + int(sample.is_context[start:stop].sum())
        begins = split + np.flatnonzero(sample.block_position_ids[split:stop] == 1)
        found.append({"start": start, "split": split, "stop": stop, "spans": begins.tolist()})
    return found


def corners(values: np.ndarray, first: int) -> list[list[int]]:
    """The corners of a line that goes up by one or stays: what lies between two of them is straight.

    Args:
        values: (n,) integers of neighbouring places.
        first: place of the first of them.

    Returns:
        [place, value] of the ends of each straight stretch.
    """
    steps = np.diff(values)
    bends = np.flatnonzero(np.diff(steps)) + 1
    kept = sorted({0, len(values) - 1, *bends.tolist()}) if len(values) else []
    return [[first + place, int(values[place])] for place in kept]


def _config_of(run: RunData) -> Config | None:
    """The run's configuration; None if this program could not train with it: an objective's package is missing, say."""
    if not all(isinstance(run.setting(part), dict) for part in ("model", "objective", "data")):
        return None  # what is missing would be filled with defaults
    try:
        config = from_yaml(run.config_text)
        return None if validate.problems(config) else config
    except UserError:
        return None


def _panel(sample: Sample, config: Config, share: float | None) -> Panel:
    objective, segments = sample.objective, segments_of(sample)
    is_mask = config.objective.windows_per_row
    length = len(sample.tokens)
    windows = is_mask if share is None else maker_of(objective).num_windows(config.objective)
    is_small = sum(len(each["spans"]) for each in segments) <= _MOST_SPANS
    of_rows = "" if share is None else f" ({100 * share:g} % of the rows of text)"
    return Panel(
        key=f"mask/{objective.key}",
        title=f"Attention mask of {visible(objective.label, keep='')}{of_rows}",
        group="Pictures",
        kind="mask",
        data={
            "length": length,
            "window": length // windows,
            "segments": [{**each, "spans": each["spans"] if is_small else []} for each in segments],
            "positions": _lines(sample.position_ids, segments),
            "block_positions": _lines(sample.block_position_ids, segments),
        },
        note=_NOTE,
        columns=("segment", "window", "context tokens", "blanks", "target tokens", "last position"),
        rows=[
            [
                number,
                each["start"] // (length // windows) + 1,
                each["split"] - each["start"],
                len(each["spans"]),
                each["stop"] - each["split"],
                int(sample.position_ids[each["start"] : each["stop"]].max()),
            ]
            for number, each in enumerate(segments[:_MOST_SPANS], start=1)
        ],
    )


def _lines(values: np.ndarray, segments: Sequence[dict[str, Any]]) -> list[list[list[int]]]:
    return [corners(values[each["start"] : each["stop"]], each["start"]) for each in segments]


def _text(rng: np.random.Generator, length: int) -> np.ndarray:
    """Made-up stored tokens: words, with the ends of sentences and documents: (length,) int64."""
    tokens = rng.integers(_FIRST_WORD, _VOCABULARY, length)
    tokens[rng.random(length) < 1 / _SENTENCE] = _FULL_STOP
    tokens[rng.random(length) < 1 / _DOCUMENT] = _SPECIAL.eos
    return tokens


def _instructions(rng: np.random.Generator, config: Config) -> list[list[Any]]:
    """Windows of made-up instruction records: prompts of up to half a window, answers of up to an eighth."""
    settings = config.objective
    window = config.model.seq_length // settings.windows_per_row
    per_window = records_per_window(window, window / 3, settings)
    records = [
        Record(
            _text(rng, int(rng.integers(max(window // 8, 1), max(window // 2, 2)))),
            _text(rng, int(rng.integers(1, max(window // 8, 2)))),
        )
        for _ in range(per_window * settings.windows_per_row)
    ]
    return mip_windows(records, window, settings, _SPECIAL)
