"""Working on the parts of a preparation: in this process, or in several that start fresh.

Workers are neither forked nor spawned by multiprocessing: the caller may hold threads, a GPU and a process group, and
its main module may be heavy. A worker runs data_pipeline/preparation/worker.py, which imports what a part needs, from
where this process would: whatever the working folder, and whatever modules lie in it.
"""

import os
import pickle
import selectors
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import IO, cast

from configs.errors import DataError
from data_pipeline.preparation.make_part import Answer, Settings, Start, Task, make_part
from data_pipeline.tokenizer import Tokenizer

# One thread each: the workers are as many as the cores.
_THREADS = {
    "OMP_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_WORKER = """
import sys
sys.path[:] = sys.argv[1:]
from data_pipeline.preparation.worker import main
main()
"""


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def run_tasks(
    tasks: Iterable[Task],
    tokenizer: Tokenizer,
    settings: Settings,
    workers: int,
    done: Callable[[Task], None],
) -> None:
    """Make the parts of all tasks.

    A single task, or a single worker, is this process's own work, with the tokenizer library's threads.

    Args:
        tasks: read as workers become free.
        tokenizer: workers load it anew by its spec.
        settings: of all parts.
        workers: processes to use.
        done: called for each finished part.

    Raises:
        DataError: the first mistake in the order of the tasks, or a worker was killed.
        OSError: a part cannot be written.
    """
    remaining = iter(tasks)
    first = list(islice(remaining, 2))
    if workers == 1 or len(first) < 2:
        for task in chain(first, remaining):
            make_part(task, tokenizer, settings)
            done(task)
        return
    start = Start(os.getpid(), tokenizer.spec, settings)
    pool = _Pool(chain(first, remaining), start, done)
    try:
        pool.run(workers)
    finally:
        pool.close()


class _Worker:
    """A worker process and the task that it has."""

    def __init__(self, start: Start) -> None:
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _WORKER, *sys.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **_THREADS},
            )
        except OSError as error:
            raise DataError(
                f"A worker cannot be started ({error.strerror}): this user's limits, or the machine's memory. Use "
                "fewer: --workers N; --workers 1 starts none."
            ) from error
        self.answers = cast("IO[bytes]", self._process.stdout)
        self.task: tuple[int, Task] | None = None
        self._send(start)

    def give(self, number: int, task: Task) -> None:
        """Send a task to the worker, which must have no other one."""
        self.task = (number, task)
        self._send(task)

    def answer(self) -> BaseException | None:
        """Read the worker's answer: the error, or None."""
        try:
            answer: Answer = pickle.load(self.answers)
        except EOFError:
            return _death(self._process.wait())
        if answer.mistake:
            return DataError(answer.mistake)
        return OSError(*answer.failed_write) if answer.failed_write else None

    def kill(self) -> None:
        """End the worker; what it was writing is not used."""
        self._process.kill()
        self._process.wait()
        self.answers.close()

    def _send(self, message: object) -> None:
        tasks = cast("IO[bytes]", self._process.stdin)
        try:
            pickle.dump(message, tasks, protocol=5)
            tasks.flush()
        except BrokenPipeError:
            pass  # it was killed: reading its answer will meet the end of its output


class _Pool:
    """Hands out tasks in order, and waits for running tasks before it reports a failure."""

    def __init__(self, tasks: Iterator[Task], start: Start, done: Callable[[Task], None]) -> None:
        self._tasks = enumerate(tasks)
        self._start = start
        self._done = done
        self._ahead: deque[tuple[int, Task]] = deque()
        self._failures: list[tuple[int, BaseException]] = []
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self._num_read = 0

    def run(self, max_workers: int) -> None:
        is_more = True
        idle: list[_Worker] = []
        while True:
            while not self._failures and (idle or len(self._workers) < max_workers):
                if not self._ahead and not (is_more and (is_more := self._read_ahead())):
                    break
                if not idle:
                    idle.append(_Worker(self._start))
                    self._workers.append(idle[0])
                worker = idle.pop()
                worker.give(*self._ahead.popleft())
                self._selector.register(worker.answers, selectors.EVENT_READ, worker)
            if len(idle) == len(self._workers):
                break
            may_read = is_more and not self._failures and len(self._ahead) < max_workers
            ready = self._selector.select(0 if may_read else None)
            for key, _ in ready:
                self._take(key.data)
                idle.append(key.data)
            if may_read and not ready:
                is_more = self._read_ahead()
        if self._failures:
            raise min(self._failures, key=lambda failure: failure[0])[1]

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()
        self._selector.close()

    def _read_ahead(self) -> bool:
        """Have one more task ready; False if there is none."""
        try:
            number, task = next(self._tasks)
        except StopIteration:
            return False
        except DataError as error:
            self._failures.append((self._num_read, error))
            return False
        self._num_read = number + 1
        self._ahead.append((number, task))
        return True

    def _take(self, worker: _Worker) -> None:
        assert worker.task is not None, "only a busy worker answers"
        self._selector.unregister(worker.answers)
        number, task = worker.task
        worker.task = None
        failure = worker.answer()
        if failure is None:
            self._done(task)
        else:
            self._failures.append((number, failure))


def _death(code: int) -> BaseException:
    if code < 0:
        name = signal.Signals(-code).name
        return DataError(
            f"A worker was killed ({name}): the machine may be out of memory. Use fewer: --workers N. Finished parts "
            "are kept; the same command continues."
        )
    return RuntimeError(f"a worker ended with exit code {code}; its traceback is above")
