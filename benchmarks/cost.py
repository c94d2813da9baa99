"""What the layers cost, counted without a GPU:  python -m benchmarks cost [overrides] [options]

The real layers run on meta tensors, one tensor-parallel rank of them, and every operator is counted: bytes that it
reads and writes, its operations, collectives, and whether the host waits. A fused function (glm/fused.py) counts as
one kernel with the traffic that its signature declares. The engine's handling of gradients is counted on CPU.

    overrides      of the configuration; none: the H100 preset of GLM-130B
    --operators    also the operators of a layer that move most
    --all          a line for each model preset, precision, recompute and tp
    --constants    the constants of the speed model (launch/estimate/traffic.py) for the precision
    --waterfall    the table of docs/benchmarks.md: what each change is worth in seconds of a step
    --json PATH    also write what was counted; the last line is the same
"""

import json
import sys
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import configs
from benchmarks.counting.waterfall import markdown, waterfall
from configs.errors import UserError
from configs.load import load_config
from configs.schema import Config, Precision
from configs.terminal import tell
from train.world import World, prepare_environment

_DEFAULT = ("experiment=glm_130b_h100",)
# Of --all: a whole layer, and one that is cut as GLM-130B's are.
_SIZES = (1, 4)


def run() -> None:
    """Print the table of the default configuration."""
    main([])


def main(words: list[str]) -> int:
    """Run the command; returns the exit code."""
    warnings.filterwarnings("ignore", module="megatron|deepspeed|torch")
    try:
        switches, path, overrides = _parsed(words)
        if "--all" in switches:
            lines, record = _all_presets(overrides)
        elif "--waterfall" in switches:
            lines, record = (
                markdown(),
                {"waterfall": [asdict(row) for _, rows in waterfall() for row in rows]},
            )
        elif "--constants" in switches:
            lines, record = _constants(_resolved(load_config(overrides or list(_DEFAULT))))
        else:
            config = _resolved(load_config(overrides or list(_DEFAULT)))
            lines, record = _one(config, "--operators" in switches)
    except UserError as error:
        tell(str(error), sys.stderr)
        return 2
    text = json.dumps(record)
    print("\n".join([*lines, text]))
    if path is not None:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text + "\n")
    return 0


def _parsed(words: list[str]) -> tuple[set[str], str | None, list[str]]:
    """Switches, path of the JSON file, overrides."""
    rest, path = list(words), None
    if "--json" in rest:
        at = rest.index("--json")
        if at + 1 == len(rest):
            raise UserError("--json needs the path of a file. Try --json cost.json")
        path = rest[at + 1]
        del rest[at : at + 2]
    switches = {word for word in rest if word.startswith("--")}
    unknown = switches - {"--operators", "--all", "--constants", "--waterfall"}
    if unknown:
        raise UserError(
            f"{', '.join(sorted(unknown))}: there are --operators, --all, --constants, --waterfall and --json PATH. "
            "Overrides have no dashes: precision=bf16"
        )
    return switches, path, [word for word in rest if word not in switches]


def _resolved(config: Config) -> Config:
    """`auto` counts as bf16, as in estimates."""
    is_open = config.precision is Precision.auto
    return replace(config, precision=Precision.bf16) if is_open else config


def _one(config: Config, with_operators: bool) -> tuple[list[str], dict[str, Any]]:
    """The table of one configuration, and its record."""
    # Late: the libraries read the environment when they are imported.
    prepare_environment(World(), "cpu")
    from benchmarks.counting.gradients import count_gradients
    from benchmarks.counting.network import count_network
    from benchmarks.counting.rows import allowed_share
    from benchmarks.counting.stage import stage_costs
    from benchmarks.counting.table import cost_table, operator_lines

    network = count_network(config)
    gradients = count_gradients(config.precision, config.parallel.zero_stage)
    stages, share = stage_costs(config, network, gradients), allowed_share(config)
    lines = cost_table(config, network, gradients, stages, share)
    if with_operators:
        lines += ["", *operator_lines(network)]
    record = {
        "layer_forward": network.layer.forward.as_json(),
        "layer_backward": network.layer.backward.as_json(),
        "embedding_forward": network.embedding.forward.as_json(),
        "embedding_backward": network.embedding.backward.as_json(),
        "head_forward": network.head.forward.as_json(),
        "head_backward": network.head.backward.as_json(),
        "plan": network.plan.as_json(),
        "allowed_share": share,
        "gradients": {
            "bytes_per_parameter_and_micro_batch": gradients.bytes_per_micro_batch,
            "bytes_per_parameter_and_step": gradients.bytes_per_step,
            "syncs_per_micro_batch": gradients.syncs_per_micro_batch,
        },
        "stages": [
            {
                "stage": stage.stage,
                "layers": stage.layers,
                "parameters": stage.parameters,
                "micro_batches": stage.num_micro_batches,
                "micro_batch": stage.micro_batch.as_json(),
                "step": stage.step.as_json(),
            }
            for stage in stages
        ],
    }
    return lines, record


def _all_presets(overrides: list[str]) -> tuple[list[str], dict[str, Any]]:
    """A line for each model preset, precision, recompute and tensor-parallel size."""
    prepare_environment(World(), "cpu")
    from benchmarks.counting.network import count_network

    lines = [
        f"{'layer of':<12}{'precision':>10}{'tp':>4}{'recompute':>10}{'forward GB':>12}{'kernels':>8}"
        f"{'backward GB':>12}{'kernels':>8}{'TFLOP':>8}{'sums':>5}{'syncs':>6}"
    ]
    records = []
    for model in _presets():
        for precision in (Precision.fp32, Precision.bf16):
            for tp in _SIZES:
                for recompute in ("none", "selective", "full"):
                    words = [f"model={model}", f"precision={precision.value}", f"parallel.tp={tp}"]
                    words += [f"parallel.recompute={recompute}", *overrides]
                    layer = count_network(load_config(words)).layer
                    both = layer.both
                    flops = (both.products.flops + both.attention.flops) / 1e12
                    lines.append(
                        f"{model:<12}{precision.value:>10}{tp:>4}{recompute:>10}"
                        f"{layer.forward.other.moved / 1e9:>12.3f}{layer.forward.other.kernels:>8}"
                        f"{layer.backward.other.moved / 1e9:>12.3f}{layer.backward.other.kernels:>8}"
                        f"{flops:>8.2f}{both.collectives.total():>5}{both.syncs.total():>6}"
                    )
                    records.append({"words": words, "layer": both.as_json()})
    return lines, {"layers": records}


def _constants(config: Config) -> tuple[list[str], dict[str, Any]]:
    """What launch/estimate/traffic.py holds for the configuration's precision."""
    prepare_environment(World(), "cpu")
    from benchmarks.counting.fit import fitted, lines

    traffic = fitted(config.precision)
    return lines(f"_{config.precision.name.upper()}", traffic), asdict(traffic)


def _presets() -> list[str]:
    return sorted(path.stem for path in (Path(configs.__path__[0]) / "model").glob("*.yaml"))
