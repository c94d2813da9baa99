"""Section: a middle stage of GLM-130B on 768 GPUs, with the real layers, in one process.

Process groups are torch's fake ones: sums and gathers return at once, with whatever their buffers hold. So this is
the slot of the pipeline without communication: one micro-batch's forward and backward pass, each weight's gradient added
up in fp32 as in training, without the optimizer.
"""

from dataclasses import replace

import torch

from benchmarks.gpu.bench import Bench, milliseconds
from benchmarks.gpu.engines import micro_batches
from configs import derive
from configs.hardware import PRESETS, gpu_of
from configs.load import load_config
from configs.schema import Config
from glm.layer import GLMLayer
from glm.weight_gradient import GRAD_READY, MAIN_GRAD
from launch.estimate.network import Layout, Transformer
from launch.estimate.speed import step_time
from train.distributed import fake_session
from train.engine import build_pipeline
from train.topology import Topology

_RUN = ("experiment=glm_130b_h100",)
# Four stages of two parts, two tensor-parallel ranks.
_TINY = ("experiment=default", "model.num_layers=8", "precision=bf16", "model.attention=reference")
_TINY_LAYOUT = (
    *("parallel.tp=2", "parallel.pp=4", "parallel.sequence=true", "cluster.gpus_per_node=8"),
    *("parallel.schedule=interleaved", "parallel.chunks=2", "optim.micro_batch_size=1"),
    *("model.seq_length=128", "cluster.gpu=H100", "optim.global_batch_size=8"),
)


def measure(bench: Bench) -> None:
    """Build the stage, run it, and compare with the speed model's slot."""
    config = load_config([*_TINY, *_TINY_LAYOUT] if bench.is_dry else list(_RUN))
    world_size = derive.planned_world_size(config)
    stage = config.parallel.pp // 2
    # The first rank of the first replica.
    rank = stage * (world_size // config.parallel.pp)
    topology = Topology.from_config(config.parallel, rank, world_size)
    with fake_session(topology) as session:
        module = build_pipeline(config, replace(session, device=bench.device), None)
        module.to(torch.bfloat16).train()
        for parameter in module.parameters():
            total = torch.zeros(parameter.shape, device=bench.device)
            setattr(parameter, MAIN_GRAD, total)
            setattr(parameter, GRAD_READY, lambda: None)
        _run(bench, config, module, stage)


def _run(bench: Bench, config: Config, module: torch.nn.Module, stage: int) -> None:
    device, model = bench.device, config.model
    ((_, fields), _), *_ = micro_batches(config, 1)
    fields = fields.to(device)
    tokens = model.seq_length // config.parallel.tp
    hidden = torch.randn(tokens, model.hidden_size, device=device).bfloat16()
    gradient = torch.randn_like(hidden)
    chunks = len(module.chunks)

    def slot() -> None:
        passes = []
        for chunk in range(chunks):
            given = hidden.detach().requires_grad_()
            # Rows are planned once for the parts of a stage: they share these fields.
            module.activate(chunk)
            passes.append(module((given, fields))[0])
        for output in reversed(passes):
            output.backward(gradient)

    slot()
    sums = [getattr(parameter, MAIN_GRAD) for parameter in module.parameters()]
    added = sum(bool(total.any()) for total in sums)
    matrices = sum(parameter.ndim == 2 for parameter in module.parameters())
    bench.check("every matrix has a gradient", added >= matrices > 0, matrices=matrices)
    if not bench.is_dry:
        torch.cuda.reset_peak_memory_stats(device)
    ms = milliseconds(slot, device)
    layers = sum(isinstance(each, GLMLayer) for each in module.modules())
    modelled = _modelled_ms(config, "" if bench.is_dry else torch.cuda.get_device_name(device))
    bench.record(
        "slot",
        stage=stage,
        layers=layers,
        chunks=chunks,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        milliseconds=ms,
        modelled_milliseconds=modelled,
        peak_bytes=None if bench.is_dry else torch.cuda.max_memory_allocated(device),
    )
    bench.say(
        f"stage {stage}, {layers} layers in {chunks} parts: {ms:.2f} ms a micro-batch, {modelled:.2f} by the speed model"
    )


def _modelled_ms(config: Config, device_name: str) -> float:
    """The model's micro-batch on this GPU, or on the configured one if it is not known."""
    configured = gpu_of(config.cluster)
    assert configured is not None
    gpu = next((each for key, each in PRESETS.items() if key in device_name), configured)
    network, layout = Transformer.of(config), Layout.of(config)
    return step_time(network, layout, gpu, config.optim.global_batch_size).micro_batch * 1e3
