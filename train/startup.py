"""The table at the start of a run: what was chosen, and why."""

import torch

from configs import cutting, derive, pipeline
from configs.computation import attention_path, zero_stage
from configs.schema import Config
from data_pipeline.dataset import GLMDataset
from train.device import device_name
from train.engine import optimizer_name
from train.topology import Topology


def startup_report(
    config: Config,
    topology: Topology,
    device: torch.device,
    dataset: GLMDataset,
    precision_reason: str,
) -> str:
    """Render the table."""
    model, optim = config.model, config.optim
    path, path_reason = attention_path(model, device.type == "cuda")
    first = derive.batch_size_at(optim, 0)
    ramp = "" if first == optim.global_batch_size else f" (starting at {first:,})"
    accumulated = derive.grad_accum(optim, topology.dp, optim.global_batch_size)
    rows = {
        "model": (
            f"{derive.parameters(model):,} parameters: {model.num_layers} layers x {model.hidden_size:,}, "
            f"{model.num_heads} heads, vocabulary {derive.padded_vocab_size(model):,}"
        ),
        "layout": (
            f"tp {topology.tp} x pp {topology.pp} x dp {topology.dp} on {device_name(device)}"
            + _stages(config)
        ),
        "precision": f"{config.precision.value}: {precision_reason}",
        "attention": f"{path.value}: {path_reason}",
        "optimizer": optimizer_name(config.optim.name, device.type) + _zero(config, topology.dp),
        "batch": (
            f"{optim.global_batch_size:,} rows{ramp} x {model.seq_length:,} tokens = micro-batch "
            f"{optim.micro_batch_size} x {accumulated} accumulated x dp {topology.dp}"
        ),
        "run": (
            f"{optim.total_samples:,} samples = {derive.num_steps(optim):,} steps = "
            f"{optim.total_samples * model.seq_length:,} tokens"
        ),
        "data": ", ".join(
            f"{source['name']} {source['tokens']:,} tokens"
            for source in dataset.describe()["sources"]
        ),
        "folder": derive.run_dir(config),
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows.items())


def _zero(config: Config, dp: int) -> str:
    stage = zero_stage(config.parallel, config.precision, dp)
    return f", ZeRO-{stage}" if stage else ", without ZeRO"


def _stages(config: Config) -> str:
    """How many layers each pipeline stage holds, where there are several, and in how many parts."""
    if config.parallel.pp == 1:
        return ""
    stages = pipeline.stage_chunks(config)
    layers = [cutting.layers_among(config.model.num_layers, chunks) for chunks in stages]
    parts = len(stages[0])
    cut = f" in {parts} interleaved parts" if parts > 1 else ""
    return f"; layers of the stages: {', '.join(map(str, layers))}{cut}"
