"""Paired differences in reward: of a run's later policies to its first one, and of runs to the
first run. Pairing by task takes the tasks' difficulty out of the comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rro.errors import UsageError
from rro.evaluation.figures import Difference, Rewards
from rro.evaluation.statistics import Values, paired_difference

# Between runs, where no one run's settings apply.
RESAMPLES = 10_000
SEED = 0


def to_first_policy(rewards: Rewards, resamples: int, seed: int) -> list[Difference]:
    """Within one run, by mode: each later policy minus the first one, where they share a task."""
    if not rewards:
        return []
    first, *later = dict.fromkeys(label for label, _ in rewards)
    differences = []
    for mode in dict.fromkeys(mode for _, mode in rewards):
        theirs = rewards.get((first, mode), {})
        for label in later:
            ours = rewards.get((label, mode), {})
            if ours.keys() & theirs.keys():
                paired = paired_difference(ours, theirs, resamples, seed)
                differences.append(Difference(label, first, mode, paired))
    return differences


def to_first_run(runs: Sequence[Rewards]) -> list[tuple[int, Difference]]:
    """The last policy of each later run minus that of the first run, by mode, each with the run's
    place in `runs`. Runs that share no evaluated task with the first one are left out."""
    (first, firsts), *later = [_last_policy(rewards) for rewards in runs]
    differences = []
    for number, (label, by_mode) in enumerate(later, 1):
        for mode, ours in by_mode.items():
            theirs = firsts.get(mode, {})
            if ours.keys() & theirs.keys():
                paired = paired_difference(ours, theirs, RESAMPLES, SEED)
                differences.append((number, Difference(label, first, mode, paired)))
    return differences


def compare(runs: Sequence[Mapping[str, Any]]) -> list[tuple[int, Difference]]:
    """`to_first_run` of results as results.json holds them. Raises UsageError where a run shares no
    evaluated task with the first one."""
    differences = to_first_run([rewards_of(run) for run in runs])
    compared = {number for number, _ in differences}
    for number, run in enumerate(runs):
        if number and number not in compared:
            raise UsageError(
                f"{run['name']} shares no evaluated task with {runs[0]['name']}: "
                "compare runs that were evaluated on the same tasks"
            )
    return differences


def rewards_of(results: Mapping[str, Any]) -> Rewards:
    """The rewards that results.json holds."""
    return {(row["label"], row["mode"]): row["rewards"] for row in results["evaluations"]}


def _last_policy(rewards: Rewards) -> tuple[str, dict[str, Values]]:
    """The policy that was evaluated last, and its rewards by mode."""
    last = next(reversed([label for label, _ in rewards]), "")
    return last, {mode: values for (label, mode), values in rewards.items() if label == last}
