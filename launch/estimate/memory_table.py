"""Memory per GPU as a table: a row for each part, a column for each kind of stage."""

from collections.abc import Callable
from dataclasses import replace

from configs.schema import Recompute
from configs.terminal import hanging
from launch.estimate.memory import StageMemory, memory_of_stages
from launch.estimate.plan import GIB, ClusterPlan, is_on_gpu, usable_gib

_PARTS: dict[str, Callable[[StageMemory], int]] = {
    "weights": lambda stage: stage.weights,
    "gradients": lambda stage: stage.gradients,
    "masters (fp32)": lambda stage: stage.masters,
    "moments (fp32)": lambda stage: stage.moments,
    "activations": lambda stage: stage.activations,
    "last outputs": lambda stage: stage.outputs,
    "pipe buffers": lambda stage: stage.pipe_buffers,
    "reduce bucket while a micro-batch runs": lambda stage: stage.in_backward,
    "copies of the reduction": lambda stage: stage.in_reduction,
    "copies of the update": lambda stage: max(stage.in_update, 0),
    "peak: backward pass": lambda stage: stage.phases["backward"],
    "peak: reduction": lambda stage: stage.phases["reduction"],
    "peak: update": lambda stage: stage.phases["update"],
}
_PHASES = {"backward": "backward pass", "reduction": "reduction", "update": "update"}
_NAME = max(map(len, _PARTS))
_COLUMN = 14


def memory_table(plan: ClusterPlan, width: int | None = None) -> list[str]:
    """Render the table, and what changing `parallel.recompute` would do.

    Args:
        plan: the run on its cluster.
        width: width of the terminal; wider tables are split and wider lines are wrapped. None: no limit.
    """
    groups = _groups(plan.stages)
    lines = [line for some in _side_by_side(groups, width) for line in _table(plan, some)]
    unit, name_of_unit = _unit(plan)
    if plan.gpu is not None:
        peak = plan.fullest.peak / unit
        lines.append(
            hanging(
                "",
                f"It fits: {peak:,.1f} {name_of_unit} of {usable_gib(plan.gpu) * GIB / unit:,.1f} usable "
                f"({plan.gpu.memory_gib:g} less 1.5 for CUDA and NCCL and 5 % fragmentation).",
                width,
            )
        )
    others = [mode for mode in Recompute if mode is not plan.config.parallel.recompute]
    return [*lines, *(hanging("", _other_recompute(plan, mode), width) for mode in others)]


def _side_by_side(
    groups: list[list[StageMemory]], width: int | None
) -> list[list[list[StageMemory]]]:
    """Split the columns into tables that fit the terminal."""
    room = len(groups) if width is None else max((width - _NAME) // _COLUMN, 1)
    return [groups[first : first + room] for first in range(0, len(groups), room)]


def _table(plan: ClusterPlan, groups: list[list[StageMemory]]) -> list[str]:
    names = [
        f"stage {first}" if first == last else f"stages {first}-{last}"
        for first, last in ((group[0].stage, group[-1].stage) for group in groups)
    ]
    unit, name_of_unit = _unit(plan)
    title = f"memory per {'GPU' if plan.gpu is not None else 'rank'}, {name_of_unit}"
    lines = [f"{title:<{_NAME}}" + "".join(f"  {name:>12}" for name in names)]
    for name, part in _PARTS.items():
        values = [part(group[0]) / unit for group in groups]
        if any(values):
            lines.append(f"{name:<{_NAME}}" + "".join(f"  {value:12,.2f}" for value in values))
    return lines


def _other_recompute(plan: ClusterPlan, recompute: Recompute) -> str:
    config = plan.config
    other = replace(config, parallel=replace(config.parallel, recompute=recompute))
    changed = max(memory_of_stages(other, is_on_gpu(config)), key=lambda stage: stage.peak)
    kept = max(stage.activations for stage in plan.stages)
    then = max(stage.activations for stage in memory_of_stages(other, is_on_gpu(config)))
    unit, name = _unit(plan)
    peak = f"and the peak {changed.peak / unit:,.2f} {name}"
    if changed.peak == plan.fullest.peak:
        phases = plan.fullest.phases
        when = max(phases, key=lambda phase: phases[phase])
        peak = f"but the peak would be the same: it is in the {_PHASES[when]}"
    return (
        f"With parallel.recompute={recompute.value} the activations would be {then / unit:,.2f} instead of "
        f"{kept / unit:,.2f} {name}, {peak}."
    )


def _unit(plan: ClusterPlan) -> tuple[int, str]:
    """The unit of memory of the whole page: its bytes and its name."""
    return (GIB, "GiB") if plan.fullest.peak >= GIB else (2**20, "MiB")


def _groups(stages: list[StageMemory]) -> list[list[StageMemory]]:
    """Group neighbouring stages that need the same memory."""
    groups: list[list[StageMemory]] = []
    for stage in stages:
        if groups and replace(groups[-1][0], stage=stage.stage) == stage:
            groups[-1].append(stage)
        else:
            groups.append([stage])
    return groups
