"""Every reason why a configuration cannot run, found before anything is loaded: pure functions, one check each.

A problem reads "key (value) relation key (value). What to type."
"""

from collections.abc import Callable

from configs import derive
from configs.schema import (
    AttentionPath,
    Config,
    DeviceKind,
    Precision,
    Schedule,
    SliceRule,
)

Check = Callable[[Config, int | None], list[str]]

# The original cuts 2000 stored tokens out of 2048, so that most inserted tokens fit.
GLM_130B_ROW = (125, 128)


def problems(config: Config, world_size: int | None = None) -> list[str]:
    """List everything that is wrong.

    Args:
        config: any configuration.
        world_size: number of processes; None before it is known.
    """
    found: list[str] = []
    for check in CHECKS:
        found += check(config, world_size)
    # These need the positive numbers that the checks above ask for.
    if not found:
        found += _layout(config, world_size)
    if not found:
        found += _batches(config, world_size)
    return found


def _positive(config: Config, _: int | None) -> list[str]:
    model, optim, parallel = config.model, config.optim, config.parallel
    values = {
        "model.num_layers": model.num_layers,
        "model.hidden_size": model.hidden_size,
        "model.num_heads": model.num_heads,
        "model.ffn_size": model.ffn_size,
        "model.vocab_size": model.vocab_size,
        "model.vocab_multiple": model.vocab_multiple,
        "model.seq_length": model.seq_length,
        "parallel.tp": parallel.tp,
        "parallel.pp": parallel.pp,
        "optim.micro_batch_size": optim.micro_batch_size,
        "optim.global_batch_size": optim.global_batch_size,
        "optim.total_samples": optim.total_samples,
        "checkpoint.keep_last": config.checkpoint.keep_last,
        "eval.num_samples": config.eval.num_samples,
        "objective.windows_per_row": config.objective.windows_per_row,
        "objective.max_span_length": config.objective.max_span_length,
        "log.every_steps": config.log.every_steps,
        "cluster.nodes": config.cluster.nodes,
        "cluster.gpus_per_node": config.cluster.gpus_per_node,
    }
    optional = {
        "run.stop_after_samples": config.run.stop_after_samples,
        "checkpoint.save_every_samples": config.checkpoint.save_every_samples,
        "checkpoint.keep_every_samples": config.checkpoint.keep_every_samples,
        "eval.every_samples": config.eval.every_samples,
    }
    values.update({key: value for key, value in optional.items() if value is not None})
    return [
        f"{key} ({value}) must be at least 1. Try {key}=1." for key, value in values.items() if value < 1
    ]


def _shares(config: Config, _: int | None) -> list[str]:
    objective, model = config.objective, config.model
    found: list[str] = []
    inside = {
        "objective.gmask_share": objective.gmask_share,
        "objective.short_segment_probability": objective.short_segment_probability,
        "objective.single_span_probability": objective.single_span_probability,
        "objective.gmask_min_fraction": objective.gmask_min_fraction,
    }
    for key, value in inside.items():
        if not 0 <= value <= 1:
            found.append(f"{key} ({value}) must be between 0 and 1. Try {key}=0.5.")
    below_one = {
        "model.hidden_dropout": model.hidden_dropout,
        "model.attention_dropout": model.attention_dropout,
        "data.valid_fraction": config.data.valid_fraction,
        "optim.beta1": config.optim.beta1,
        "optim.beta2": config.optim.beta2,
    }
    for key, value in below_one.items():
        if not 0 <= value < 1:
            found.append(f"{key} ({value}) must be at least 0 and below 1. Try {key}=0.1.")
    if not 0 < objective.mask_fraction < 1:
        found.append(
            f"objective.mask_fraction ({objective.mask_fraction}) must lie between 0 and 1, as GLM's 0.15."
        )
    if objective.mean_span_length <= 0:
        found.append(
            f"objective.mean_span_length ({objective.mean_span_length}) must be above 0, as GLM's 3."
        )
    return found


