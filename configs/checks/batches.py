"""The checks that depend on the number of processes: the layout tp x pp x dp, and every batch size of the ramp."""

from configs import derive
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
        return []
    where = "optim.global_batch_size" if wrong[0] == full else "A batch size of optim.batch_ramp"
    position = f" still to come after {samples_seen:,} samples" if samples_seen else ""
    return [
        f"{where} ({wrong[0]:,}){position} must be a multiple of optim.micro_batch_size ({micro}) x data-parallel size "
        f"({dp}) = {micro * dp:,}. {_what_works(visited, micro, dp, samples_seen > 0)}"
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
    counted = num_layers + 2
    if counted % pp == 0:
        return ""
    # The final norm belongs to the head's stage and does not count.
    norm = num_layers + 1
    sizes = [
        sum(len(chunk) - (norm in chunk) for chunk in chunks)
        for chunks in derive.stage_entries(num_layers, pp)
    ]
    idle = 1 - counted / (pp * max(sizes))
    better = [
        f"model.num_layers={layers}"
        for layers in (num_layers - counted % pp, num_layers + pp - counted % pp)
        if layers >= pp
    ]
    return (
        f"model.num_layers ({num_layers}) + embedding + head = {counted} does not divide over parallel.pp ({pp}): "
        f"the stages hold {sizes}. Training accepts this; about {percent(idle)} of each step is idle, since all wait for the "
        f"largest. Try {' or '.join(better)}."
    )
