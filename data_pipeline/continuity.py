"""Whether a data set continues where another one stopped: samples already drawn must stay, samples ahead may change.

Two descriptions (`GLMDataset.describe`) are compared: the one in the checkpoint, of the data that it was trained on,
and that of the data now.
A stage, source or weight that begins to matter only at or after the position of the data stream changes no sample that
was drawn: a source's own order depends on its name, its tokens and the settings, never on the other sources.
"""

import re
from dataclasses import dataclass, field
from fractions import Fraction
from math import lcm
from typing import Any

from configs.errors import RecordError
from configs.records import Count, ShortText, convert
from data_pipeline.instructions import NAME as INSTRUCTIONS

# Compared source by source and stage by stage; every other entry of a description must be unchanged.
_COMPARED_HERE = {"sources", "mixture", "fingerprint"}

# First sample, and the share of each source that has one.
_Stage = tuple[int, dict[str, Fraction]]


# A share as Fraction writes it; never a division by zero, or a number without end.
_SHARE = re.compile(r"[0-9]{1,60}(/0*[1-9][0-9]{0,60})?")
_WHERE = "The description of the data in the checkpoint"


@dataclass(frozen=True)
class DescribedSource:
    """One of a description's sources."""

    name: ShortText
    tokens: Count
    fingerprint: ShortText
    files: dict[ShortText, tuple[Count, int]] = field(default_factory=dict[str, tuple[int, int]])
    """Size in bytes and time in nanoseconds of each file, by data set and ending; {} in an older description."""


@dataclass(frozen=True)
class DescribedMixture:
    """A description's stages: first sample, and the share of each source as a fraction."""

    ramp_samples: Count
    stages: list[tuple[Count, list[ShortText]]]


@dataclass(frozen=True)
class Description:
    """The entries of a description (`GLMDataset.describe`) that are used by name; all others are only compared."""

    sources: list[DescribedSource]
    mixture: DescribedMixture


def read_description(value: object) -> Description:
    """Check a description that was read from a checkpoint.

    Raises:
        RecordError: it is not a description.
    """
    found = convert(value, Description, _WHERE)
    names = [source.name for source in found.sources]
    firsts = [first for first, _ in found.mixture.stages]
    is_right = (
        len(set(names)) == len(names)
        and firsts[:1] == [0]
        and sorted(set(firsts)) == firsts
        and all(len(shares) == len(names) for _, shares in found.mixture.stages)
        and all(_SHARE.fullmatch(share) for _, shares in found.mixture.stages for share in shares)
    )
    if not is_right:
        raise RecordError(f"{_WHERE} is damaged: its stages are not those of its sources.")
    return found


@dataclass(frozen=True)
class Continuity:
    """How one description differs from another, each difference in words."""

    breaks: list[str]
    """Differences that change samples already drawn."""
    advice: str
    """What to type instead if the weights are the cause; empty if the change can only be accepted."""
    ahead: list[str]
    """Differences that concern only samples to come."""
    has_new_tokens: bool
    """True if a source that was drawn from has different tokens now."""


def compare(before: dict[str, Any], now: dict[str, Any], drawn: int) -> Continuity:
    """Compare two descriptions.

    Args:
        before: description of the data that the samples so far were drawn from.
        now: description of the data to go on with.
        drawn: position of the data stream.

    Raises:
        RecordError: `before` is not a description.
    """
    read_description(before)
    breaks = [
        f"{key}: {_short(before.get(key))} -> {_short(now.get(key))}"
        for key in sorted({*before, *now} - _COMPARED_HERE)
        if before.get(key) != now.get(key)
    ]
    old, new = _stages(before), _stages(now)
    begun = [stage for stage in old if stage[0] < drawn]
    used = [
        source
        for source in before["sources"]
        if any(source["name"] in shares for _, shares in begun)
    ]
    changed = _source_breaks(used, now["sources"], drawn)
    breaks += changed
    order = [source["name"] for source in used]
    is_present = {source["name"] for source in now["sources"]} >= set(order)
    advice = ""
    wanted = _earlier_order(now, order)
    if is_present and wanted is not None:
        breaks.append(
            f"data.paths are in a different order than {', '.join(wanted)}, and their order breaks ties"
        )
        advice = f"Name data.paths in the order {', '.join(wanted)}"
        now = _reordered(now, wanted)
    if is_present and not _same_past(before, now, order, drawn):
        breaks.append(
            f"the weights before sample {drawn:,} were {_in_words(begun)}, and are now "
            f"{_in_words([stage for stage in new if stage[0] < drawn])}"
        )
        words = _advice(begun, new, before, now, drawn)
        advice = f"{advice}. {words}" if advice else words
    known = {source["name"] for source in before["sources"]}
    ahead = [
        f"new source {source['name']} of {source['tokens']:,} tokens"
        for source in now["sources"]
        if source["name"] not in known
    ]
    coming = [stage for stage in new if stage[0] >= drawn]
    if coming != [stage for stage in old if stage[0] >= drawn]:
        ahead.append(f"weights ahead: {_in_words(coming) or 'as they are'}")
    return Continuity(breaks, advice, ahead, bool(changed))


