"""The rows that follow from a configuration exactly: sizes, stages, batches, steps, schedules, computation."""

from configs import cutting, derive, pipeline
from configs.checks.batches import uneven_stages
from configs.schema import Config, Recompute, Schedule

Row = tuple[str, str]


def fact_rows(config: Config) -> list[Row]:
    """Return all rows, each with its name and text."""
    return [*_model(config), *_layout(config), *_batch(config), *_run(config), _computation(config)]


def _model(config: Config) -> list[Row]:
    model = config.model
    return [
        (
            "model",
            f"{model.num_layers} layers x {model.hidden_size:,}, {model.num_heads} heads, inner width "
            f"{model.ffn_size:,}, vocabulary {derive.padded_vocab_size(model):,}",
        ),
        ("parameters", f"{derive.parameters(model):,}"),
    ]


def _layout(config: Config) -> list[Row]:
    tp, pp = config.parallel.tp, config.parallel.pp
    ranks = derive.planned_world_size(config)
    rows = [("processes", f"{ranks:,} = tp {tp} x pp {pp} x dp {_dp(config)}")]
    entries = pipeline.stage_chunks(config)
    whole = cutting.stage_parameters(config.model, pp, 1, pipeline.num_chunks(config.parallel))
    cut = pipeline.stage_parameters(config)
    stages = [
        f"{_contents(chunks, config.model.num_layers)}: {whole[stage]:,} parameters, {cut[stage]:,} per rank"
        for stage, chunks in enumerate(entries)
    ]
    first = 0
    for stage in range(1, pp + 1):
        if stage == pp or stages[stage] != stages[first]:
            last = stage - 1
            rows.append(
                (f"stage {first}" if first == last else f"stages {first}-{last}", stages[first])
            )
            first = stage
    uneven = uneven_stages(config)
    return [*rows, ("uneven", uneven)] if uneven else rows


def _batch(config: Config) -> list[Row]:
    optim = config.optim
    ramp, full = derive.batch_ramp(optim), optim.global_batch_size
    rows = [("batch", _one_batch(config, full))]
    if ramp is not None and ramp.start < full:
        growing = [level for level in derive.ramp_levels(optim) if level.batch_size < full]
        stretch = ramp.samples / ramp.num_increments(full)
        rows += [
            ("at the start", _one_batch(config, ramp.start)),
            (
                "ramp",
                f"{ramp.increment:,} rows more every {stretch:,.0f} samples, "
                f"the full batch after {sum(level.num_steps for level in growing):,} steps",
            ),
        ]
    return rows


def _run(config: Config) -> list[Row]:
    optim, seq = config.optim, config.model.seq_length
    last = derive.ramp_levels(optim)[-1]
    samples = last.first_sample + last.num_steps * last.batch_size
    return [
        ("steps", f"{derive.num_steps(optim):,}"),
        ("samples", f"{samples:,} (optim.total_samples {optim.total_samples:,} in whole steps)"),
        ("tokens", f"{samples * seq:,} in rows of {seq:,}"),
        (
            "learning rate",
            f"0 to {optim.lr:g} in {derive.warmup_samples(optim):,} samples, {_decay(config)}",
        ),
        (
            "checkpoints",
            f"every {derive.save_every_samples(config):,} samples",
        ),
        ("evaluation", f"every {derive.eval_every_samples(config):,} samples"),
    ]


def _computation(config: Config) -> Row:
    model = config.model
    per_sample = derive.flops_per_sample(model)
    with_recompute = derive.flops_per_sample(model, config.parallel.recompute)
    recompute = (
        f"; with recompute {with_recompute / per_sample:.2f} times that"
        if config.parallel.recompute is Recompute.full
        else ""
    )
    return (
        "computation",
        f"{per_sample / model.seq_length:.3g} FLOP per token, "
        f"{per_sample * config.optim.total_samples:.3g} FLOP in total{recompute}",
    )


def _dp(config: Config) -> int:
    return derive.data_parallel_size(config, derive.planned_world_size(config))


def _one_batch(config: Config, batch_size: int) -> str:
    optim, pp, dp = config.optim, config.parallel.pp, _dp(config)
    accumulated = derive.grad_accum(optim, dp, batch_size)
    text = (
        f"{batch_size:,} rows = micro-batch {optim.micro_batch_size} x {accumulated:,} accumulated x dp {dp}; "
        f"{batch_size * config.model.seq_length:,} tokens per step"
    )
    bubble = pipeline.bubble(pp, accumulated, pipeline.num_chunks(config.parallel))
    return text + (f"; pipeline bubble {bubble:.1%}" if pp > 1 else "")


def _contents(chunks: list[range], num_layers: int) -> str:
    """Name the list entries of a stage: embedding, layers, final norm, head."""
    entries = [entry for chunk in chunks for entry in chunk]
    layers = cutting.layers_among(num_layers, chunks)
    parts = [f"{layers} layers" if layers != 1 else "1 layer"] if layers > 0 else []
    if 0 in entries:
        parts.insert(0, "embedding")
    if num_layers + 1 in entries:
        parts.append("final norm and head")
    return " + ".join(parts)


def _decay(config: Config) -> str:
    optim = config.optim
    if optim.schedule is Schedule.constant:
        return "then constant"
    end = f"{derive.min_lr(optim):g} at {derive.decay_samples(optim):,}"
    if optim.schedule is Schedule.wsd:
        return f"then constant, over the last {derive.wsd_decay_samples(optim):,} samples linear to {end}"
    return f"then {optim.schedule.value} to {end}"
