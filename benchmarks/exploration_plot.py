"""The figures of benchmarks/exploration.py as a picture: cost and accuracy of a pair, by shape and
strategy."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def plot(
    found: dict[str, Any], path: Path, names: tuple[str, ...] = ("rro", "fixed", "ipr", "adaptive")
) -> None:
    """Write a picture of calls per correct pair (logarithmic) and pair accuracy, with their
    intervals. Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shapes = list(found)
    drawn = [name for name in names if name in found[shapes[0]]]
    figure, panels = pyplot.subplots(1, 2, figsize=(11, 0.45 * len(shapes) + 1.5), sharey=True)
    titles = {
        "calls_per_correct_pair": "policy calls per correct pair",
        "pair_accuracy": "pair accuracy",
    }
    for panel, (key, title) in zip(panels, titles.items(), strict=True):
        for index, name in enumerate(drawn):
            rows = [found[shape][name][key] for shape in shapes]
            _points(panel, rows, name, (index - (len(drawn) - 1) / 2) * 0.17)
        panel.set_title(title)
        panel.grid(axis="x", alpha=0.3)
    panels[0].set_xscale("log")
    panels[0].set_yticks(range(len(shapes)), shapes)
    panels[0].invert_yaxis()
    panels[1].legend(loc="lower left", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _points(panel: Any, rows: list[dict[str, float | None]], name: str, shift: float) -> None:
    known = [(index, row) for index, row in enumerate(rows) if row["mean"] is not None]
    means = [row["mean"] for _, row in known]
    errors = [
        [row["mean"] - row["low"] for _, row in known],  # type: ignore[operator]
        [row["high"] - row["mean"] for _, row in known],  # type: ignore[operator]
    ]
    panel.errorbar(
        means, [index + shift for index, _ in known], xerr=errors, fmt="o", ms=4, lw=1, label=name
    )
