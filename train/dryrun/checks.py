"""Checks that the ranks fit together: each compares facts and names the ranks that disagree."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from configs import cutting, derive
from configs.schema import Config
from data_pipeline.sampler import drawn_index
from train.dryrun.facts import RankFacts

Facts = Sequence[RankFacts]


def place_problems(config: Config, facts: Facts) -> list[str]:
    """Check that every coordinate of the grid has one rank."""
    tp, pp = config.parallel.tp, config.parallel.pp
    dp = derive.data_parallel_size(config, derive.planned_world_size(config))
    taken = Counter((one.pp_rank, one.dp_rank, one.tp_rank) for one in facts)
    expected = {(p, d, t) for p in range(pp) for d in range(dp) for t in range(tp)}
    return [
        f"coordinate {place} of the grid has {taken[place]} ranks"
        for place in sorted(expected)
        if taken[place] != 1
    ]


def group_problems(config: Config, facts: Facts) -> list[str]:
    """Check that members of a group agree on it and differ only along its axis, and that both libraries have equal groups."""
    by_rank = {one.rank: one for one in facts}
    axes: dict[str, Callable[[RankFacts], tuple[int, int]]] = {
        "tensor": lambda one: (one.pp_rank, one.dp_rank),
        "data": lambda one: (one.pp_rank, one.tp_rank),
        "pipeline": lambda one: (one.dp_rank, one.tp_rank),
    }
    found: list[str] = []
    for axis, place_of in axes.items():
        expected: dict[tuple[int, int], list[int]] = defaultdict(list)
        for one in facts:
            expected[place_of(one)].append(one.rank)
        for one in facts:
            for name, members in one.groups.items():
                if name.endswith(axis) and sorted(members) != sorted(expected[place_of(one)]):
                    found.append(f"{one}: its {name} group is {members}")
    for one in facts:
        for stage, other in zip((one.pp_rank - 1, one.pp_rank + 1), one.neighbours, strict=True):
            if other is None:
                continue
            there = by_rank[other]
            if (there.pp_rank, there.dp_rank, there.tp_rank) != (stage, one.dp_rank, one.tp_rank):
                found.append(f"{one}: its neighbour stage {stage} is {there}")
    return found


def stage_problems(config: Config, facts: Facts) -> list[str]:
    """Check that the ranks of a stage hold the same entries, that each entry is on one stage, and that stages are balanced."""
    num_layers, pp = config.model.num_layers, config.parallel.pp
    held = {one.pp_rank: one.chunks for one in reversed(facts)}
    found = [
        f"{one}: it holds the entries {_text(one.chunks)}, other ranks of its stage {_text(held[one.pp_rank])}"
        for one in facts
        if one.chunks != held[one.pp_rank]
    ]
    entries = [entry for chunks in held.values() for chunk in chunks for entry in chunk]
    if sorted(entries) != list(range(num_layers + 3)):
        found.append(
            f"the stages hold {'; '.join(map(_text, held.values()))} instead of entries 0 to {num_layers + 2} once each"
        )
        return found
    head = cutting.head_layers(config.model)
    turns = zip(*(held[stage] for stage in range(pp)), strict=True)
    layers = [cutting.layers_among(num_layers, [part]) for turn in turns for part in turn]
    best = cutting.layers_of_parts(num_layers, len(layers), head)
    if max(*layers[:-1], layers[-1] + head, 0.0) > max(*best[:-1], best[-1] + head, 0.0):
        found.append(
            f"the parts hold {layers} layers instead of {list(best)}: all wait for the slowest"
        )
    return found


def _text(chunks: list[range]) -> str:
    return ", ".join(f"{chunk.start} to {chunk.stop - 1}" for chunk in chunks)


def parameter_problems(config: Config, facts: Facts) -> list[str]:
    """Check that tensor slices make whole tensors, that replicas are equal, and that all stages make the model."""
    by_place = {(one.pp_rank, one.dp_rank, one.tp_rank): one for one in facts}
    found: list[str] = []
    whole: dict[str, tuple[int, ...]] = {}
    for one in facts:
        first = by_place[one.pp_rank, 0, one.tp_rank]
        if one.parameters != first.parameters:
            found.append(f"{one}: its parameters differ from those of {first}")
        names = by_place[one.pp_rank, one.dp_rank, 0].parameters
        if one.parameters.keys() != names.keys():
            found.append(f"{one}: it holds different parameters than its tensor-parallel group")
    for pp_rank in range(config.parallel.pp):
        shards = [by_place[pp_rank, 0, tp_rank] for tp_rank in range(config.parallel.tp)]
        for name, parameter in shards[0].parameters.items():
            parts = [shard.parameters[name] for shard in shards if name in shard.parameters]
            shape = list(parameter.shape)
            if parameter.axis is not None:
                shape[parameter.axis] = sum(part.shape[parameter.axis] for part in parts)
            elif any(part.shape != parameter.shape for part in parts):
                found.append(
                    f"{name}: the tensor-parallel ranks of stage {pp_rank} disagree on its shape"
                )
            if whole.setdefault(name, tuple(shape)) != tuple(shape):
                found.append(
                    f"{name}: {whole[name]} on one stage, {tuple(shape)} on stage {pp_rank}"
                )
    count = sum(math.prod(shape) for shape in whole.values())
    if count != derive.parameters(config.model):
        found.append(
            f"the stages together hold {count:,} parameters, the model has {derive.parameters(config.model):,}"
        )
    return found


def tied_problems(config: Config, facts: Facts) -> list[str]:
    """Check that the two copies of a tied module are linked: same replica, same slice, first and last stage."""
    last = config.parallel.pp - 1
    if last == 0:
        return []
    by_rank = {one.rank: one for one in facts}
    place = {(one.pp_rank, one.dp_rank, one.tp_rank): one.rank for one in facts}
    found: list[str] = []
    for one in facts:
        if one.pp_rank not in (0, last):
            if one.tied:
                found.append(f"{one}: a middle stage holds a tied module")
            continue
        expected = sorted(place[stage, one.dp_rank, one.tp_rank] for stage in (0, last))
        if not one.tied:
            found.append(f"{one}: it has no tied module")
        for key, ranks in one.tied.items():
            if sorted(ranks) != expected:
                known = ", ".join(str(by_rank[rank]) for rank in ranks)
                found.append(f"{one}: its tied {key} is shared with {known}, not ranks {expected}")
    owners = Counter(
        (one.dp_rank, one.tp_rank)
        for one in facts
        for parameter in one.parameters.values()
        if parameter.is_copy
    )
    found += [
        f"dp {dp_rank}, tp {tp_rank}: {count} tied copies instead of one"
        for (dp_rank, tp_rank), count in owners.items()
        if count != 1
    ]
    return found


def sample_problems(config: Config, facts: Facts) -> list[str]:
    """Check that the replicas draw each sample of a step once, and that all ranks of a replica draw the same samples."""
    found: list[str] = []
    readers = [one for one in facts if one.steps]
    leaders = {one.dp_rank: one for one in readers if one.pp_rank == 0 and one.tp_rank == 0}
    for one in readers:
        if one.steps != leaders[one.dp_rank].steps:
            found.append(f"{one}: it draws different samples than {leaders[one.dp_rank]}")
    for number, first in enumerate(leaders[0].steps):
        drawn: dict[int, list[int]] = defaultdict(list)
        for dp_rank, leader in sorted(leaders.items()):
            for indices in leader.steps[number].micro_batches:
                for index in indices:
                    drawn[index].append(dp_rank)
        skip = config.data.skip_samples
        due = {drawn_index(first.first_sample + place, skip) for place in range(first.num_samples)}
        twice = sorted(index for index, by in drawn.items() if len(by) > 1)
        missing, extra = sorted(due - drawn.keys()), sorted(drawn.keys() - due)
        where = f"the step after {first.first_sample:,} samples"
        if twice:
            by = ", ".join(f"dp {dp_rank}" for dp_rank in drawn[twice[0]])
            found.append(
                f"{where} draws sample {twice[0]:,} twice ({by}); {len(twice):,} samples like it"
            )
        if missing:
            found.append(
                f"{where} never draws sample {missing[0]:,}; {len(missing):,} samples like it"
            )
        if extra:
            found.append(f"{where} draws sample {extra[0]:,} of another step")
    return found


CHECKS: dict[str, Callable[[Config, Facts], list[str]]] = {
    "places": place_problems,
    "groups": group_problems,
    "stages": stage_problems,
    "parameters": parameter_problems,
    "tied weights": tied_problems,
    "samples": sample_problems,
}
