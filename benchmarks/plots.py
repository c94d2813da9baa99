"""Pictures of the records in docs/benchmarks:  python -m benchmarks.plots

Reads the JSON records that benchmarks write (docs/benchmarks/NAME.json), and writes an SVG file beside each. Needs
matplotlib, which nothing else here does: `pip install matplotlib`.
"""

import json
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.counting.waterfall import waterfall
from benchmarks.stability import pictures
from benchmarks.trees import ROOT

FOLDER = ROOT / "docs" / "benchmarks"
_THIS, _OTHER, _WANTED = (
    "#0072b2",
    "#999999",
    "#d55e00",
)  # told apart by colour-blind readers as well

Record = dict[str, Any]


def step(axes: Any, record: Record) -> None:
    """Seconds of a step of the default run, beside an earlier commit's."""
    names = list(record["seconds"])
    compared = record["compared"]
    for place, (tree, label, colour) in enumerate(
        ((compared, f"commit {compared}", _OTHER), ("this", "this program", _THIS))
    ):
        values = [record["seconds"][name][tree] for name in names]
        _bars(axes, values, place, 2, label, colour)
    _finish(axes, names, "seconds a step", "The default run")


def attention(axes: Any, record: Record) -> None:
    """Time over ideal of every kind of row."""
    kinds: dict[str, list[list[float]]] = {}
    for name, ratios in record["ratios"].items():
        kinds.setdefault(name.rpartition(", ")[0], []).append(ratios)
    lengths = list(dict.fromkeys(name.rpartition(", ")[2] for name in record["ratios"]))
    colours = (_THIS, "#56b4e9", _OTHER)
    for place, (kind, values) in enumerate(kinds.items()):
        _bars(axes, values, place, len(kinds), kind, colours[place])
    axes.axhline(1.1, color=_WANTED, linestyle="--", label="wanted")
    _finish(axes, [f"{length} tokens" for length in lengths], "time / ideal", "Attention on CPU")


def swissarmy(axes: Any, record: Record) -> None:
    """How many times as fast as the library."""
    ways = {
        "as it is": ("targets", "all"),
        "targets": ("targets", "targets"),
        "all": ("all", "all"),
    }
    sizes = record["compared"]
    colours = (_THIS, "#56b4e9", _OTHER)
    for place, (way, (mine, other)) in enumerate(ways.items()):
        values = [
            [
                theirs / ours
                for ours, theirs in zip(size["ours"][mine], size["theirs"][other], strict=True)
            ]
            for size in sizes
        ]
        _bars(axes, values, place, len(ways), way, colours[place])
    names = [f"{size['size'].replace(', ', chr(10))}\n{size['precision']}" for size in sizes]
    _finish(axes, names, "times as fast", "Beside SwissArmyTransformer's GLM130B")


def parallel(axes: Any, record: Record) -> None:
    """How long pipeline stages wait, beside theory."""
    found = record["bubbles"]
    theory = [[100 * each["theory"]] for each in found]
    measured = [[100 * share for share in each["measured"]] for each in found]
    _bars(axes, theory, 0, 2, "theory", _OTHER)
    _bars(axes, measured, 1, 2, "measured", _THIS)
    names = [f"v={each['chunks']}\nm={each['num_micro_batches']}" for each in found]
    _finish(axes, names, "% of a step", "Four stages wait; v chunks, m micro-batches")


def log_drill(axes: Any, record: Record) -> None:
    """Training loss of the first seed's three runs, by samples seen."""
    seed = record["outcomes"][0]["seed"]
    colours = {"clean": _OTHER, "rollback": _THIS, "warn": _WANTED}
    for outcome in record["outcomes"]:
        if outcome["seed"] != seed:
            continue
        seen, losses = zip(*outcome["curve"], strict=True)
        name = outcome["variant"]
        axes.plot(seen, losses, label=name, color=colours[name], linewidth=1)
    axes.set_yscale("log")
    axes.set_xlabel("samples seen")
    axes.set_ylabel("training loss")
    axes.set_title("The log of GLM-130B's run as a drill")
    axes.legend(fontsize=8)


def counted(axes: Any) -> None:
    """Seconds of a step of GLM-130B by the speed model, change by change; nothing of it is measured."""
    rows = [(group, row) for group, found in waterfall() for row in found]
    places = range(len(rows))
    colours = [_OTHER if group.startswith("commit") else _THIS for group, _ in rows]
    axes.barh(places, [row.seconds[0] for _, row in rows], color=colours)
    axes.set_yticks(places, [f"{group}: {row.name}" for group, row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("seconds a step (counted, not measured)")
    axes.set_title("GLM-130B on 768 H100")


PICTURES: dict[str, Callable[[Any, Record], None]] = {
    "step": step,
    "attention": attention,
    "swissarmy": swissarmy,
    "parallel": parallel,
    "log_drill": log_drill,
}


def main() -> None:
    """Draw every record that is there, and the counted waterfall."""
    for name, draw in PICTURES.items():
        path = FOLDER / f"{name}.json"
        if path.exists():
            _save(name, lambda axes, draw=draw, path=path: draw(axes, json.loads(path.read_text())))
    _save("waterfall", counted)
    study = FOLDER / "stability_study.json"
    if study.exists():
        record = json.loads(study.read_text())
        _save("stability_losses", lambda axes: pictures.losses(axes, record))
        _save("stability_gradients", lambda axes: pictures.gradients(axes, record), panels=2)


def _save(name: str, draw: Callable[[Any], None], panels: int = 1) -> None:
    import matplotlib

    matplotlib.use("svg")
    # The same figures make the same file.
    matplotlib.rcParams["svg.hashsalt"] = "glm"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, panels, figsize=(8, 4), layout="constrained", sharey=True)
    draw(axes)
    figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None})
    pyplot.close(figure)
    print(FOLDER / f"{name}.svg")


def _bars(
    axes: Any, values: Sequence[Sequence[float]], place: int, count: int, label: str, colour: str
) -> None:
    """Medians of several rounds, with their ranges."""
    medians = [statistics.median(each) for each in values]
    ranges = [
        [median - min(each) for median, each in zip(medians, values, strict=True)],
        [max(each) - median for median, each in zip(medians, values, strict=True)],
    ]
    width = 0.8 / count
    places = [number + (place - (count - 1) / 2) * width for number in range(len(values))]
    axes.bar(places, medians, width, yerr=ranges, capsize=2, label=label, color=colour)


def _finish(axes: Any, names: list[str], unit: str, title: str) -> None:
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_ylabel(unit)
    axes.set_title(title)
    axes.set_ylim(0, 1.3 * axes.get_ylim()[1])  # room for the legend
    axes.legend(fontsize=8, loc="upper left", ncols=2)


if __name__ == "__main__":
    main()