def _source_breaks(used: list[dict[str, Any]], now: list[dict[str, Any]], drawn: int) -> list[str]:
    """List the changes of sources that samples were drawn from."""
    found = {source["name"]: source for source in now}
    breaks: list[str] = []
    for source in used:
        name, same = source["name"], found.get(source["name"])
        if same is None and name == INSTRUCTIONS:
            breaks.append(
                f"{name} ({source['tokens']:,} tokens) is empty now; to draw no more from it, keep it and add the point "
                f"[{drawn},0] at the end of data.instruction_share"
            )
        elif same is None:
            breaks.append(
                f"source {name} ({source['tokens']:,} tokens) is missing from data.paths; to draw no more from it, keep "
                "it there with weight 0 in a new row of data.stages"
            )
        elif same["fingerprint"] != source["fingerprint"] or same["tokens"] != source["tokens"]:
            together = (
                " (its data sets share one order: with one more or one fewer of them, or another data.instruction_cap, "
                "all records are shuffled anew, and some repeat in the current epoch before others are seen)"
                if name == INSTRUCTIONS
                else ""
            )
            breaks.append(
                f"source {name} had {source['tokens']:,} tokens with fingerprint {source['fingerprint']}, and has "
                f"{same['tokens']:,} with {same['fingerprint']}{together}"
            )
    return breaks


def _earlier_order(now: dict[str, Any], order: list[str]) -> list[str] | None:
    """Names of the corpora, with those drawn from so far in their earlier order; None if they are in it already."""
    names = [source["name"] for source in now["sources"]]
    if [name for name in names if name in order] == order:
        return None
    return [
        name
        for name in (*order, *(name for name in names if name not in order))
        if name != INSTRUCTIONS
    ]


def _reordered(now: dict[str, Any], wanted: list[str]) -> dict[str, Any]:
    """The same data with the sources, and their shares in each stage, in another order; instructions stay last."""
    names = [source["name"] for source in now["sources"]]
    places = [names.index(name) for name in [*wanted, *(set(names) - set(wanted))]]
    stages = [
        [first, [shares[place] for place in places]] for first, shares in now["mixture"]["stages"]
    ]
    return {
        **now,
        "sources": [now["sources"][place] for place in places],
        "mixture": {**now["mixture"], "stages": stages},
    }


def _same_past(before: dict[str, Any], now: dict[str, Any], order: list[str], drawn: int) -> bool:
    """True if the stages that have begun are equal, and so is the order of sources that decides between equals."""
    begun = [[stage for stage in _stages(each) if stage[0] < drawn] for each in (before, now)]
    ramps = [each["mixture"]["ramp_samples"] for each in (before, now)]
    same_order = [source["name"] for source in now["sources"] if source["name"] in order] == order
    return begun[0] == begun[1] and same_order and (ramps[0] == ramps[1] or len(begun[0]) == 1)


def _advice(
    begun: list[_Stage], new: list[_Stage], before: dict[str, Any], now: dict[str, Any], drawn: int
) -> str:
    """The overrides that keep the weights so far, and use the present ones from here on."""
    names = [source["name"] for source in now["sources"] if source["name"] != INSTRUCTIONS]
    target = [shares for first, shares in new if first <= drawn][-1]
    rows = [*begun, *([(drawn, target)] if target != begun[-1][1] else [])]
    rows += [stage for stage in new if stage[0] > drawn]
    ramp = before["mixture"]["ramp_samples"]
    has_instructions = any(INSTRUCTIONS in shares for _, shares in rows)
    texts = _texts_alone(rows) if has_instructions else rows
    words: list[str] = []
    if not has_instructions or len(texts) > 1 or texts != _texts_alone(new):
        typed = ",".join(_row(stage, names) for stage in texts)
        words += [f"data.stages=[{typed}]", "data.weights=null"]
    if has_instructions:
        typed = ",".join(
            f"[{first},{float(shares.get(INSTRUCTIONS, 0)):g}]" for first, shares in rows
        )
        words.append(f"data.instruction_share=[{typed}]")
    if ramp != now["mixture"]["ramp_samples"]:
        words.append(f"data.stage_ramp_samples={ramp}")
    return f"To continue with the new weights from here, type {' '.join(words)}"


def _texts_alone(stages: list[_Stage]) -> list[_Stage]:
    """Shares of the other sources among themselves, without the instructions; only where they change.

    Where instructions are all that is drawn, any shares of the others will do: those that are there before or after.
    """
    drawn = [stage for stage in stages if _texts_share(stage[1])] or [
        (stages[0][0], dict.fromkeys(stages[0][1], Fraction(1)))
    ]
    alone: list[_Stage] = []
    for first, shares in [(stages[0][0], drawn[0][1]), *drawn]:
        whole = _texts_share(shares)
        proportions = {
            name: share / whole for name, share in shares.items() if name != INSTRUCTIONS
        }
        if not alone or proportions != alone[-1][1]:
            alone.append((first, proportions))
    return alone


def _texts_share(shares: dict[str, Fraction]) -> Fraction:
    return sum((share for name, share in shares.items() if name != INSTRUCTIONS), Fraction(0))


def _row(stage: _Stage, names: list[str]) -> str:
    """A row of `data.stages` whose whole weights are exactly these shares."""
    first, shares = stage
    common = lcm(*(share.denominator for share in shares.values()))
    weights = [str(int(shares.get(name, Fraction(0)) * common)) for name in names]
    return f"[{','.join([str(first), *weights])}]"


def _stages(description: dict[str, Any]) -> list[_Stage]:
    names = [source["name"] for source in description["sources"]]
    return [
        (
            int(first),
            {
                name: Fraction(share)
                for name, share in zip(names, shares, strict=True)
                if Fraction(share)
            },
        )
        for first, shares in description["mixture"]["stages"]
    ]


def _in_words(stages: list[_Stage]) -> str:
    return "; ".join(
        f"from {first:,} "
        + ", ".join(f"{name} {float(share):.4g}" for name, share in shares.items())
        for first, shares in stages
    )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 300 else text[:300] + "..."