def _model(config: Config, _: int | None) -> list[str]:
    model = config.model
    found: list[str] = []
    if model.num_heads > 0 and model.hidden_size % model.num_heads:
        found.append(
            f"model.num_heads ({model.num_heads}) must divide model.hidden_size ({model.hidden_size}). "
            f"Try model.num_heads={_divisor(model.hidden_size, model.num_heads)}."
        )
    elif model.num_heads > 0:
        multiple = 4 if model.rope_2d else 2
        if derive.head_size(model) % multiple:
            found.append(
                f"The head size model.hidden_size / model.num_heads ({derive.head_size(model)}) must be a multiple "
                f"of {multiple} for rotary positions. Try model.num_heads={model.num_heads // 2 or 1}."
            )
    windows = config.objective.windows_per_row
    if windows > 0 and model.seq_length % windows:
        found.append(
            f"objective.windows_per_row ({windows}) must divide model.seq_length ({model.seq_length}). "
            f"Try model.seq_length={max(model.seq_length // windows, 1) * windows}."
        )
    elif windows > 0 and model.seq_length // windows < 32:
        found.append(
            f"model.seq_length ({model.seq_length}) leaves windows of {model.seq_length // windows} tokens for "
            f"objective.windows_per_row ({windows}); at least 32 are needed. Try model.seq_length={32 * windows}."
        )
    if config.objective.slice_rule is SliceRule.glm_130b and model.seq_length % 128:
        found.append(
            f"objective.slice_rule (glm_130b) reads 125/128 of model.seq_length ({model.seq_length}), which must be "
            f"a multiple of 128. Try model.seq_length={max(model.seq_length // 128, 1) * 128}."
        )
    return found


def _attention(config: Config, _: int | None) -> list[str]:
    model = config.model
    found: list[str] = []
    fast = (AttentionPath.sdpa, AttentionPath.flex)
    if model.attention_dropout > 0 and model.attention in fast:
        found.append(
            f"model.attention ({model.attention.value}) cannot apply model.attention_dropout "
            f"({model.attention_dropout}). Try model.attention=reference, or model.attention_dropout=0."
        )
    if model.attention is AttentionPath.flex and config.device is DeviceKind.cpu:
        found.append(
            "model.attention (flex) has no backward pass on device (cpu). Try model.attention=sdpa."
        )
    return found


def _tensor_parallel(config: Config, _: int | None) -> list[str]:
    model, tp = config.model, config.parallel.tp
    if tp < 1:
        return []
    cut = {
        "model.num_heads": model.num_heads,
        "model.ffn_size": model.ffn_size,
    }
    found = [
        f"parallel.tp ({tp}) must divide {key} ({value}). Try parallel.tp={_divisor(value, tp)}."
        for key, value in cut.items()
        if value > 0 and value % tp
    ]
    if model.vocab_multiple > 0 and derive.padded_vocab_size(model) % tp:
        found.append(
            f"parallel.tp ({tp}) must divide the padded vocabulary ({derive.padded_vocab_size(model)}), a multiple "
            f"of model.vocab_multiple ({model.vocab_multiple}). Try model.vocab_multiple={model.vocab_multiple * tp}."
        )
    return found


def _precision(config: Config, _: int | None) -> list[str]:
    found: list[str] = []
    stage = config.parallel.zero_stage
    if stage not in (0, 1):
        found.append(
            f"parallel.zero_stage ({stage}) must be 0 or 1: the pipeline engine shards optimizer states only. "
            "Try parallel.zero_stage=1."
        )
    if stage == 0 and config.precision is not Precision.fp32:
        found.append(
            f"parallel.zero_stage (0) needs precision (fp32), this run has {config.precision.value}. "
            "Try parallel.zero_stage=1."
        )
    if config.precision is Precision.fp16 and config.device is DeviceKind.cpu:
        found.append("precision (fp16) does not run on device (cpu). Try precision=bf16.")
    return found


def _schedules(config: Config, _: int | None) -> list[str]:
    optim = config.optim
    found: list[str] = []
    if optim.lr <= 0:
        found.append(f"optim.lr ({optim.lr}) must be above 0. Try optim.lr=1e-4.")
    if derive.min_lr(optim) < 0 or derive.min_lr(optim) > optim.lr:
        found.append(
            f"optim.min_lr ({optim.min_lr}) must lie between 0 and optim.lr ({optim.lr}). "
            f"Try optim.min_lr={optim.lr / 10}."
        )
    warmup, decay = derive.warmup_samples(optim), derive.decay_samples(optim)
    if warmup < 0 or (optim.schedule is not Schedule.constant and warmup > decay):
        found.append(
            f"optim.warmup_samples ({warmup}) must lie between 0 and optim.decay_samples ({decay}). "
            f"Try optim.warmup_samples={max(decay, 0) // 100}."
        )
    if optim.schedule is Schedule.wsd and not 0 <= derive.wsd_decay_samples(optim) <= decay - warmup:
        found.append(
            f"optim.wsd_decay_samples ({derive.wsd_decay_samples(optim)}) must fit between optim.warmup_samples "
            f"({warmup}) and optim.decay_samples ({decay}). Try optim.wsd_decay_samples={max(decay - warmup, 0)}."
        )
    for key, value in {
        "optim.clip": optim.clip,
        "optim.weight_decay": optim.weight_decay,
        "optim.eps": optim.eps,
    }.items():
        if value < 0:
            found.append(f"{key} ({value}) must not be negative. Try {key}=0.")
    return found


def _shrink(config: Config, _: int | None) -> list[str]:
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


