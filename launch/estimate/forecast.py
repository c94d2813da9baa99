"""The rows on time, efficiency, energy, cost and checkpoints; each says whether it is measured, exact or modelled."""

from configs import derive
from configs.hardware import Gpu
from launch.estimate.memory import checkpoint_bytes
from launch.estimate.network import Transformer
from launch.estimate.plan import GIB, ClusterPlan

Row = tuple[str, str]

# A goodput below this counts as no progress: a run that takes ten thousand times as long as its steps never ends.
_NO_PROGRESS = 1e-4


def forecast_rows(plan: ClusterPlan) -> list[Row]:
    """Return the rows of a run; without a known GPU, one that says how to name it."""
    if plan.gpu is None or plan.step is None:
        return [
            _checkpoint(plan),
            (
                "time, cost",
                "not known without a GPU. Name one: cluster.gpu=A100-80G (or H100, H200, B200, custom)",
            ),
        ]
    return [
        *_speed(plan, plan.gpu),
        *_run(plan, plan.gpu),
        _checkpoint(plan),
        *_saving(plan),
    ]


def _speed(plan: ClusterPlan, gpu: Gpu) -> list[Row]:
    config, step, seconds, mfu = plan.config, plan.step, plan.seconds_per_step, plan.mfu
    assert step is not None and seconds is not None and mfu is not None
    batch, seq = config.optim.global_batch_size, config.model.seq_length
    network = Transformer.of(config)
    ratio = network.flops_per_sample(config.parallel.recompute) / network.flops_per_sample()
    per_gpu = network.flops_per_sample(config.parallel.recompute) * batch / seconds / plan.gpus
    is_measured = config.cluster.measured_seconds_per_step is not None
    source = "measured" if is_measured else "by the speed model, docs/estimates.md"
    rows = [
        (
            "step",
            f"{seconds:,.2f} s ({source}): {batch / seconds:,.1f} samples/s, {batch * seq / seconds:,.0f} tokens/s",
        ),
        (
            "efficiency",
            f"{per_gpu / 1e12:,.1f} TFLOP/s per GPU of {gpu.peak_tflops:g}: HFU {mfu * ratio:.1%}, MFU {mfu:.1%}",
        ),
    ]
    if not is_measured:
        slots = step.num_micro_batches
        rows.append(
            (
                "of the step",
                f"computing {slots * (step.micro_batch - step.accumulation) / seconds:.1%}, adding up gradients "
                f"{slots * step.accumulation / seconds:.1%}, tensor-parallel sums "
                f"{slots * step.tensor_parallel / seconds:.1%}, between stages "
                f"{slots * step.pipeline_traffic / seconds:.1%}, bubble {step.bubble / seconds:.1%}, "
                f"gradients {step.gradients / seconds:.1%}, update {step.update / seconds:.1%}",
            )
        )
    return rows


def _run(plan: ClusterPlan, gpu: Gpu) -> list[Row]:
    run, interval = plan.run_seconds, plan.best_interval_seconds
    assert run is not None and interval is not None
    share = plan.goodput(interval)
    assert share is not None
    if share < _NO_PROGRESS:
        return [
            (
                "run",
                f"{run / 86400:,.1f} days of steps, but it never ends: {_why_no_progress(plan)}",
            )
        ]
    wall = run / share
    hours = wall / 3600 * plan.gpus
    return [
        (
            "run",
            f"{run / 86400:,.1f} days of steps, {wall / 86400:,.1f} with failures (expected goodput {share:.1%})",
        ),
        ("energy", f"{hours * gpu.watts / 1e6:,.1f} MWh of the GPUs at {gpu.watts:g} W each"),
        (
            "cost",
            f"{hours:,.0f} GPU hours, ${hours * gpu.price_per_hour:,.0f} at ${gpu.price_per_hour:g} "
            "(set cluster.gpu_price_per_hour)",
        ),
    ]


def _why_no_progress(plan: ClusterPlan) -> str:
    """Explain why failures leave no progress, and name the keys to check."""
    cluster, mtbf, interval = plan.config.cluster, plan.mtbf_seconds, plan.best_interval_seconds
    assert mtbf is not None and interval is not None
    return (
        f"one of {plan.gpus:,} GPUs fails every {_duration(mtbf)}, a restart takes {_duration(cluster.restart_minutes * 60)} "
        f"and a save comes every {_duration(interval)}. Check cluster.gpu_mtbf_hours, "
        "cluster.restart_minutes and cluster.storage_gb_per_second"
    )


def _checkpoint(plan: ClusterPlan) -> Row:
    config = plan.config
    on_host = plan.staging_bytes_per_rank * derive.ranks_per_node(config)
    text = (
        f"{_bytes(checkpoint_bytes(config))} on disk, "
        f"{on_host / GIB:,.1f} GiB of host memory per node while it is written"
    )
    limit = config.cluster.host_memory_gib
    if limit is not None and on_host / GIB > limit / 2:
        text += f": more than half of cluster.host_memory_gib ({limit:g})"
    return ("checkpoint", text)


def _saving(plan: ClusterPlan) -> list[Row]:
    config, mtbf, interval = plan.config, plan.mtbf_seconds, plan.best_interval_seconds
    seconds = plan.seconds_per_step
    assert mtbf is not None and interval is not None and seconds is not None
    batch = config.optim.global_batch_size
    steps = max(round(interval / seconds), 1)
    now = derive.save_every_samples(config) / batch * seconds
    at_this = plan.goodput(now)
    assert at_this is not None
    return [
        (
            "failures",
            f"one in {_duration(mtbf)} on {plan.gpus:,} GPUs; back after {config.cluster.restart_minutes:g} min",
        ),
        (
            "save every",
            f"{steps:,} steps ({interval / 60:,.0f} min), checkpoint.save_every_samples={steps * batch} "
            f"(Daly 2006; a save blocks {plan.save_block_seconds:,.1f} s, is written in "
            f"{plan.save_write_seconds:,.0f} s); as configured {now / 60:,.0f} min, goodput {at_this:.1%}",
        ),
    ]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:,.3g} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def _bytes(size: int) -> str:
    return f"{size / 1e9:,.3g} GB" if size < 1e12 else f"{size / 1e12:,.3g} TB"
