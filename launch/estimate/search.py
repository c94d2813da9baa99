"""Search tp x pp x chunks x micro-batch x recompute for the fastest layout that fits, and explain why the others are slower."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from configs import derive, pipeline
from configs.errors import ConfigError
from configs.hardware import PRESETS, gpu_of
from configs.schema import Config, ParallelConfig, PipelineSchedule, Recompute
from configs.terminal import hanging
from configs.validate import are_sizes_sound
from launch.estimate.plan import GIB, ClusterPlan, needed_gib, usable_gib

_MICRO_BATCHES = (1, 2, 4, 8, 16)
_CHUNKS = (2, 3, 4, 6)
_SHOWN = 5
_MORE_NODES = (2, 4, 8)


@dataclass(frozen=True)
class Candidate:
    """A layout that the trainer accepts."""

    plan: ClusterPlan
    more: str = ""
    """Further overrides to type: the schedule, if it is not the given one; the ranks of a node, if `cluster.*` is left at
    one rank."""

    @property
    def seconds(self) -> float:
        """Modelled seconds of a step."""
        assert self.plan.step is not None, "a search needs a GPU"
        return self.plan.step.total

    @property
    def fits(self) -> bool:
        """True if every stage fits its GPU."""
        return self.plan.missing_gib == 0

    @property
    def words(self) -> str:
        """The overrides that choose this layout."""
        config = self.plan.config
        recompute = config.parallel.recompute.value
        return (
            f"parallel.tp={config.parallel.tp} parallel.pp={config.parallel.pp} "
            f"optim.micro_batch_size={config.optim.micro_batch_size} parallel.recompute={recompute}{self.more}"
        )


def candidates(config: Config) -> list[Candidate]:
    """All layouts of the cluster that pass the checks of the configuration, fastest first."""
    ranks = derive.ranks_per_node(config)
    more = "" if ranks == config.cluster.gpus_per_node else f" cluster.gpus_per_node={ranks}"
    found = [
        Candidate(ClusterPlan.of(changed), _schedule_words(config, changed) + more)
        for changed in _layouts(config)
    ]
    return sorted(found, key=lambda candidate: candidate.seconds)


def _schedule_words(given: Config, changed: Config) -> str:
    """What to type for the schedule of a layout, if it is not the given one."""
    chunks = pipeline.num_chunks(changed.parallel)
    if chunks == pipeline.num_chunks(given.parallel):
        return ""
    if chunks > 1:
        return f" parallel.schedule=interleaved parallel.chunks={chunks}"
    cleared = " parallel.chunks=null" if given.parallel.chunks else ""
    return f" parallel.schedule=1f1b{cleared}"


def fastest_that_fits(config: Config) -> Candidate | None:
    """The best layout of this model, batch and cluster; None if nothing fits."""
    return next((candidate for candidate in candidates(config) if candidate.fits), None)


def advice(config: Config) -> str:
    """What to type if the given layout does not fit: another layout, or the next larger GPU or cluster that has one."""
    for word, changed in (("", config), *_larger(config)):
        best = fastest_that_fits(changed)
        if best is not None:
            return f"Try {word}{best.words}"
    nearest = _nearest(candidates(config))
    return (
        f"No layout of this cluster fits, nor of {_MORE_NODES[-1]} times as many nodes. Try GPUs with more memory: "
        f"cluster.gpu_memory_gib={needed_gib(nearest.plan.fullest.peak)} {nearest.words}"
    )


def search_table(config: Config, width: int | None = None) -> str:
    """Render the best layouts, the given one, and the faster ones that do not fit.

    Args:
        config: configuration of the run.
        width: width of the terminal; if it is narrow, the reason why a layout is slower is on a line of its own. None:
            no limit.

    Raises:
        ConfigError: no layout fits.
    """
    found = candidates(config)
    fitting = [candidate for candidate in found if candidate.fits]
    if not fitting:
        nearest = _nearest(found)
        raise ConfigError(
            [
                f"No layout of {nearest.plan.gpus:,} GPUs fits cluster.gpu ({config.cluster.gpu}): the closest lacks "
                f"{nearest.plan.missing_gib:.1f} GiB. {advice(config)}."
            ]
        )
    best = fitting[0]
    head = _HEAD if width is None or len(_HEAD) <= width else _HEAD.removesuffix("   why")
    lines = [head, *(_row(candidate, best, width) for candidate in fitting[:_SHOWN])]
    given = _layout_of(config)
    own = next(
        (candidate for candidate in found if _layout_of(candidate.plan.config) == given), None
    )
    if own is not None and own not in fitting[:_SHOWN]:
        lines += ["", "the given layout:", _row(own, best, width)]
    too_large = [candidate for candidate in found if not candidate.fits]
    faster = [candidate for candidate in too_large if candidate.seconds < best.seconds]
    if faster:
        lines += [
            "",
            "faster, but too large:",
            *(_row(each, best, width) for each in faster[:_SHOWN]),
        ]
    if any(pipeline.num_chunks(each.plan.config.parallel) > 1 for each in fitting[:_SHOWN]):
        lines += ["", "pp 8x3: 8 stages of 3 parts each, with parallel.schedule=interleaved"]
    lines += ["", hanging("Best: ", best.words, width)]
    lines += [hanging("", reason, width) for reason in _reasons(best, own)]
    return "\n".join(lines)


def _nearest(found: list[Candidate]) -> Candidate:
    """The layout that needs the least memory."""
    return min(found, key=lambda candidate: candidate.plan.fullest.peak)


_HEAD = "  tp   pp   dp  micro  recompute    memory GiB   bubble  tp sums  step s    MFU   why"


def _row(candidate: Candidate, best: Candidate, width: int | None) -> str:
    plan, config = candidate.plan, candidate.plan.config
    step = plan.step
    assert step is not None and plan.gpu is not None and plan.mfu is not None
    dp = derive.data_parallel_size(config, plan.gpus)
    sums = step.num_micro_batches * step.tensor_parallel
    memory = f"{plan.fullest.peak / GIB:.1f} of {usable_gib(plan.gpu):.1f}"
    chunks = pipeline.num_chunks(config.parallel)
    pp = f"{config.parallel.pp}x{chunks}" if chunks > 1 else str(config.parallel.pp)
    figures = (
        f"{config.parallel.tp:4} {pp:>4} {dp:4} {config.optim.micro_batch_size:6} "
        f"{config.parallel.recompute.value:>10} {memory:>13}  "
        f"{step.bubble / step.total:7.1%} {sums / step.total:8.1%} "
        f"{candidate.seconds:7.2f} {plan.mfu:6.1%}"
    )
    why = _why(candidate, best)
    is_narrow = width is not None and len(figures) + len(why) + 3 > width
    return f"{figures}\n{'':6}{why}" if is_narrow else f"{figures}   {why}"


def _why(candidate: Candidate, best: Candidate) -> str:
    """The largest additional cost of this layout over the best one."""
    plan = candidate.plan
    if not candidate.fits:
        return f"lacks {plan.missing_gib:.1f} GiB on stage {plan.fullest.stage}"
    if candidate is best:
        return "the fastest that fits"
    costs = {
        name: value - other
        for (name, value), (_, other) in zip(_costs(plan), _costs(best.plan), strict=True)
    }
    name = max(costs, key=lambda each: costs[each])
    return f"{costs[name]:+.2f} s of {name}"


def _costs(plan: ClusterPlan) -> list[tuple[str, float]]:
    """Seconds of a step, by cause; they add up to it."""
    step = plan.step
    assert step is not None
    count = step.num_micro_batches
    return [
        ("recompute", count * step.recompute),
        (
            "matrix products and memory traffic",
            count * (step.micro_batch - step.recompute - step.accumulation),
        ),
        ("adding up gradients", count * step.accumulation),
        ("tensor-parallel sums", count * step.tensor_parallel),
        ("traffic between stages", count * step.pipeline_traffic),
        ("pipeline bubble", step.bubble),
        ("gradient reduction", step.gradients),
        ("update", step.update),
    ]


def _reasons(best: Candidate, own: Candidate | None) -> list[str]:
    """Compare the best layout with the given one, cause by cause."""
    if own is None:
        return []
    if _layout_of(own.plan.config) == _layout_of(best.plan.config):
        return ["This is the given layout."]
    parts = [
        f"{name} {theirs:.2f} -> {ours:.2f} s"
        for (name, theirs), (_, ours) in zip(_costs(own.plan), _costs(best.plan), strict=True)
        if abs(theirs - ours) >= 0.005
    ]
    return [
        f"Compared with the given layout ({own.seconds:.2f} -> {best.seconds:.2f} s per step): {', '.join(parts)}."
    ]


def _layout_of(config: Config) -> tuple[int, int, int, int, Recompute]:
    parallel, micro = config.parallel, config.optim.micro_batch_size
    return parallel.tp, parallel.pp, pipeline.num_chunks(parallel), micro, parallel.recompute


def _larger(config: Config) -> Iterator[tuple[str, Config]]:
    """The same run on GPUs with more memory, then on more nodes, and what to type for it."""
    gpu, cluster = gpu_of(config.cluster), config.cluster
    assert gpu is not None, "a search needs a GPU"
    for name, preset in PRESETS.items():
        if cluster.gpu_memory_gib is None and preset.memory_gib > gpu.memory_gib:
            yield f"cluster.gpu={name} ", replace(config, cluster=replace(cluster, gpu=name))
    for times in _MORE_NODES:
        nodes = cluster.nodes * times
        yield f"cluster.nodes={nodes} ", replace(config, cluster=replace(cluster, nodes=nodes))


def _layouts(config: Config) -> Iterator[Config]:
    ranks, model, gpus_per_node = (
        derive.planned_world_size(config),
        config.model,
        derive.ranks_per_node(config),
    )
    # A measured time belongs to one layout, so all layouts are compared by modelled times. If the cluster is left at its
    # default of one rank, it gets the size that the given layout needs, and the other layouts use the same.
    cluster = replace(config.cluster, measured_seconds_per_step=None, gpus_per_node=gpus_per_node)
    config = replace(config, cluster=cluster)
    for tp in _divisors(model.num_heads):
        if gpus_per_node % tp and not config.cluster.tp_across_nodes:
            continue
        for pp in range(1, min(model.num_layers, ranks // tp) + 1):
            if ranks % (tp * pp):
                continue
            for parallel in _schedules(config, tp, pp):
                for micro_batch_size in sorted({*_MICRO_BATCHES, config.optim.micro_batch_size}):
                    for recompute in Recompute:
                        changed = replace(
                            config,
                            parallel=replace(parallel, recompute=recompute),
                            optim=replace(config.optim, micro_batch_size=micro_batch_size),
                        )
                        if are_sizes_sound(changed):
                            yield changed


def _schedules(config: Config, tp: int, pp: int) -> Iterator[ParallelConfig]:
    """1F1B, and the interleaved schedule with the given parts or those that divide the model evenly."""
    plain = PipelineSchedule["1f1b"]
    yield replace(config.parallel, tp=tp, pp=pp, schedule=plain, chunks=None)
    given = pipeline.num_chunks(config.parallel)
    even = {chunks for chunks in _CHUNKS if (config.model.num_layers + 2) % (pp * chunks) == 0}
    for chunks in sorted(even | ({given} - {1})) if pp > 1 else ():
        interleaved = PipelineSchedule.interleaved
        yield replace(config.parallel, tp=tp, pp=pp, schedule=interleaved, chunks=chunks)


def _divisors(value: int) -> list[int]:
    return [size for size in range(1, value + 1) if value % size == 0]
