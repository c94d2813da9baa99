"""Weights & Biases: the one file that imports wandb, and only when it is used.

It runs behind train/background_tracker.py. The run's id, and whether there is an account, are in train/wandb_account.py.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from configs.errors import RecordError
from configs.records import read_text
from configs.run_paths import SOURCE, RunPaths
from configs.schema import LogConfig
from train.detail_values import scalars
from train.metrics import Metrics
from train.trackers import Tracker
from train.wandb_account import offline_words, resolve_mode
from train.wandb_missing import abandon_reading, missing_from_wandb
from train.wandb_records import as_metrics

CONFIG_CHANGES = "config_changes"
"""Key of wandb's configuration: what each resume has changed of the run's, in words."""
# A server that does not answer in this time is not waited for; what a finished run still uploads has this long.
_INIT_SECONDS, _FINISH_SECONDS = 60.0, 8.0
# Between two writes of wandb's own file: what a kill loses, and the next start reports again.
_FLUSH_SECONDS = 1.0
_TEARDOWN_SECONDS = 2.0


class WandbTracker(Tracker):
    """Reports to wandb; runs behind train/background_tracker.py, for each of its calls may fail or hang.

    `step=` is never given to wandb's log, which would drop rows whose step it has seen: after a resume or a rollback steps
    are trained again. The step is a column, and the last row of a step counts.

    Args:
        folder: run folder.
        name: of the run.
        identifier: of the wandb run.
        settings: project, entity, mode.
        config: all keys, flat.
        say: takes sentences for people.
        changes: of the configuration so far, in words.
        step: of the checkpoint that this start continues; 0 for a new run.
        has_failed: set before `close` where the attempt ends with an error, which wandb then shows.
        history: metrics.jsonl with the steps before this start, opened before it trains, and closed here; None: as it is now.

    Raises:
        Exception: whatever wandb raises.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        identifier: str,
        settings: LogConfig,
        config: dict[str, Any],
        say: Callable[[str], None],
        changes: Sequence[str] = (),
        step: int = 0,
        has_failed: threading.Event | None = None,
        history: BinaryIO | None = None,
    ) -> None:
        self._has_failed = has_failed or threading.Event()
        self._paths, self._identifier, self._say = RunPaths(folder), identifier, say
        self._has_said_of_checkpoints = False
        # Nothing but the API is called: no reports of wandb's own errors. What is to be said, this program says.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        self._wandb: Any = wandb
        options = {
            "project": settings.wandb_project,
            "entity": settings.wandb_entity,
            "name": name,
            "id": identifier,
            "dir": str(folder),
            "config": {**config, CONFIG_CHANGES: list(changes)},
            "allow_val_change": True,
        }
        with self._missing(step, history) as missing:  # before this start has a record of its own
            self._run: Any = self._begun(options, resolve_mode(settings.wandb))
            self._run.define_metric("samples_seen")
            self._run.define_metric("*", step_metric="samples_seen")
            self._keep_source()
            for line in missing:
                self.log_metrics(as_metrics(line))

    def log_metrics(self, line: Metrics) -> None:
        """Report one step."""
        self._run.log({key: value for key, value in line.items() if value is not None})

    def log_details(self, line: dict[str, Any]) -> None:
        """Report the numbers among the details of a step, those of each layer by themselves."""
        self._run.log(scalars(line))

    def log_samples(self, line: dict[str, Any]) -> None:
        """Report filled blanks as a table; each time a new one, which the page steps through."""
        columns = ("index", "objective", "text", "truth", "filled")
        rows = [[blank.get(column) for column in columns] for blank in line["blanks"]]
        table = self._wandb.Table(columns=list(columns), data=rows)
        position = {key: line[key] for key in ("step", "samples_seen")}
        self._run.log({**position, "samples/blanks": table})

    def log_checkpoint(self, folder: Path, samples_seen: int) -> None:
        """Record a checkpoint as an artifact that refers to its folder: nothing is uploaded or read."""
        if not folder.is_dir():  # a later one has replaced it by now
            return
        try:
            artifact = self._wandb.Artifact(
                f"checkpoint-{self._identifier}",
                type="model",
                metadata={"samples_seen": samples_seen, "folder": folder.name},
            )
            artifact.add_reference(folder.resolve().as_uri(), name=folder.name, checksum=False)
        except (OSError, ValueError) as error:
            if not self._has_said_of_checkpoints:
                self._say(f"wandb has no record of the checkpoint {folder.name}: {error}.")
            self._has_said_of_checkpoints = True
            return
        self._run.log_artifact(artifact, aliases=["latest", folder.name])

    def alert(self, title: str, text: str) -> None:
        """Send an alert."""
        self._run.alert(title=title, text=text)

    def close(self) -> None:
        """Finish this start's record, as one that has failed or not, and end what wandb has started."""
        self._run.finish(exit_code=int(self._has_failed.is_set()))
        self._wandb.teardown()

    def _begun(self, options: dict[str, Any], mode: str) -> Any:
        """A run of wandb; where the server does not answer, one that is recorded offline."""
        if mode == "online":
            try:
                return self._wandb.init(
                    mode="online", resume="allow", settings=self._settings(), **options
                )
            except self._wandb.Error as error:
                abandon()  # its process still holds the run
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                self._say(
                    f"wandb cannot be reached ({reason}). "
                    + offline_words(self._paths.path, self._identifier)
                )
                mode = "offline"
        return self._wandb.init(mode=cast(Any, mode), settings=self._settings(), **options)

    def _settings(self) -> Any:
        return self._wandb.Settings(
            silent=True,
            console="off",
            init_timeout=_INIT_SECONDS,
            finish_timeout=_FINISH_SECONDS,
            x_transaction_log_flush_interval=_FLUSH_SECONDS,
        )

    @contextlib.contextmanager
    def _missing(self, step: int, history: BinaryIO | None) -> Iterator[Iterable[bytes]]:
        """What this run's earlier records lack of the steps before this start."""
        with contextlib.ExitStack() as open_files:
            found: Iterable[bytes] = ()
            if step:
                try:
                    lines = history or self._paths.metrics.open("rb")
                    reading = missing_from_wandb(self._paths.path, step, lines)
                    found = open_files.enter_context(reading)
                except (OSError, RecordError) as error:
                    self._say(
                        f"What wandb lacks of earlier steps is not known, and not reported again ({error})."
                    )
            yield found

    def _keep_source(self) -> None:
        """Code and environment: commit, uncommitted changes and versions."""
        with contextlib.suppress(OSError, RecordError):
            copy = Path(self._run.dir) / SOURCE
            copy.write_text(read_text(self._paths.source), "utf-8")
            self._run.save(str(copy), base_path=self._run.dir, policy="now")


def abandon() -> None:
    """End wandb's process, and forget it: the end of this process then does not wait for it.

    What wandb has recorded stays in its folder. Called once wandb has failed, or is not waited for any more.
    """
    wandb: Any = sys.modules.get("wandb")
    abandon_reading()
    for process in _service_processes():
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGKILL)
    if wandb is None:
        return

    def tear_down() -> None:
        # It takes its hook out of atexit before it finds that the process is gone.
        with contextlib.suppress(Exception):
            wandb.teardown()

    thread = threading.Thread(target=tear_down, name="wandb's end", daemon=True)
    thread.start()
    thread.join(_TEARDOWN_SECONDS)


def _service_processes() -> list[int]:
    """The children of this process that wandb has started."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            # Id, (name), state, parent, ...; the name may hold anything.
            head, _, rest = path.read_text("utf-8", "replace").rpartition(")")
            if int(rest.split()[1]) == os.getpid() and head.endswith("(wandb-core"):
                found.append(int(path.parent.name))
    return found
