"""Runs side by side: paired differences of their last policies on the tasks that both evaluated."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rro.errors import DataError
from rro.evaluation.evaluate import difference_json
from rro.evaluation.statistics import paired_difference


def load_results(run: Path) -> dict[str, Any]:
    """A run's results.json. Raises DataError where there is none, or it is damaged."""
    file = run / "results.json"
    try:
        results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        results["name"] = run.name
        return results
    except FileNotFoundError:
        raise DataError(f"{file}: not there; evaluate the run first (rro evaluate {run})") from None
    except ValueError as error:
        raise DataError(f"{file}: {error}; make it again (rro evaluate {run})") from None


def differences_to_first(
    runs: Sequence[Mapping[str, Any]], resamples: int, seed: int
) -> list[dict[str, Any]]:
    """For each run, by mode: its last policy's mean reward minus the first run's, paired by task.

    Raises UsageError where a run shares no task with the first."""
    first = _rewards(runs[0])
    found = []
    for run in runs:
        rewards = _rewards(run)
        found.append(
            {
                mode: difference_json(
                    paired_difference(rewards[mode], first[mode], resamples, seed)
                )
                for mode in rewards.keys() & first.keys()
            }
        )
    return found


def _rewards(results: Mapping[str, Any]) -> dict[str, dict[str, list[float]]]:
    last = results["evaluations"][-1]["label"]
    return {row["mode"]: row["rewards"] for row in results["evaluations"] if row["label"] == last}
