"""The checks that depend on the number of processes: the layout tp x pp x dp, and every batch size of the ramp."""

from configs import cutting, derive, pipeline
from configs.percent import percent
from configs.schema import Config


def layout_problems(config: Config, world_size: int | None) -> list[str]:
    """Check that the model can be cut into stages and replicas; sizes are positive."""
    tp, pp, model, cluster = config.parallel.tp, config.parallel.pp, config.model, config.cluster
    found: list[str] = []
    if pp > model.num_layers:
        found.append(
            f"parallel.pp ({pp}) must not exceed model.num_layers ({model.num_layers}). "
            f"Try parallel.pp={model.num_layers}."
        )
    else:
        found += _schedule_problems(config)
    ranks = tp * pp
    planned = cluster.nodes * cluster.gpus_per_node
    if world_size is not None and world_size % ranks:
        found.append(
            f"parallel.tp ({tp}) x parallel.pp ({pp}) = {ranks} must divide the number of processes ({world_size}). "
            f"Try python -m train.torchrun --nproc-per-node {max(world_size // ranks, 1) * ranks} -m train ..."
        )
    elif world_size is None and planned > 1 and planned % ranks:
        found.append(
            f"parallel.tp ({tp}) x parallel.pp ({pp}) = {ranks} must divide cluster.nodes ({cluster.nodes}) x "
            f"cluster.gpus_per_node ({cluster.gpus_per_node}) = {planned}. {_cluster_that_fits(config)}"
        )
    return found


def _schedule_problems(config: Config) -> list[str]:
    """Check that the stages can be cut into the chunks of the schedule."""
    parallel, num_layers = config.parallel, config.model.num_layers
    pp, chunks = parallel.pp, parallel.chunks
    name = f"parallel.schedule ({parallel.schedule.value})"
    if not pipeline.is_interleaved(parallel):
        if chunks is None:
            return []
        return [
            f"parallel.chunks ({chunks}) needs parallel.schedule=interleaved: with {name} a stage is one part. "
            "Try parallel.schedule=interleaved, or parallel.chunks=null."
        ]
    if pp == 1:
        return [
            f"{name} needs several stages, and parallel.pp is {pp}. Try parallel.pp=2, or parallel.schedule=1f1b."
        ]
    parts, counted = pp * pipeline.num_chunks(parallel), num_layers + 2
    if parts <= counted:
        return []
    most = counted // pp
    better = f"parallel.chunks={most}" if most > 1 else "parallel.schedule=1f1b"
    return [
        f"parallel.pp ({pp}) x parallel.chunks ({pipeline.num_chunks(parallel)}) = {parts} parts must not exceed "
        f"model.num_layers ({num_layers}) + embedding + head = {counted}. Try {better}."
    ]


def batch_problems(config: Config, world_size: int | None, samples_seen: int = 0) -> list[str]:
    """Check every global batch size that is still to come; the layout is already checked.

    Args:
        config: the configuration of the run.
        world_size: number of processes; None: that of `cluster.*`.
        samples_seen: samples that the run has seen; the number of replicas need not fit earlier batches.
    """
    return _ramp_problems(config) or _batch_size_problems(config, world_size, samples_seen)


def nearest_divisor(value: int, near: int) -> int:
    """Largest divisor of `value` that is at most `near`."""
    return next((size for size in range(max(near, 1), 0, -1) if value % size == 0), 1)


def _cluster_that_fits(config: Config) -> str:
    ranks, gpus = config.parallel.tp * config.parallel.pp, config.cluster.gpus_per_node
    nodes = next(
        nodes for nodes in range(max(config.cluster.nodes, 1), 10**9) if nodes * gpus % ranks == 0
    )
    return f"Try cluster.nodes={nodes}."


def _ramp_problems(config: Config) -> list[str]:
    ramp, full = derive.batch_ramp(config.optim), config.optim.global_batch_size
    if ramp is None:
        return []
    if ramp.start > full:
        return [
            f"optim.batch_ramp.start ({ramp.start}) must not exceed optim.global_batch_size ({full:,}). "
            f"Try optim.batch_ramp.start={nearest_divisor(full, full // 8)}."
        ]
    if (full - ramp.start) % ramp.increment:
        return [
            f"optim.batch_ramp.increment ({ramp.increment}) must divide optim.global_batch_size ({full:,}) - "
            f"optim.batch_ramp.start ({ramp.start}) = {full - ramp.start:,}. "
            f"Try optim.batch_ramp.increment={nearest_divisor(full - ramp.start, ramp.increment)}."
        ]
    return []


