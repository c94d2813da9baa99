"""Search tp x pp x micro-batch x recompute for the fastest layout that fits, and say why the others lose."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from configs import derive
from configs.schema import Config
from configs.validate import are_sizes_sound
from launch.estimate.plan import GIB, Plan, usable_gib

_MICRO_BATCHES = (1, 2, 4, 8, 16)
_SHOWN = 5


@dataclass(frozen=True)
class Candidate:
    """A layout that the trainer accepts."""

    plan: Plan

    @property
    def seconds(self) -> float:
        """Of a step by the model."""
        assert self.plan.step is not None, "a search needs a GPU"
        return self.plan.step.total

    @property
    def fits(self) -> bool:
        """True if every stage fits its GPU."""
        return self.plan.missing_gib == 0

    @property
    def words(self) -> str:
        """What to type for it."""
        config = self.plan.config
        recompute = str(config.parallel.recompute).lower()
        return (
            f"parallel.tp={config.parallel.tp} parallel.pp={config.parallel.pp} "
            f"optim.micro_batch_size={config.optim.micro_batch_size} parallel.recompute={recompute}"
        )


def candidates(config: Config) -> list[Candidate]:
    """Every layout of the cluster that passes the configuration's checks, fastest first."""
    found = [Candidate(Plan.of(changed)) for changed in _layouts(config)]
    return sorted(found, key=lambda candidate: candidate.seconds)


def fastest_that_fits(config: Config) -> Candidate | None:
    """The best layout of this model, batch and cluster; None if nothing fits."""
    return next((candidate for candidate in candidates(config) if candidate.fits), None)


def search_table(config: Config) -> str:
    """Render the best layouts, the given one, and the faster ones that do not fit."""
    found = candidates(config)
    fitting = [candidate for candidate in found if candidate.fits]
    if not fitting:
        nearest = min(found, key=lambda candidate: candidate.plan.missing_gib)
        return (
            f"No layout of {nearest.plan.gpus:,} GPUs fits. The nearest lacks {nearest.plan.missing_gib:.1f} GiB: "
            f"{nearest.words}"
        )
    best = fitting[0]
    lines = [_HEAD, *(_row(candidate, best) for candidate in fitting[:_SHOWN])]
    given = _layout_of(config)
    own = next(
        (candidate for candidate in found if _layout_of(candidate.plan.config) == given), None
    )
    if own is not None and own not in fitting[:_SHOWN]:
        lines += ["", "the given layout:", _row(own, best)]
    too_large = [candidate for candidate in found if not candidate.fits]
    faster = [candidate for candidate in too_large if candidate.seconds < best.seconds]
    if faster:
        lines += ["", "faster, but too large:", *(_row(each, best) for each in faster[:_SHOWN])]
    lines += ["", f"The best: {best.words}", *_reasons(best, own)]
    return "\n".join(lines)


_HEAD = "  tp   pp   dp  micro  recompute    memory GiB   bubble  tp sums  step s    MFU   why"


def _row(candidate: Candidate, best: Candidate) -> str:
    plan, config = candidate.plan, candidate.plan.config
    step = plan.step
    assert step is not None and plan.gpu is not None and plan.mfu is not None
    dp = derive.data_parallel_size(config, plan.gpus)
    sums = step.num_micro_batches * step.tensor_parallel
    memory = f"{plan.fullest.peak / GIB:.1f} of {usable_gib(plan.gpu):.1f}"
    return (
        f"{config.parallel.tp:4} {config.parallel.pp:4} {dp:4} {config.optim.micro_batch_size:6} "
        f"{'yes' if config.parallel.recompute else 'no':>10} {memory:>13}  "
        f"{step.bubble / step.total:7.1%} {sums / step.total:8.1%} "
        f"{candidate.seconds:7.2f} {plan.mfu:6.1%}   {_why(candidate, best)}"
    )


def _why(candidate: Candidate, best: Candidate) -> str:
    """The largest cost that this layout has and the best has not."""
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


def _costs(plan: Plan) -> list[tuple[str, float]]:
    """Seconds of a step, by cause; they add up to it."""
    step = plan.step
    assert step is not None
    count = step.num_micro_batches
    recomputed = step.micro_batch / 4 if plan.config.parallel.recompute else 0.0
    return [
        ("recompute", count * recomputed),
        ("matrix products and memory traffic", count * (step.micro_batch - recomputed)),
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
        return ["It is the given layout."]
    parts = [
        f"{name} {theirs:.2f} -> {ours:.2f} s"
        for (name, theirs), (_, ours) in zip(_costs(own.plan), _costs(best.plan), strict=True)
        if abs(theirs - ours) >= 0.005
    ]
    return [
        f"Against the given layout ({own.seconds:.2f} -> {best.seconds:.2f} s a step): {', '.join(parts)}."
    ]


def _layout_of(config: Config) -> tuple[int, int, int, bool]:
    parallel = config.parallel
    return parallel.tp, parallel.pp, config.optim.micro_batch_size, parallel.recompute


def _layouts(config: Config) -> Iterator[Config]:
    ranks, model = derive.planned_world_size(config), config.model
    within_node = config.cluster.gpus_per_node if config.cluster.nodes > 1 else ranks
    for tp in _divisors(model.num_heads):
        if within_node % tp and not config.cluster.tp_across_nodes:
            continue
        for pp in range(1, min(model.num_layers, ranks // tp) + 1):
            if ranks % (tp * pp):
                continue
            for micro_batch_size in _MICRO_BATCHES:
                for recompute in (False, True):
                    changed = replace(
                        config,
                        parallel=replace(config.parallel, tp=tp, pp=pp, recompute=recompute),
                        optim=replace(config.optim, micro_batch_size=micro_batch_size),
                    )
                    if are_sizes_sound(changed):
                        yield changed


def _divisors(value: int) -> list[int]:
    return [size for size in range(1, value + 1) if value % size == 0]
