"""The processes of both models, as the benchmark sees them."""

import contextlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.trees import ROOT


class Worker:
    """A process that has one of the models (worker.py).

    Args:
        python: that runs it.
        side: ours or theirs.
        inputs: the file that both read.
        dtype: name of PyTorch's.
    """

    def __init__(self, python: Path, side: str, inputs: Path, dtype: str) -> None:
        self._side = side
        self._log = inputs.with_name(f"{side}.log")
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [str(python), "-W", "ignore", "-m", f"benchmarks.rival.{side}", str(inputs), dtype],
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    "OMP_NUM_THREADS": "1",
                    "DS_ACCELERATOR": "cpu",
                },
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request; its answer."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `answer` says why
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Wait for the next answer.

        Raises:
            SystemExit: the process ended without one; with the last lines that it printed.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        said = "\n".join(self._log.read_text().splitlines()[-12:])
        raise SystemExit(f"The process of the model ({self._side}) ended:\n{said}")
