"""Checks of single numbers: each within its range."""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, cast

from configs.schema import Config


def finite_problems(config: Config) -> list[str]:
    """Check that every number is one; the other checks compare them."""
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
        "optim.schedule_samples": optim.schedule_samples,
        "checkpoint.save_every_samples": config.checkpoint.save_every_samples,
        "checkpoint.keep_last": config.checkpoint.keep_last,
        "checkpoint.keep_every_samples": config.checkpoint.keep_every_samples,
        "eval.every_samples": config.eval.every_samples,
        "eval.num_samples": config.eval.num_samples,
        "data.instruction_cap": config.data.instruction_cap,
        "objective.windows_per_row": config.objective.windows_per_row,
        "objective.max_span_length": config.objective.max_span_length,
        "stability.loss_scale_window": stability.loss_scale_window,
        "stability.loss_scale_hysteresis": stability.loss_scale_hysteresis,
        "stability.max_skipped_steps": stability.max_skipped_steps,
        "log.every_steps": config.log.every_steps,
        "cluster.nodes": config.cluster.nodes,
        "cluster.gpus_per_node": config.cluster.gpus_per_node,
        "cluster.min_nodes": config.cluster.min_nodes,
        "cluster.signal_seconds": config.cluster.signal_seconds,
        "cluster.cpus_per_rank": config.cluster.cpus_per_rank,
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
        "stability.watchdog_seconds": (config.stability.watchdog_seconds, 600),
        "stability.meeting_seconds": (config.stability.meeting_seconds, 120),
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
        "data.locality_rows": config.data.locality_rows,
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
        "objective.smask_share": objective.smask_share,
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


CHECKS: tuple[Callable[[Config], list[str]], ...] = (_positive, _above_zero, _not_negative, _shares)
