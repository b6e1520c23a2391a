"""What `benchmarks.learning_table` and `benchmarks.results` come to, as pictures. Each function
needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Curve = Sequence[tuple[int, float]]
POINTS = 60


def plot(curves: Mapping[str, Sequence[Curve]], path: Path) -> None:
    """Write a picture of the reward of a round's episodes against the tokens generated, the mean
    over seeds and the range of them."""
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


def plot_rewards(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a picture of each method's final reward with its interval, sampled and greedy, the best
    on top. `rows`: as `benchmarks.results_table.rows_of` gives them, of one environment; the last
    of a method counts."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    final = {row["method"]: row for row in rows}
    order = sorted(final.values(), key=lambda row: row["sampled_reward"]["mean"])
    height = 1.2 + 0.25 * len(order)
    figure, panels = pyplot.subplots(1, 2, figsize=(7, height), sharey=True)
    for panel, mode in zip(panels, ("sampled", "greedy"), strict=True):
        rewards = [row[f"{mode}_reward"] for row in order]
        means = [reward["mean"] for reward in rewards]
        ends = [[r["mean"] - r["low"] for r in rewards], [r["high"] - r["mean"] for r in rewards]]
        panel.errorbar(means, range(len(order)), xerr=ends, fmt="o", color="#0072b2", capsize=2)
        panel.set_xlabel(f"mean reward, {mode}")
        panel.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(order)), [row["method"] for row in order])
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
