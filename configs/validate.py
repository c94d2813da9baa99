"""Every reason why a configuration cannot run, found before anything is loaded: pure functions, one check each.

A problem reads "key (value) relation key (value). What to type." What depends on the number of processes is in
configs/validate_batches.py.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, cast

from configs import derive
from configs.derive import GLM_130B_ROW as GLM_130B_ROW
from configs.schema import (
    AttentionPath,
    Config,
    DeviceKind,
    Precision,
    Schedule,
    SliceRule,
)
from configs.validate_batches import batch_problems, layout_problems, nearest_divisor

_SHORTEST_WINDOW = 32
_TIME = re.compile(r"(\d+-)?\d{1,2}:\d{2}:\d{2}")


def problems(config: Config, world_size: int | None = None) -> list[str]:
    """List everything that is wrong.

    Args:
        config: any configuration.
        world_size: number of processes; None before it is known: the data-parallel size is then `cluster.*`'s.
    """
    found = _finite(config)
    if not found:
        found = [problem for check in CHECKS for problem in check(config)]
    # These calculate with the positive numbers that the checks above ask for.
    if not found:
        found = layout_problems(config, world_size)
    if not found:
        found = batch_problems(config, world_size)
    return found


def _finite(config: Config) -> list[str]:
    return [
        f"{key} ({value}) must be a finite number. Try {key}=0.1."
        for key, value in _numbers(asdict(config), "")
        if not math.isfinite(value)
    ]


def _numbers(tree: Any, key: str) -> Iterator[tuple[str, float]]:
    """Every float with its key."""
    if isinstance(tree, dict):
        for name, value in cast(dict[str, Any], tree).items():
            yield from _numbers(value, f"{key}.{name}" if key else name)
    elif isinstance(tree, list):
        for value in cast(list[Any], tree):
            yield from _numbers(value, key)
    elif isinstance(tree, float):
        yield key, tree


def _positive(config: Config) -> list[str]:
    model, optim, stability = config.model, config.optim, config.stability
    values = {
        "run.stop_after_samples": config.run.stop_after_samples,
        "model.num_layers": model.num_layers,
        "model.hidden_size": model.hidden_size,
        "model.num_heads": model.num_heads,
        "model.ffn_size": model.ffn_size,
        "model.vocab_size": model.vocab_size,
        "model.vocab_multiple": model.vocab_multiple,
        "model.seq_length": model.seq_length,
        "parallel.tp": config.parallel.tp,
        "parallel.pp": config.parallel.pp,
        "optim.micro_batch_size": optim.micro_batch_size,
        "optim.global_batch_size": optim.global_batch_size,
        "optim.total_samples": optim.total_samples,
        "checkpoint.save_every_samples": config.checkpoint.save_every_samples,
        "checkpoint.keep_last": config.checkpoint.keep_last,
        "checkpoint.keep_every_samples": config.checkpoint.keep_every_samples,
        "eval.every_samples": config.eval.every_samples,
        "eval.num_samples": config.eval.num_samples,
        "objective.windows_per_row": config.objective.windows_per_row,
        "objective.max_span_length": config.objective.max_span_length,
        "stability.loss_scale_window": stability.loss_scale_window,
        "stability.loss_scale_hysteresis": stability.loss_scale_hysteresis,
        "stability.max_skipped_steps": stability.max_skipped_steps,
        "log.every_steps": config.log.every_steps,
        "cluster.nodes": config.cluster.nodes,
        "cluster.gpus_per_node": config.cluster.gpus_per_node,
    }
    if optim.batch_ramp is not None:
        values["optim.batch_ramp.start"] = optim.batch_ramp.start
        values["optim.batch_ramp.increment"] = optim.batch_ramp.increment
        values["optim.batch_ramp.samples"] = optim.batch_ramp.samples
    return [
        f"{key} ({value}) must be at least 1. Try {key}=1."
        for key, value in values.items()
        if value is not None and value < 1
    ]


def _above_zero(config: Config) -> list[str]:
    values = {
        "optim.lr": (config.optim.lr, 1e-4),
        "model.layernorm_epsilon": (config.model.layernorm_epsilon, 1e-5),
        "model.embedding_init_std": (config.model.embedding_init_std, 0.0052),
        "model.rope_base": (config.model.rope_base, 10000),
        "objective.mean_span_length": (config.objective.mean_span_length, 3),
        "cluster.peak_tflops": (config.cluster.peak_tflops, 312),
    }
    return [
        f"{key} ({value}) must be above 0. Try {key}={usual}."
        for key, (value, usual) in values.items()
        if value is not None and value <= 0
    ]


def _not_negative(config: Config) -> list[str]:
    values = {
        "optim.clip": config.optim.clip,
        "optim.weight_decay": config.optim.weight_decay,
        "optim.eps": config.optim.eps,
    }
    found = [
        f"{key} ({value}) must not be negative. Try {key}=0."
        for key, value in values.items()
        if value < 0
    ]
    if not 0 <= config.seed < 2**63:
        found.append(f"seed ({config.seed}) must lie between 0 and 2^63 - 1. Try seed=1234.")
    return found


def _shares(config: Config) -> list[str]:
    objective, model = config.objective, config.model
    whole = {
        "objective.gmask_share": objective.gmask_share,
        "objective.short_segment_probability": objective.short_segment_probability,
        "objective.single_span_probability": objective.single_span_probability,
        "objective.gmask_min_fraction": objective.gmask_min_fraction,
    }
    below_one = {
        "model.hidden_dropout": model.hidden_dropout,
        "model.attention_dropout": model.attention_dropout,
        "data.valid_fraction": config.data.valid_fraction,
        "optim.beta1": config.optim.beta1,
        "optim.beta2": config.optim.beta2,
    }
    found = [
        f"{key} ({value}) must be between 0 and 1. Try {key}=0.5."
        for key, value in whole.items()
        if not 0 <= value <= 1
    ]
    found += [
        f"{key} ({value}) must be at least 0 and below 1. Try {key}=0.1."
        for key, value in below_one.items()
        if not 0 <= value < 1
    ]
    if not 0 < objective.mask_fraction < 1:
        found.append(
            f"objective.mask_fraction ({objective.mask_fraction}) must be above 0 and below 1. "
            "Try objective.mask_fraction=0.15."
        )
    return found


def _heads(config: Config) -> list[str]:
    model = config.model
    if model.num_heads < 1 or model.hidden_size < 1:
        return []
    if model.hidden_size % model.num_heads:
        return [
            f"model.num_heads ({model.num_heads}) must divide model.hidden_size ({model.hidden_size}). "
            f"Try model.num_heads={nearest_divisor(model.hidden_size, model.num_heads)}."
        ]
    # Rotary positions turn pairs of numbers; with two coordinates each half of the head has its own pairs.
    multiple = 4 if model.rope_2d else 2
    if derive.head_size(model) % multiple:
        return [
            f"model.hidden_size ({model.hidden_size}) / model.num_heads ({model.num_heads}) must be a multiple of "
            f"{multiple} for rotary positions. Try model.hidden_size={model.num_heads * multiple * 16}."
        ]
    return []


def _rows(config: Config) -> list[str]:
    seq_length, windows = config.model.seq_length, config.objective.windows_per_row
    if seq_length < 1 or windows < 1:
        return []
    found: list[str] = []
    if seq_length % windows:
        found.append(
            f"objective.windows_per_row ({windows}) must divide model.seq_length ({seq_length}). "
            f"Try model.seq_length={max(seq_length // windows, _SHORTEST_WINDOW) * windows}."
        )
    elif seq_length // windows < _SHORTEST_WINDOW:
        found.append(
            f"model.seq_length ({seq_length}) / objective.windows_per_row ({windows}) must be at least "
            f"{_SHORTEST_WINDOW} tokens. Try model.seq_length={_SHORTEST_WINDOW * windows}."
        )
    whole = GLM_130B_ROW[1]
    if config.objective.slice_rule is SliceRule.glm_130b and seq_length % whole:
        found.append(
            f"model.seq_length ({seq_length}) must be a multiple of {whole} with objective.slice_rule (glm_130b), "
            f"whose rows hold {GLM_130B_ROW[0]}/{whole} of it. "
            f"Try model.seq_length={max(seq_length // whole, 1) * whole}."
        )
    return found


def _attention(config: Config) -> list[str]:
    model = config.model
    found: list[str] = []
    if model.attention_dropout > 0 and model.attention in (AttentionPath.sdpa, AttentionPath.flex):
        found.append(
            f"model.attention ({model.attention.value}) cannot apply model.attention_dropout "
            f"({model.attention_dropout}). Try model.attention=reference, or model.attention_dropout=0."
        )
    if model.attention is AttentionPath.flex and config.device is DeviceKind.cpu:
        found.append(
            "model.attention (flex) has no backward pass on device (cpu). Try model.attention=sdpa."
        )
    return found


def _tensor_parallel(config: Config) -> list[str]:
    model, tp = config.model, config.parallel.tp
    if tp < 1:
        return []
    cut = {"model.num_heads": model.num_heads, "model.ffn_size": model.ffn_size}
    found = [
        f"parallel.tp ({tp}) must divide {key} ({value}). Try parallel.tp={_nearest_tp(model.num_heads, tp)}."
        for key, value in cut.items()
        if value > 0 and value % tp
    ]
    if model.vocab_multiple > 0 and derive.padded_vocab_size(model) % tp:
        found.append(
            f"parallel.tp ({tp}) must divide the padded vocabulary ({derive.padded_vocab_size(model)}), a multiple "
            f"of model.vocab_multiple ({model.vocab_multiple}). Try model.vocab_multiple={model.vocab_multiple * tp}."
        )
    return found


def _nearest_tp(num_heads: int, tp: int) -> int:
    """The nearest power of two above or below that divides the heads."""
    powers = [2**power for power in range(num_heads.bit_length()) if num_heads % 2**power == 0]
    return min(powers, key=lambda power: (abs(power - tp), -power), default=1)


def _precision(config: Config) -> list[str]:
    found: list[str] = []
    stage, precision = config.parallel.zero_stage, config.precision
    if stage not in (0, 1):
        found.append(
            f"parallel.zero_stage ({stage}) must be 0 or 1: the pipeline engine shards optimizer states only. "
            "Try parallel.zero_stage=1."
        )
    if stage == 0 and precision is not Precision.fp32:
        found.append(
            f"parallel.zero_stage (0) keeps no fp32 copy that precision ({precision.value}) needs. "
            "Try parallel.zero_stage=1, or precision=fp32."
        )
    if precision is Precision.fp16 and config.device is DeviceKind.cpu:
        found.append("precision (fp16) does not run on device (cpu). Try precision=bf16.")
    return found


def _loss_scale(config: Config) -> list[str]:
    first, least = config.stability.initial_loss_scale, config.stability.min_loss_scale
    found = [
        f"stability.{name} ({value}) must be a power of two, at least 1. Try stability.{name}={usual}."
        for name, value, usual in (
            ("initial_loss_scale", first, 65536),
            ("min_loss_scale", least, 1),
        )
        if value < 1 or math.frexp(value)[0] != 0.5
    ]
    if not found and least > first:
        found.append(
            f"stability.min_loss_scale ({least}) must not exceed stability.initial_loss_scale ({first}). "
            "Try stability.min_loss_scale=1."
        )
    return found


def _schedules(config: Config) -> list[str]:
    optim = config.optim
    found: list[str] = []
    if optim.min_lr is not None and not 0 <= optim.min_lr <= max(optim.lr, 0):
        found.append(
            f"optim.min_lr ({optim.min_lr}) must lie between 0 and optim.lr ({optim.lr}). "
            f"Try optim.min_lr={max(optim.lr, 0) / 10:g}."
        )
    warmup, decay = derive.warmup_samples(optim), derive.decay_samples(optim)
    if warmup < 0:
        return [
            *found,
            f"optim.warmup_samples ({warmup}) must not be negative. Try optim.warmup_samples=0.",
        ]
    if optim.schedule is Schedule.constant:
        return found
    if warmup > decay:
        found.append(
            f"optim.warmup_samples ({warmup}) must not exceed optim.decay_samples ({decay}). "
            f"Try optim.warmup_samples={max(decay, 0) // 100}."
        )
    elif (
        optim.schedule is Schedule.wsd
        and not 0 <= derive.wsd_decay_samples(optim) <= decay - warmup
    ):
        found.append(
            f"optim.wsd_decay_samples ({derive.wsd_decay_samples(optim)}) must lie between 0 and "
            f"optim.decay_samples ({decay}) - optim.warmup_samples ({warmup}). "
            f"Try optim.wsd_decay_samples={(decay - warmup) // 10}."
        )
    return found


def _shrink(config: Config) -> list[str]:
    points = config.stability.embedding_shrink
    example = "Try stability.embedding_shrink=[[0,0.1]]."
    if not points or any(len(point) != 2 for point in points):
        return [f"stability.embedding_shrink ({points}) must be points [samples, alpha]. {example}"]
    found: list[str] = []
    samples = [point[0] for point in points]
    if samples != sorted(set(samples)):
        found.append(f"stability.embedding_shrink ({points}) must go forward in samples. {example}")
    if any(not 0 <= point[1] <= 1 for point in points):
        found.append(
            f"stability.embedding_shrink ({points}) must have alphas between 0 and 1. {example}"
        )
    return found


def _data(config: Config) -> list[str]:
    data = config.data
    found: list[str] = []
    if not data.paths or "" in data.paths:
        found.append(f"data.paths ({data.paths}) must name a corpus. Try data.paths=corpus.jsonl.")
    weights = data.weights
    if weights is not None and (
        len(weights) != len(data.paths) or min(weights, default=0) < 0 or sum(weights) <= 0
    ):
        found.append(
            f"data.weights ({weights}) must give each of data.paths ({len(data.paths)} of them) a weight of at "
            "least 0, and not all 0. Try data.weights=null to sample by size."
        )
    ranges = data.skip_samples
    if any(len(pair) != 2 or not 0 <= pair[0] < pair[1] for pair in ranges):
        found.append(
            f"data.skip_samples ({ranges}) must be ranges [a,b) with 0 <= a < b. "
            "Try data.skip_samples=[[40700,40900]]."
        )
    elif any(after[0] < before[1] for before, after in zip(ranges, ranges[1:], strict=False)):
        found.append(
            f"data.skip_samples ({ranges}) must be in order, without overlap. "
            f"Try data.skip_samples={_joined(ranges)}."
        )
    return found


def _joined(ranges: list[list[int]]) -> str:
    """The same samples as ordered ranges without overlap, as one types them."""
    joined: list[list[int]] = []
    for start, stop in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], stop)
        else:
            joined.append([start, stop])
    return str(joined).replace(" ", "")


def _cluster(config: Config) -> list[str]:
    if _TIME.fullmatch(config.cluster.time):
        return []
    return [
        f"cluster.time ({config.cluster.time}) must be [D-]HH:MM:SS. Try cluster.time=24:00:00."
    ]


CHECKS: tuple[Callable[[Config], list[str]], ...] = (
    _positive,
    _above_zero,
    _not_negative,
    _shares,
    _heads,
    _rows,
    _attention,
    _tensor_parallel,
    _precision,
    _loss_scale,
    _schedules,
    _shrink,
    _data,
    _cluster,
)
