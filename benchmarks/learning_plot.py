"""Curves of `benchmarks.learning_table` as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

Curve = Sequence[tuple[int, float]]
POINTS = 60


def plot(curves: Mapping[str, Sequence[Curve]], path: Path) -> None:
    """Write a picture of the reward of a round's episodes against the tokens generated, the mean
    over seeds and the range of them. Needs matplotlib."""
    import matplotlib
    import numpy as np

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panel = pyplot.subplots(figsize=(7, 4.5))
    for method, seeds in curves.items():
        last = min(curve[-1][0] for curve in seeds)
        tokens = np.linspace(min(curve[0][0] for curve in seeds), last, POINTS)
        rewards = [np.interp(tokens, *np.array(curve).T) for curve in seeds]
        panel.plot(tokens, np.mean(rewards, axis=0), label=method)
        panel.fill_between(tokens, np.min(rewards, axis=0), np.max(rewards, axis=0), alpha=0.12)
    panel.set_xlabel("generated tokens")
    panel.set_ylabel("reward of the round's episodes")
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
