"""samples.jsonl: the same blanks of held-out sentences, as the model in training fills them at intervals.

The model fills them where it is: on its own layout, in training precision, by its most probable tokens. All blanks grow
together, and each token takes one forward pass of a few short rows without a cache: at most 32 passes of 6 rows of at most
97 tokens, about as many operations as training 6,200 tokens. One replica computes. All ranks add up what its last stage
has chosen, so they go on alike, even if one of them computes wrongly.
"""

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from configs import derive
from glm.completion import SpanTokens, complete_spans
from glm.filling import layout_of
from glm.prompt import Blanks, span_text
from train.choice import decided_by_rank_0
from train.engine import Engine
from train.observe.held_out_blanks import HeldOutBlank, held_out_blanks
from train.observe.observers import ObservedStep, Observer
from train.parts import EVALUATION, part
from train.plan import TrainingPlan, crosses
from train.prepared import Prepared
from train.session import Session
from train.trackers import Tracker


class FilledBlanks(Observer):
    """Fills the blanks whenever a multiple of `log.samples_every_samples` is crossed, and at the end of the run.

    Args:
        prepared: the start.
        session: the open process groups.
        engine: the model in training.
        plan: of the run.
        trackers: get the line.
        watch: called before the blanks are filled, on all ranks, with these words.
    """

    def __init__(
        self,
        prepared: Prepared,
        session: Session,
        engine: Engine,
        plan: TrainingPlan,
        trackers: Tracker,
        watch: Callable[[str], None],
    ) -> None:
        self._prepared = prepared
        self._session = session
        self._engine = engine
        self._plan = plan
        self._trackers = trackers
        self._watch = watch
        interval = prepared.config.log.samples_every_samples
        assert interval is not None, "it is switched off"
        self._interval = interval
        self._tokenizer = prepared.tokenizer
        vocab_size = derive.padded_vocab_size(prepared.config.model)
        self._span_tokens = SpanTokens(prepared.tokenizer, vocab_size)

    def end(self, step: ObservedStep) -> dict[str, Any]:
        """See Observer; the line goes to samples.jsonl."""
        seen = step.progress.samples_seen
        if crosses(step.plan.samples_seen, seen, self._interval) or self._plan.is_finished(seen):
            self._watch("filling blanks")
            with part(EVALUATION):
                filled = self._filled() if self._blanks else []
            if filled:
                position = {"step": step.progress.step, "samples_seen": seen}
                self._trackers.log_samples({**position, "blanks": filled})
        return {}

    @cached_property
    def _blanks(self) -> list[HeldOutBlank]:
        """Chosen by rank 0 at the first call, which is collective."""
        prepared = self._prepared
        found = decided_by_rank_0(
            self._session,
            lambda: held_out_blanks(prepared.config, prepared.corpora, prepared.tokenizer),
        )
        if not found:
            self._trackers.log(
                "There is no blank to fill (log.samples_every_samples): the beginning of the held-out text "
                "has no sentence of 8 to 64 tokens with a word to hide, or the run trains on instructions alone."
            )
        return found

    @cached_property
    def _seq_length(self) -> int:
        """What all rows are padded to, at every token of every call; any number of tensor-parallel ranks divides it."""
        longest = max(len(each.row.context) + each.max_new_tokens for each in self._blanks)
        whole = math.lcm(8, self._session.topology.tp)
        return -(-longest // whole) * whole

    def _filled(self) -> list[dict[str, Any]]:
        special, longest = self._tokenizer.special, self._prepared.config.model.seq_length
        rows = [each.row for each in self._blanks]
        most = [each.max_new_tokens for each in self._blanks]
        spans = complete_spans(rows, most, longest, special, self._following)
        return [
            {
                "index": index,
                "objective": blank.objective,
                "text": blank.text,
                "truth": blank.truth,
                "filled": blank.filled(span_text(self._tokenizer, span)),
            }
            for index, (blank, span) in enumerate(zip(self._blanks, spans, strict=True))
        ]

    def _following(self, rows: Sequence[Blanks]) -> list[int]:
        """The most probable token after each row, the same on all ranks."""
        place = self._session.topology
        chosen = [0.0] * len(rows)
        if place.dp_rank == 0:
            # As many rows as ever: for new shapes, kernels would have to be made.
            always = [*rows, *[rows[-1]] * (len(self._blanks) - len(rows))]
            logits = self._engine.logits(
                *layout_of(always, self._tokenizer.special, self._seq_length)
            )
            if logits is not None and place.tp_rank == 0:
                scores = logits[: len(rows)].cpu()
                self._span_tokens.leave_out_impossible(scores)
                self._span_tokens.leave_out_white_space(scores, rows)
                chosen = scores.argmax(-1).tolist()
        return [int(token) for token in self._session.sum(chosen)]
