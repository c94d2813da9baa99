"""What a run was doing when its memory ran out: read off the error's traceback."""

from types import TracebackType

# (module, function): what runs in it. The innermost counts.
PHASES = {
    ("train.engine", "build_engine"): "while it built the model and the optimizer",
    ("train.checkpoint.restore", "restore"): "while it loaded the checkpoint",
    ("train.checkpoint.restore", "initialise_from"): "while it loaded the initial weights",
    ("train.engine.pipeline", "train_step"): "in a training step",
    ("train.evaluation", "evaluate"): "in an evaluation",
    ("train.checkpoint.saver", "save"): "while it saved a checkpoint",
    ("train.showcase.ending", "show_what_was_learnt"): "after the training, in the showcase",
}


def phase_of(error: BaseException) -> str:
    """What was going on, as words to put after "ran out of memory"; "" if it was none of the phases."""
    phase = ""
    step: TracebackType | None = error.__traceback__
    while step is not None:
        frame = step.tb_frame
        place = (frame.f_globals.get("__name__", ""), frame.f_code.co_name)
        phase = PHASES.get(place, phase)
        step = step.tb_next
    return phase
