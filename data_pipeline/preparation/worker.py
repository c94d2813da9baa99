"""A worker process of a preparation, started by data_pipeline/preparation/workers.py.

It reads tasks from its standard input until that ends, and is killed when the process that started it ends.
"""

import ctypes
import os
import pickle
import signal
import sys

from configs.errors import DataError
from data_pipeline.preparation.make_part import Answer, Start, Task, make_part
from data_pipeline.tokenizer import load_tokenizer

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Work until there is nothing more to read."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the parent, which stops its workers
    tasks = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of libraries must not be mixed with the answers
    start: Start = pickle.load(tasks)
    _die_with(start.parent)
    tokenizer = load_tokenizer(start.tokenizer, num_threads=1)
    while True:
        try:
            task: Task = pickle.load(tasks)
        except EOFError:
            return
        answer = Answer()
        try:
            make_part(task, tokenizer, start.settings)
        except DataError as error:
            answer = Answer(mistake=str(error))
        except OSError as error:
            answer = Answer(failed_write=(error.errno or 0, error.strerror or str(error)))
        pickle.dump(answer, answers)
        answers.flush()


def _die_with(parent: int) -> None:
    """Ask Linux to kill this process when its parent dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)  # the parent ended before the request was made