def _data(config: Config, _: int | None) -> list[str]:
    data = config.data
    found: list[str] = []
    if not data.paths:
        found.append("data.paths names no corpus. Try data.paths=my_corpus.jsonl.")
    weights = data.weights
    if weights is not None and (
        len(weights) != len(data.paths) or min(weights, default=0) < 0 or sum(weights) <= 0
    ):
        found.append(
            f"data.weights ({weights}) must give one weight of at least 0 to each of the {len(data.paths)} "
            "data.paths, not all 0. Leave it out to sample by size."
        )
    if any(len(pair) != 2 or not 0 <= pair[0] < pair[1] for pair in data.skip_samples):
        found.append(
            f"data.skip_samples ({data.skip_samples}) must be ranges [a,b) with 0 <= a < b. "
            "Try data.skip_samples=[[40700,40900]]."
        )
    else:
        ranges = data.skip_samples
        if any(next_[0] < range_[1] for range_, next_ in zip(ranges, ranges[1:], strict=False)):
            found.append(
                f"data.skip_samples ({ranges}) must be in order and must not overlap. Join them."
            )
    return found


CHECKS: tuple[Check, ...] = (
    _positive,
    _shares,
    _model,
    _attention,
    _tensor_parallel,
    _precision,
    _schedules,
    _shrink,
    _data,
)


def _layout(config: Config, world_size: int | None) -> list[str]:
    parallel, model = config.parallel, config.model
    found: list[str] = []
    if parallel.pp > model.num_layers:
        found.append(
            f"parallel.pp ({parallel.pp}) must not exceed model.num_layers ({model.num_layers}). "
            f"Try parallel.pp={model.num_layers}."
        )
    model_parallel = parallel.tp * parallel.pp
    if world_size is not None and world_size % model_parallel:
        found.append(
            f"parallel.tp ({parallel.tp}) x parallel.pp ({parallel.pp}) = {model_parallel} must divide the number of "
            f"processes ({world_size}). Try torchrun --standalone --nproc-per-node "
            f"{max(world_size // model_parallel, 1) * model_parallel} -m train ..."
        )
    return found


def _batches(config: Config, world_size: int | None) -> list[str]:
    found = _ramp(config)
    if found:
        return found
    micro = config.optim.micro_batch_size
    visited = sorted({level.batch_size for level in derive.ramp_levels(config.optim)})
    size = world_size if world_size is not None else derive.planned_world_size(config)
    dp = derive.data_parallel_size(config, size)
    for batch_size in visited:
        if batch_size % (micro * dp):
            where = "" if batch_size == config.optim.global_batch_size else " of the batch ramp"
            working = _working_sizes(visited, micro, dp)
            return [
                f"optim.global_batch_size ({batch_size:,}){where} must be a multiple of optim.micro_batch_size "
                f"({micro}) x data-parallel size ({dp}) = {micro * dp:,}. {working}"
            ]
    return []


def _ramp(config: Config) -> list[str]:
    ramp, full = config.optim.batch_ramp, config.optim.global_batch_size
    if ramp is None:
        return []
    found: list[str] = []
    for name, value in (
        ("start", ramp.start),
        ("increment", ramp.increment),
        ("samples", ramp.samples),
    ):
        if value < 1:
            found.append(
                f"optim.batch_ramp.{name} ({value}) must be at least 1. Give start, increment and samples together, "
                "or optim.batch_ramp=null."
            )
    if found:
        return found
    if ramp.start > full or (full - ramp.start) % ramp.increment:
        found.append(
            f"optim.batch_ramp must reach optim.global_batch_size ({full:,}) from start ({ramp.start}) in whole "
            f"increments ({ramp.increment}). Try optim.batch_ramp.increment={_step(full - ramp.start, ramp.increment)}."
        )
    return found


def _working_sizes(visited: list[int], micro: int, dp: int) -> str:
    working = [
        size
        for size in range(1, min(visited) // micro + 1)
        if all(batch_size % (micro * size) == 0 for batch_size in visited)
    ]
    if not working:
        return f"No data-parallel size works with it. Try optim.micro_batch_size={_divisor(min(visited), micro)}."
    near = sorted(sorted(working, key=lambda size: abs(size - dp))[:6])
    names = ", ".join(str(size) for size in near)
    rounded = max(visited[-1] // (micro * dp), 1) * micro * dp
    return (
        f"Data-parallel sizes that work: {names}. Or try optim.global_batch_size={rounded}."
        if len(visited) == 1
        else f"Data-parallel sizes that work for the whole ramp: {names}."
    )


def _divisor(value: int, near: int) -> int:
    """Largest divisor of `value` that is at most `near`."""
    return next((d for d in range(max(near, 1), 0, -1) if value % d == 0), 1)


def _step(distance: int, near: int) -> int:
    return _divisor(distance, near) if distance > 0 else 1
