"""A run's figures for the overview, the plots and the tables: from its journal, while it goes on as
well as after.

The same means and intervals as in results.json (rro.evaluation.statistics); what only the benchmark
can say (success) is taken from there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rro.config import dump_toml
from rro.errors import UsageError
from rro.evaluation.evaluate import difference_json, interval_json
from rro.evaluation.statistics import bootstrap_mean, paired_difference
from rro.exploration.trend import rising_share_by_stage
from rro.report.source import RunSource
from rro.report.trees import USAGE
from rro.types import Usage

_RESAMPLES = 2000  # of the curve along the trajectory, where many intervals are drawn

Summary = Mapping[str, Any]
Rewards = dict[tuple[str, str], dict[str, list[float]]]  # (checkpoint, mode) -> task -> rewards


class Evaluations:
    """The evaluated episodes so far. Reads each record once."""

    def __init__(self) -> None:
        self.rewards: Rewards = {}
        self.usage: dict[str, Usage] = {}
        self._seen = 0

    def refresh(self, source: RunSource) -> None:
        for label, mode, record in source.evaluations(self._seen):
            self._seen += 1
            self.rewards.setdefault((label, mode), {}).setdefault(record["task"], []).append(
                record["reward"]
            )
            self.usage[label] = self.usage.get(label, Usage()) + Usage(**record["usage"])


def run_figures(
    source: RunSource, evaluations: Evaluations, summaries: Sequence[Summary]
) -> dict[str, Any]:
    """Everything that the overview says of one run; `summaries` are the figures of
    `rro.report.trees.build`."""
    config, stages = source.folder.config, source.stages()
    results = _results(source)
    groups = [
        _group(name, [summary for summary in summaries if summary["group"] == name], config.seed)
        for name in dict.fromkeys(summary["group"] for summary in summaries)
    ]
    rewards = evaluations.rewards
    figures = {
        "name": source.folder.path.resolve().name,
        "recipe": config.name,
        "seed": config.seed,
        "strategy": config.explore.strategy,
        "model": config.model.name,
        "environment": results.get("environment", {"name": config.environment.name}),
        "versions": results.get("versions", {}),
        "currency": config.policy.prices.currency,
        "config": dump_toml(config),
        "stages": [_stage(name, record) for name, record in stages.items()],
        "groups": groups,
        "evaluations": _evaluations(evaluations, results, config.evaluate.bootstrap, config.seed),
        "differences": _differences(rewards, config.evaluate.bootstrap, config.seed),
    }
    return {**figures, "curve": _curve(figures, source.folder.trained)}


def between_runs(
    rewards: Sequence[Rewards], labels: Sequence[str], resamples: int = 10_000
) -> list[dict[str, Any]]:
    """The last policy of each run minus that of the first, paired by task, by mode."""
    found = []
    for number in range(1, len(rewards)):
        for (label, mode), ours in rewards[number].items():
            theirs = rewards[0].get((labels[0], mode))
            if label == labels[number] and theirs is not None:
                found += [
                    {"run": number, "label": label, "mode": mode, **row}
                    for row in _paired(ours, theirs, resamples, 0)
                ]
    return found


def last_label(rewards: Rewards) -> str:
    """The checkpoint that was evaluated last; "" where none was."""
    return next(reversed([label for label, _ in rewards]), "")


def _results(source: RunSource) -> dict[str, Any]:
    try:
        results: dict[str, Any] = json.loads(source.folder.results.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there before the first evaluation
        return {}
    return results


def _stage(name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """What a finished stage says of itself. No path: the page may be given away."""
    training = record.get("training", {})
    said = {
        key: record.get(key)
        for key in ("seconds", "conversations", "failed_tasks", "left_tasks", "ended_by")
    }
    trained = {
        key: training.get(key) for key in ("steps", "tokens_per_second", "first_loss", "last_loss")
    }
    return {
        "name": name,
        **{key: value for key, value in (said | trained).items() if value is not None},
    }


def _group(name: str, summaries: Sequence[Summary], seed: int) -> dict[str, Any]:
    """Figures of one iteration's exploration, or of one trend analysis."""
    finished = [summary for summary in summaries if summary["finished"]]
    drawn = Counter(count for summary in finished for count in summary["per_step"])
    return {
        "name": name,
        "tasks": len(summaries),
        "finished": len(finished),
        "steps": sum(len(summary["line"]) for summary in finished),
        "candidates": sum(summary["candidates"] for summary in summaries),
        "rollouts": sum(summary["rollouts"] for summary in summaries),
        "pairs": sum(summary["pairs"] for summary in summaries),
        "usage": [sum(summary["usage"][i] for summary in summaries) for i in range(len(USAGE))],
        "per_step": sorted(drawn.items()),
        "rising": _rising(finished),
        "along": _along(finished, seed),
    }


