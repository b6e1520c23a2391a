"""The figures of benchmarks/exploration.py as text: by shape and strategy, and over all shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def averages(found: dict[str, Any]) -> str:
    """Each strategy over all shapes: means, and geometric means of the times fewer calls. "off" is
    the mean distance of claimed credibility and accuracy, "bad" the shapes with more than a fifth
    of the pairs wrong or equal."""
    head = f"{'fewer':>6} {'net':>6} {'accur.':>6} {'claim':>6} {'off':>6} {'bad':>4} {'gap':>6}"
    lines = [f"{'mean over shapes':26} {head} {'stated':>6} {'pairs':>6} {'calls':>6} {'gain':>6}"]
    for name in next(iter(found.values())):
        rows = [by_name[name] for by_name in found.values()]
        accuracy, claimed = _means(rows, "pair_accuracy"), _means(rows, "mean_credibility")
        off = np.abs(accuracy - claimed)
        values = [
            np.exp(np.nanmean(np.log(_means(rows, "times_fewer_calls")))),
            np.exp(np.nanmean(np.log(_means(rows, "times_fewer_calls_per_net_pair")))),
            *(np.nanmean(figure) for figure in (accuracy, claimed, off)),
            np.sum(accuracy < 0.8),
            np.nanmean(_means(rows, "mean_true_gap")),
            np.nanmean(_means(rows, "mean_stated_gap")),
            *(np.nanmean(_means(rows, key)) for key in ("pairs_per_task", "calls_per_task")),
            np.nanmean(_means(rows, "gain_in_value")),
        ]
        width = (6, 6, 6, 6, 6, 4, 6, 6, 6, 6, 6)
        digits = (2, 2, 3, 3, 3, 0, 3, 3, 2, 1, 3)
        cells = zip(values, width, digits, strict=True)
        lines.append(f"{name:26} " + " ".join(f"{v:{w}.{d}f}" for v, w, d in cells))
    return "\n".join(lines)


def _means(rows: Sequence[dict[str, Any]], figure: str) -> Any:
    return np.array([row[figure]["mean"] for row in rows], float)


def table(found: dict[str, Any]) -> str:
    """The figures that matter most, for reading."""
    head = f"{'shape':17} {'strategy':24} {'calls/correct':>20} {'fewer':>14} {'accuracy':>16}"
    lines = [f"{head} {'pairs':>6} {'calls':>6} {'gain':>6} {'cand':>5}"]
    for shape, by_name in found.items():
        for name, row in by_name.items():
            cost, accuracy = row["calls_per_correct_pair"], row["pair_accuracy"]
            lines.append(
                f"{shape:17} {name:24} {_range(cost, 1):>20} "
                f"{_range(row['times_fewer_calls'], 1):>14} {_range(accuracy, 2):>16} "
                f"{row['pairs_per_task']['mean']:6.2f} {row['calls_per_task']['mean']:6.0f} "
                f"{row['gain_in_value']['mean']:6.2f} "
                f"{row['candidates_per_step']['mean'] or 0:5.2f}"
            )
    return "\n".join(lines)


def _range(interval: dict[str, float | None], digits: int) -> str:
    if interval["mean"] is None:
        return "-"
    mean, low, high = (f"{interval[end]:.{digits}f}" for end in ("mean", "low", "high"))
    return f"{mean} ({low}-{high})"