def _batch_size_problems(config: Config, world_size: int | None, samples_seen: int) -> list[str]:
    micro, full = config.optim.micro_batch_size, config.optim.global_batch_size
    size = derive.planned_world_size(config) if world_size is None else world_size
    dp = derive.data_parallel_size(config, size)
    levels = derive.ramp_levels(config.optim, samples_seen)
    visited = sorted({level.batch_size for level in levels} | {full})
    wrong = [size for size in visited if not derive.divides(config.optim, dp, size)]
    if not wrong:
        return _pipeline_problems(config, visited, dp)
    where = "optim.global_batch_size" if wrong[0] == full else "A batch size of optim.batch_ramp"
    position = f" still to come after {samples_seen:,} samples" if samples_seen else ""
    return [
        f"{where} ({wrong[0]:,}){position} must be a multiple of optim.micro_batch_size ({micro}) x data-parallel size "
        f"({dp}) = {micro * dp:,}. {_what_works(visited, micro, dp, samples_seen > 0)}"
    ]


def _pipeline_problems(config: Config, visited: list[int], dp: int) -> list[str]:
    """Check that every batch fills the pipeline with the interleaved schedule; the batches divide."""
    pp, micro = config.parallel.pp, config.optim.micro_batch_size
    smallest = visited[0]
    count = derive.grad_accum(config.optim, dp, smallest)
    if not pipeline.is_interleaved(config.parallel) or count >= pp:
        return []
    ramp, full = derive.batch_ramp(config.optim), config.optim.global_batch_size
    needed = pp * micro * dp
    where = "optim.global_batch_size" if smallest == full else "The batch size of optim.batch_ramp"
    better = ""
    if smallest < full and ramp is not None and full % needed == 0:
        better = f", or optim.batch_ramp.start={needed} optim.batch_ramp.increment={needed}"
    elif smallest == full:
        better = f", or optim.global_batch_size={needed}"
    return [
        f"{where} ({smallest:,}) gives each replica {count} micro-batch{'es'[: 2 * (count > 1)]}, and parallel.schedule (interleaved) needs at "
        f"least parallel.pp ({pp}). Try parallel.schedule=1f1b{better}."
    ]


def _what_works(visited: list[int], micro: int, dp: int, has_begun: bool) -> str:
    """Name the data-parallel sizes nearest to `dp` that fit every batch size, or another change that would."""
    sizes = [
        size
        for size in range(1, visited[0] // micro + 1)
        if all(batch_size % (micro * size) == 0 for batch_size in visited)
    ]
    if not sizes:
        fitting = next(m for m in range(micro, 0, -1) if all(size % m == 0 for size in visited))
        return f"No data-parallel size works with it. Try optim.micro_batch_size={fitting}."
    near = sorted(sorted(sizes, key=lambda size: abs(size - dp))[:6])
    whole = "" if len(visited) == 1 else f" for the {'rest of the' if has_begun else 'whole'} ramp"
    message = f"Data-parallel sizes that work{whole}: {', '.join(map(str, near))}."
    smaller = [m for m in range(1, micro) if all(size % (m * dp) == 0 for size in visited)]
    if smaller:
        message += f" Or try optim.micro_batch_size={smaller[-1]}."
    if len(visited) == 1:
        rounded = max(round(visited[0] / (micro * dp)), 1) * micro * dp
        message += f" Or try optim.global_batch_size={rounded}."
    return message


def uneven_stages(config: Config) -> str:
    """The message for uneven stages: the idle share, and numbers of layers that divide; empty if they are even."""
    num_layers, pp = config.model.num_layers, config.parallel.pp
    counted, parts = num_layers + 2, pp * pipeline.num_chunks(config.parallel)
    by_operations = cutting.layers_of_parts(num_layers, parts, cutting.head_layers(config.model))
    if counted % parts == 0 or by_operations != cutting.layers_of_parts(num_layers, parts):
        return ""
    # The final norm belongs to the head's part and does not count.
    norm = num_layers + 1
    # All parts in the order of a pass.
    held = zip(*pipeline.stage_chunks(config), strict=True)
    sizes = [len(part) - (norm in part) for turn in held for part in turn]
    idle = 1 - counted / (parts * max(sizes))
    better = [
        f"model.num_layers={layers}"
        for layers in (num_layers - counted % parts, num_layers + parts - counted % parts)
        if layers >= pp and layers + 2 >= parts
    ]
    more, what = "", "stages"
    if parts > pp:
        more, what = f" x parallel.chunks ({parts // pp}) = {parts} parts", "parts"
    return (
        f"model.num_layers ({num_layers}) + embedding + head = {counted} does not divide over parallel.pp ({pp}){more}: "
        f"the {what} hold {sizes}. Training accepts this; about {percent(idle)} of each step is idle, since all wait for the "
        f"largest. Try {' or '.join(better)}."
    )
