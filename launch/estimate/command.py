"""The estimate command: parse the arguments, check that the run fits its GPUs, print the table or the search."""

from configs.load import load_config
from configs.schema import Config
from configs.terminal import columns, hanging
from launch.estimate.facts import fact_rows
from launch.estimate.forecast import forecast_rows
from launch.estimate.memory_table import memory_table
from launch.estimate.plan import GIB, ClusterPlan, usable_gib
from launch.estimate.search import advice, search_table
from launch.options import parse

SEARCH = "--search"


def estimate(words: list[str]) -> str:
    """Render the estimate, or with `--search` the best layouts.

    Args:
        words: overrides from the command line, and `--search`.

    Raises:
        ConfigError: the configuration cannot run, or does not fit its GPUs.
    """
    request = parse(words, switches=(SEARCH,), valued=())
    overrides = request.overrides
    if SEARCH in request.switches:
        config = load_config(overrides, also=_needs_gpu)
        return search_table(config, columns())
    config = load_config(overrides, also=_impossible)
    plan = ClusterPlan.of(config)
    rows = [*fact_rows(config), *forecast_rows(plan)]
    longest, width = max(len(name) for name, _ in rows), columns()
    lines = [hanging(f"{name:<{longest}}  ", text, width) for name, text in rows]
    return "\n".join([*lines, "", *memory_table(plan, width)])


def _needs_gpu(config: Config) -> list[str]:
    if config.cluster.gpu is not None:
        return []
    return ["cluster.gpu (null): a search needs to know the GPU. Try cluster.gpu=A100-80G."]


def _impossible(config: Config) -> list[str]:
    return [*_does_not_fit(config), *_faster_than_peak(config)]


def _faster_than_peak(config: Config) -> list[str]:
    """Report a measured step time that is shorter than the GPUs' peak allows."""
    plan, measured = ClusterPlan.of(config), config.cluster.measured_seconds_per_step
    if measured is None or plan.gpu is None or plan.mfu is None or plan.mfu <= 1:
        return []
    least = measured * plan.mfu
    return [
        f"cluster.measured_seconds_per_step ({measured:g}) is less than the {least:.3g} s that {plan.gpus:,} GPUs need at "
        f"their peak of {plan.gpu.peak_tflops:g} TFLOP/s (cluster.peak_tflops). "
        "Try cluster.measured_seconds_per_step=null to use the modelled time."
    ]


def _does_not_fit(config: Config) -> list[str]:
    """Report how much memory is missing, what needs it, and which layout of the same cluster fits."""
    plan = ClusterPlan.of(config)
    if plan.missing_gib == 0 or plan.gpu is None:
        return []
    stage = plan.fullest
    parts = {
        "weights": stage.weights,
        "gradients": stage.gradients,
        "masters and moments": stage.masters + stage.moments,
        "activations": stage.activations,
        "outputs and buffers": stage.peak - stage.state - stage.activations,
    }
    named = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items() if size > 0)
    return [
        f"Stage {stage.stage} needs {stage.peak / GIB:.1f} GiB on each GPU ({named}), but of cluster.gpu "
        f"({config.cluster.gpu})'s {plan.gpu.memory_gib:g} GiB {usable_gib(plan.gpu):.1f} can be used. {advice(config)}."
    ]
