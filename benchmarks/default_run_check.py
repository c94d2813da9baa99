"""Did the default run learn?  python -m benchmarks.default_run_check runs/default

Reads what a finished run left behind and fails if it stayed near word frequencies: each objective's held-out loss must
end half a nat below the best unigram model, and the true token must be among the model's five guesses twice as often
as among the five most frequent tokens. The time is printed, not judged: it depends on the machine.
"""

import json
import sys
from pathlib import Path

MARGIN_NATS = 0.5
TOP5_RATIO = 2.0
NUM_BLANKS = 200


def failures(summary: dict[str, float]) -> list[str]:
    """What a run's summary.json falls short of, a line each."""
    found = []
    for objective in ("mask", "gmask"):
        loss, unigram = summary[f"valid_loss_{objective}"], summary[f"unigram_loss_{objective}"]
        # Written so that nan fails.
        if not loss <= unigram - MARGIN_NATS:
            found.append(
                f"{objective}: held-out loss {loss:.3f}, best unigram model {unigram:.3f}: "
                f"less than {MARGIN_NATS} nats apart"
            )
    model, frequent = summary["top5_model"], summary["top5_most_frequent"]
    if not model >= TOP5_RATIO * frequent:
        found.append(f"top-5 accuracy {model:.3f}, most frequent tokens {frequent:.3f}")
    if summary["num_blanks"] != NUM_BLANKS:
        found.append(f"{summary['num_blanks']} blanks were tried instead of {NUM_BLANKS}")
    return found


def report(folder: Path) -> int:
    """Print a finished run's figures and what they fall short of; returns the exit code."""
    summary = json.loads((folder / "summary.json").read_text())
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    done = next(event["time"] for event in events if event["event"] == "done")
    for key, value in summary.items():
        print(f"{key:<22} {value}")
    print(f"{'seconds of training':<22} {done - events[0]['time']:.0f}")
    short = failures(summary)
    for line in short:
        print(f"falls short: {line}")
    return 1 if short else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(report(Path(sys.argv[1])))
