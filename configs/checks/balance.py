"""What a number of layers that does not divide over the stages costs: no mistake, but seldom meant."""

from configs import derive
from configs.percent import percent
from configs.schema import Config


def uneven_stages(config: Config) -> str:
    """Say that stages wait for the largest one, how long, and which numbers of layers divide; empty if this one does."""
    num_layers, pp = config.model.num_layers, config.parallel.pp
    counted = num_layers + 2
    if counted % pp == 0:
        return ""
    # The final norm rides with the head: it does not count.
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
