"""The errors that a user can cause, one type for each kind of remedy; every package raises these.

A message has the form "key (value) relation key (value). What to type." Rank 0 prints it without a traceback, and the
process ends with the exit code below. Any other exception that is not caught is a bug, and the exit code is 1.
"""

EXIT_DONE = 0
EXIT_BUG = 1
EXIT_USER_INPUT = 2
EXIT_PEER_FAILED = 3
EXIT_STOPPED = 75
EXIT_INTERRUPTED = 130


class UserError(Exception):
    """Something that the person who started the command can correct; exits with 2."""


class ConfigError(UserError):
    """One or more problems of a configuration, all reported at once.

    Args:
        problems: one sentence each, saying what to type.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__(_numbered(problems))


class DataError(UserError):
    """A corpus, shard or tokenizer that cannot be used; names the file and the line or offset."""


class StorageError(DataError):
    """A file system that fails while data are read: the files may be whole, so training exits with 3 and is restarted."""


class DataChangedError(DataError):
    """The data differ from those that the checkpoint was trained on."""


class RecordError(UserError):
    """A small file of this program that cannot be used: not a regular file, damaged, or with wrong types or values."""


class CheckpointError(UserError):
    """A checkpoint that is damaged, unfinished or of another model."""


class RunFolderError(UserError):
    """A run folder that is in use, or that belongs to another model."""


class RankError(UserError):
    """A problem that one rank alone has found, so that it prints the message instead of rank 0; names rank and host."""


class DivergenceError(UserError):
    """Training that does not recover: restarted without a change it would fail again."""


class DistributedError(Exception):
    """A peer or a device failed, or ranks disagree; exits with 3 so that a launcher starts the run again."""


def _numbered(problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    lines = [f"  {number}. {problem}" for number, problem in enumerate(problems, start=1)]
    return f"{len(problems)} problems:\n" + "\n".join(lines)
