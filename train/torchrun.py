"""torchrun whose rendezvous stays on this machine:

    python -m train.torchrun --nproc-per-node 4 -m train parallel.tp=2

Takes torchrun's options (torchrun --help). `torchrun --standalone` starts the
same ranks, but its store listens on every address of the machine, and
torchrun unpickles what it reads there: whoever reaches the port can run code as
its user. Here the ranks of the one node meet in a store that listens on the
loopback address and holds no pickles.
"""

import logging
import sys
import uuid
from typing import Any

from configs.errors import EXIT_DONE, EXIT_PEER_FAILED, EXIT_USER_INPUT
from configs.terminal import tell
from train.world import choose_one_thread

_BACKEND = "loopback"
# torchrun's log of processes that end, and the lines in it that this program reports in its own words.
_ENDINGS = "torch.distributed.elastic.multiprocessing.api"
_REPORTED_ANYWAY = ("failed (exitcode", "Sending process")
_ONE_NODE = ("1", "1:1")
# Options of the rendezvous, with torchrun's defaults.
_MEETING = {
    "standalone": False,
    "rdzv_backend": "static",
    "rdzv_endpoint": "",
    "rdzv_id": "none",
    "node_rank": 0,
    "master_addr": "127.0.0.1",
    "master_port": None,
}


def cli(arguments: list[str] | None = None) -> int:
    """Start the ranks and wait for them; returns the exit code, that of the first rank that failed."""
    words = sys.argv[1:] if arguments is None else arguments
    if words and words[0] in ("--help", "-h"):
        sys.stdout.write(str(__doc__))
        return EXIT_DONE
    # Late on purpose: PyTorch takes seconds to import.
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import rendezvous_handler_registry

    options: Any = run.parse_args(words)
    if problem := _problem(options):
        sys.stderr.write(f"{problem}\n")
        return EXIT_USER_INPUT
    num_ranks = run.determine_local_world_size(options.nproc_per_node)
    if choose_one_thread(num_ranks):  # torchrun would do so with a block of asterisks
        tell(
            f"{num_ranks} ranks with one CPU thread each (OMP_NUM_THREADS=1). Set OMP_NUM_THREADS before the command for "
            "more.",
            sys.stderr,
        )
    options.rdzv_backend = _BACKEND
    options.rdzv_endpoint = "127.0.0.1:0"  # torchrun warns without one; the store chooses the port
    options.rdzv_id = str(uuid.uuid4())
    rendezvous_handler_registry.register(_BACKEND, _handler)
    logging.getLogger(_ENDINGS).addFilter(_is_news)
    try:
        run.run(options)
    except ChildFailedError as error:
        # The ranks have reported why; torchrun's own report of forty lines would follow.
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:
            return failure.exitcode
        tell(
            f"Rank {rank} was killed by {failure.signal_name()}, so it could not report why.",
            sys.stderr,
        )
        return EXIT_PEER_FAILED
    return EXIT_DONE


def _is_news(record: logging.LogRecord) -> bool:
    """False for torchrun's lines about ranks that end, which would follow the message that says why."""
    return not str(record.msg).startswith(_REPORTED_ANYWAY)


def _problem(options: Any) -> str | None:
    if options.nnodes not in _ONE_NODE:
        return (
            f"--nnodes ({options.nnodes}) must be 1: here all ranks are on this machine. For several nodes see "
            "python -m launch torchrun --help."
        )
    given = [name for name, usual in _MEETING.items() if getattr(options, name) != usual]
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        return f"{names}: the ranks of this machine meet by themselves. Leave it out."
    return None


def _handler(parameters: Any) -> Any:
    """The handler from which torchrun gets a store and this node's rank, 0 of 1."""
    from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

    from train.rendezvous import serve_on_loopback
    from train.world import LOOPBACK

    store, port = serve_on_loopback(0)
    handler: Any = StaticTCPRendezvous(LOOPBACK, port, 0, 1, parameters.run_id, timeout=600)
    handler._store = store
    handler.get_backend = lambda: _BACKEND
    return handler


if __name__ == "__main__":
    sys.exit(cli())
