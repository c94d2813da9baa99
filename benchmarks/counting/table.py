"""Counts as a table of at most 100 columns."""

from collections.abc import Iterator

from benchmarks.counting.gradients import GradientCost
from benchmarks.counting.network import NetworkCost
from benchmarks.counting.stage import StageCost
from benchmarks.counting.tally import Tally
from configs import computation, derive
from configs.schema import Config

_GB = 1e9
_TOP = 12
_HEAD = (
    f"{'':<22}|{'outside products, attention':^28}|{'products':^15}|{'attention':^13}|{'sums':^11}|",
    f"{'':<22}|{'read GB':>9}{'written':>9}{'kernels':>9} |{'GB':>7}{'TFLOP':>8}|{'GB':>6}{'TFLOP':>7}"
    f"|{'':>5}{'GB':>6}|{'syncs':>6}",
)


def cost_table(
    config: Config,
    network: NetworkCost,
    gradients: GradientCost,
    stages: list[StageCost],
    share: float,
) -> list[str]:
    """Render the counts of one configuration.

    Args:
        config: that was counted.
        network: its entries.
        gradients: its engine's.
        stages: its stages.
        share: of the pairs of a row's tokens that the mask allows.
    """
    head, *rest = _HEAD
    lines = [*_title(config), "", head, *rest]
    for name in ("layer", "embedding", "head"):
        passes = getattr(network, name)
        label = "head + loss" if name == "head" else name
        lines.append(_row(f"{label} forward", passes.forward))
        lines.append(_row(f"{label} backward", passes.backward))
    lines.append(_row("once a micro-batch", network.plan))
    lines += [""]
    for stage in _shown(stages):
        lines.append(_row(f"micro-batch, stage {stage.stage}", stage.micro_batch))
    for stage in _shown(stages):
        lines.append(_row(f"step, stage {stage.stage}", stage.step))
    layer = network.layer.both
    lines += [
        "",
        f"Layer, both passes, outside products and attention: {layer.other.moved / _GB:.2f} GB, "
        f"{layer.other.kernels} kernels.",
        f"Layer forward: {_collectives(network.layer.forward)}.",
        f"Layer backward: {_collectives(network.layer.backward)}.",
        f"Attention: operations of all pairs; the mask of this objective allows {share:.0%} of them.",
        f"Gradients: {gradients.bytes_per_micro_batch:.1f} bytes per parameter and micro-batch.",
        f"Host syncs per micro-batch: {_syncs(network)}.",
        f"The same in a small engine on CPU, where copies are not seen: {gradients.syncs_per_micro_batch}.",
    ]
    if len(stages) > 1:
        sent = max(stage.micro_batch.collective_bytes["send"] for stage in stages)
        lines.append(f"A stage sends up to {sent / 1e6:.1f} MB a micro-batch.")
    return lines
    return lines


def operator_lines(network: NetworkCost) -> Iterator[str]:
    """Name the layer's operators that move most."""
    for label in ("forward", "backward"):
        tally: Tally = getattr(network.layer, label)
        yield f"Layer {label}:"
        parts = sorted(tally.by_operator.items(), key=lambda part: -part[1].moved)
        for name, work in parts[:_TOP]:
            yield f"  {name:<58}{work.kernels:>4} kernels {work.moved / _GB:>8.3f} GB"


def _title(config: Config) -> list[str]:
    model, parallel = config.model, config.parallel
    path, _ = computation.attention_path(model, on_gpu=True)
    return [
        f"{model.num_layers} layers x {model.hidden_size:,}, tp {parallel.tp}, {config.precision.value}, "
        f"micro-batch {config.optim.micro_batch_size} x {model.seq_length:,}, {path.value} attention,",
        f"dropout {model.hidden_dropout:g} / {model.attention_dropout:g}, recompute {parallel.recompute.value}, "
        f"{'sequences cut' if parallel.sequence else 'sequences whole'}; "
        f"every token a target. {derive.planned_world_size(config):,} ranks, pp {parallel.pp}.",
    ]


def _row(label: str, tally: Tally) -> str:
    other, products, attention = tally.other, tally.products, tally.attention
    sums = sum(count for kind, count in tally.collectives.items() if kind != "send")
    summed = sum(size for kind, size in tally.collective_bytes.items() if kind != "send")
    return (
        f"{label:<22}|{_gb(other.read):>9}{_gb(other.written):>9}{other.kernels:>9,} |"
        f"{_gb(products.moved):>7}{_short(products.flops / 1e12):>8}|"
        f"{_gb(attention.moved):>6}{_short(attention.flops / 1e12):>7}|"
        f"{sums:>5,}{_gb(summed):>6}|{tally.syncs.total():>6,}"
    )


def _gb(size: int) -> str:
    return _short(size / _GB)


def _short(value: float) -> str:
    """Three digits or more, without an exponent."""
    digits = 3 if value < 10 else 2 if value < 100 else 1 if value < 1000 else 0
    return f"{value:.{digits}f}"


def _shown(stages: list[StageCost]) -> list[StageCost]:
    """The first, the one with most layers, and the last."""
    most = max(stages, key=lambda stage: stage.layers)
    chosen = {stage.stage: stage for stage in (stages[0], most, stages[-1])}
    return [chosen[number] for number in sorted(chosen)]


def _collectives(tally: Tally) -> str:
    parts = [
        f"{count} {kind}{'s' if count > 1 else ''} of {tally.collective_bytes[kind] / 1e6:,.0f} MB in all"
        for kind, count in sorted(tally.collectives.items())
    ]
    return ", ".join(parts) or "no collectives"


def _syncs(network: NetworkCost) -> str:
    entries = (network.embedding.both, network.layer.both, network.head.both, network.plan)
    total = sum((entry.syncs for entry in entries), start=Tally().syncs)
    parts = [f"{count} ({reason})" for reason, count in sorted(total.items())]
    return ", ".join(parts) or "0"