def _rising(finished: Sequence[Summary]) -> list[list[int]]:
    """[rising, steps] of each third of the episodes whose start was priced."""
    priced = [summary for summary in finished if summary["start_reward"] is not None]
    lines = [[reward for reward in summary["line"] if reward is not None] for summary in priced]
    stages = rising_share_by_stage(lines, [summary["start_reward"] for summary in priced])
    return [[stage.rising, stage.steps] for stage in stages]


def _along(finished: Sequence[Summary], seed: int) -> list[dict[str, Any]]:
    """Mean process reward after step t of the chosen trajectories that are that long; t = 0 is the
    start."""
    lines = [[summary["start_reward"], *summary["line"]] for summary in finished]
    points = []
    for step in range(max(map(len, lines), default=0)):
        at = {
            str(i): [line[step]]
            for i, line in enumerate(lines)
            if len(line) > step and line[step] is not None
        }
        if at:
            points.append({"step": step, **interval_json(bootstrap_mean(at, _RESAMPLES, seed))})
    return points


def _evaluations(
    evaluations: Evaluations, results: Mapping[str, Any], resamples: int, seed: int
) -> list[dict[str, Any]]:
    known = {(row["label"], row["mode"]): row for row in results.get("evaluations", [])}
    rows = []
    for (label, mode), rewards in evaluations.rewards.items():
        episodes, row = sum(map(len, rewards.values())), known.get((label, mode), {})
        fresh = row.get("episodes") == episodes
        rows.append(
            {
                "label": label,
                "mode": mode,
                "reward": interval_json(bootstrap_mean(rewards, resamples, seed)),
                "success": row.get("success") if fresh else None,
                "steps": row.get("steps") if fresh else None,
                "failed": row.get("failed") if fresh else None,
                "episodes": episodes,
            }
        )
    return rows


def _differences(rewards: Rewards, resamples: int, seed: int) -> list[dict[str, Any]]:
    """Each later checkpoint minus the first one, by mode."""
    first = next(iter(rewards), ("", ""))[0]
    return [
        {"label": label, "against": first, "mode": mode, **row}
        for (label, mode), ours in rewards.items()
        if label != first and (first, mode) in rewards
        for row in _paired(ours, rewards[first, mode], resamples, seed)
    ]


def _paired(
    ours: Mapping[str, Sequence[float]],
    theirs: Mapping[str, Sequence[float]],
    resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """One row; none where the two share no task (yet)."""
    try:
        return [difference_json(paired_difference(ours, theirs, resamples, seed))]
    except UsageError:
        return []


def _curve(figures: Mapping[str, Any], trained: Any) -> list[dict[str, Any]]:
    """Reward of each iteration's policy against what exploration had cost by then; iteration 0 is
    the SFT policy."""
    spent: dict[int, Sequence[float]] = {
        int(g["name"]): g["usage"] for g in figures["groups"] if g["name"].isdecimal()
    }
    points = []
    for iteration in range(1 + max(spent, default=0)):
        total = [
            sum(usage[i] for number, usage in spent.items() if number <= iteration)
            for i in range(len(USAGE))
        ]
        for row in figures["evaluations"]:
            if row["label"] == trained(iteration):
                points.append(
                    {"label": row["label"], "mode": row["mode"], "usage": total, **row["reward"]}
                )
    return points
