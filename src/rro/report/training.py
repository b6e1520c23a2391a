"""The curves of a run's trainings, from metrics.jsonl. Knows no learner: whatever number a training
logged is a curve.

The file is a summary that a crash may have cut short or that a resumed training has written twice:
lines that cannot be read are left out, and of two records of a step the later one counts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rro.report.rounds import FIGURES

TITLES = {
    "loss": "Loss",
    "learning_rate": "Learning rate",
    **FIGURES,
    "mean_token_accuracy": "Token accuracy",
    "tokens_per_second": "Tokens per second",
}
"""The titles of figures by the name that metrics have; others are shown under that name."""

# Counters, and what the page does not show.
_COUNTERS = {"iteration", "step", "epoch", "num_tokens", "stage"}
# Of a curve on the page.
_MOST_POINTS = 200

Curve = list[tuple[float, float]]


def trainings_of(file: Path) -> list[dict[str, Any]]:
    """One entry for each kind of training (`stage`), in the order in which they began: for each
    figure its `curves` as (optimiser step, value), and the step with which each round begins in
    `rounds`. The steps of several rounds go on from one to the next."""
    stages: dict[str, dict[int, dict[int, Mapping[str, float]]]] = {}
    for stage, iteration, step, figures in _records(file):
        stages.setdefault(stage, {}).setdefault(iteration, {})[step] = figures
    return [_training(stage, rounds) for stage, rounds in stages.items()]


def _training(
    stage: str, rounds: Mapping[int, Mapping[int, Mapping[str, float]]]
) -> dict[str, Any]:
    curves: dict[str, Curve] = {}
    begins, before = list[int](), 0
    for _, steps in sorted(rounds.items()):
        begins.append(before)
        for step, figures in sorted(steps.items()):
            for name, value in figures.items():
                curves.setdefault(name, []).append((before + step, value))
        before += max(steps)
    return {
        "stage": stage,
        "rounds": begins,
        "curves": {name: _thinned(curve) for name, curve in curves.items()},
    }


def _thinned(curve: Curve) -> Curve:
    """Every k-th point, and the last one."""
    every = math.ceil(len(curve) / _MOST_POINTS)
    return [*curve[:-1:every], curve[-1]]


def _records(file: Path) -> Iterator[tuple[str, int, int, dict[str, float]]]:
    if not file.exists():
        return
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
            place = str(record["stage"]), int(record.get("iteration", 0)), int(record["step"])
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            continue
        figures = {
            name: float(value)
            for name, value in record.items()
            if name not in _COUNTERS and isinstance(value, int | float) and _is_finite(value)
        }
        yield *place, figures


def _is_finite(value: float) -> bool:
    return abs(value) < 1e300
