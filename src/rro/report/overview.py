"""A run's figures for the overview, the plots and the tables: from its journal, while the run goes
on as well as after.

The figures of an evaluation are those of results.json. While it is missing or older than the
journal, they are computed from the journal by the same function (rro.evaluation.figures)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rro.config import dump_toml
from rro.errors import DataError
from rro.evaluation.compare import to_first_policy, to_first_run
from rro.evaluation.figures import EpisodeTotals, Rewards, evaluation_of
from rro.evaluation.results import RewardScale, load_results
from rro.evaluation.statistics import task_mean
from rro.exploration.trend import rising_share_by_stage
from rro.report.rounds import rounds_of
from rro.report.source import RunSource
from rro.report.training import trainings_of
from rro.report.trees import USAGE
from rro.runs.folder import START, RunFolder

# Of the curve along the trajectory, where many intervals are drawn.
_RESAMPLES = 2000
# What the page and the tables show of an evaluation.
_SHOWN = (
    *("label", "mode", "reward", "success", "steps", "invalid_actions", "episodes", "failed"),
    "stops",
)

Summary = Mapping[str, Any]


class Evaluations:
    """The evaluated episodes so far, by checkpoint and mode. Reads each record once."""

    def __init__(self) -> None:
        self.totals: dict[tuple[str, str], EpisodeTotals] = {}
        self._seen = 0

    @property
    def rewards(self) -> Rewards:
        """The rewards so far, by checkpoint and mode, then by task."""
        return {policy: totals.rewards for policy, totals in self.totals.items()}

    def refresh(self, source: RunSource) -> None:
        """Take in the episodes that were journalled since."""
        for label, mode, record in source.evaluations(self._seen):
            self._seen += 1
            self.totals.setdefault((label, mode), EpisodeTotals()).add(record, source.place)


def run_figures(
    source: RunSource, evaluations: Evaluations, summaries: Sequence[Summary]
) -> dict[str, Any]:
    """Everything that the overview shows of one run; `summaries` are the figures that
    `rro.report.trees.build` returns."""
    config, stages, results = source.folder.config, source.stages(), _results(source)
    scale = source.scale()
    resamples, seed = config.evaluate.bootstrap, config.seed
    groups = [
        _group(name, [summary for summary in summaries if summary["group"] == name], seed, scale)
        for name in dict.fromkeys(summary["group"] for summary in summaries)
    ]
    figures = {
        "name": source.folder.path.resolve().name,
        "recipe": config.name,
        "seed": seed,
        "strategy": config.explore.strategy,
        "model": config.model.name,
        "environment": results.get("environment", {"name": config.environment.name}),
        "versions": results.get("versions", {}),
        "currency": config.policy.prices.currency,
        "config": dump_toml(config),
        "stages": [_stage(name, record) for name, record in stages.items()],
        "groups": groups,
        "rounds": rounds_of(stages, groups, summaries, seed, scale),
        "trainings": trainings_of(source.folder.metrics),
        "evaluations": _evaluations(evaluations, results, resamples, seed, scale),
        "differences": [
            difference.plain()
            for difference in to_first_policy(evaluations.rewards, resamples, seed)
        ],
    }
    return {**figures, "curve": _curve(figures, source.folder)}


def between_runs(rewards: Sequence[Rewards]) -> list[dict[str, Any]]:
    """The last policy of each run minus that of the first one, paired by task, by mode. `run` is
    the run's place in `rewards`."""
    return [{"run": run, **difference.plain()} for run, difference in to_first_run(rewards)]


def _results(source: RunSource) -> dict[str, Any]:
    """results.json; empty before the first evaluation has ended."""
    try:
        return load_results(source.folder.path)
    except DataError:
        return {}


def _stage(name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a finished stage, without any path: the page may be published."""
    training = record.get("training", {})
    stage = {
        key: record.get(key)
        for key in ("seconds", "conversations", "failed_tasks", "left_tasks", "ended_by")
    }
    trained = {
        key: training.get(key) for key in ("steps", "tokens_per_second", "first_loss", "last_loss")
    }
    return {
        "name": name,
        **{key: value for key, value in (stage | trained).items() if value is not None},
    }


def _group(
    name: str, summaries: Sequence[Summary], seed: int, scale: RewardScale
) -> dict[str, Any]:
    """Figures of one iteration's exploration, or of one trend analysis."""
    finished = [summary for summary in summaries if summary["finished"]]
    drawn = Counter(count for summary in finished for count in summary["per_step"])
    return {
        "name": name,
        "tasks": len(summaries),
        "finished": len(finished),
        "steps": sum(len(summary["line"]) for summary in finished),
        "rose": sum(summary["rose"] for summary in summaries),
        "candidates": sum(summary["candidates"] for summary in summaries),
        "rollouts": sum(summary["rollouts"] for summary in summaries),
        "pairs": sum(summary["pairs"] for summary in summaries),
        "usage": [sum(summary["usage"][i] for summary in summaries) for i in range(len(USAGE))],
        "per_step": sorted(drawn.items()),
        "rising": _rising(finished),
        "along": _along(finished, seed, scale),
    }


def _rising(finished: Sequence[Summary]) -> list[list[int]]:
    """[rising, steps] of each third of the episodes whose start has a process reward."""
    started = [summary for summary in finished if summary["start_reward"] is not None]
    lines = [[reward for reward in summary["line"] if reward is not None] for summary in started]
    stages = rising_share_by_stage(lines, [summary["start_reward"] for summary in started])
    return [[stage.rising, stage.steps] for stage in stages]


def _along(finished: Sequence[Summary], seed: int, scale: RewardScale) -> list[dict[str, Any]]:
    """Mean process reward after step t, over the chosen trajectories that have t steps; t = 0 is
    the start."""
    lines = [[summary["start_reward"], *summary["line"]] for summary in finished]
    points = []
    for step in range(max(map(len, lines), default=0)):
        at = {
            str(i): [line[step]]
            for i, line in enumerate(lines)
            if len(line) > step and line[step] is not None
        }
        if at:
            mean = task_mean(at, _RESAMPLES, seed).within(*scale.range)
            points.append({"step": step, **mean.plain()})
    return points


def _evaluations(
    evaluations: Evaluations,
    results: Mapping[str, Any],
    resamples: int,
    seed: int,
    scale: RewardScale,
) -> list[dict[str, Any]]:
    """The rows of results.json, where it has all episodes that the journal has; else the same from
    the journal."""
    known = {(row["label"], row["mode"]): row for row in results.get("evaluations", [])}
    rows = []
    for (label, mode), totals in evaluations.totals.items():
        row = known.get((label, mode))
        if row is None or row["episodes"] != totals.episodes:
            row = evaluation_of(
                totals,
                label,
                mode,
                resamples=resamples,
                seed=seed,
                success_reward=scale.success,
                reward_range=scale.range,
            ).plain()
        rows.append({name: row.get(name) for name in _SHOWN})
    return rows


def _curve(figures: Mapping[str, Any], folder: RunFolder) -> list[dict[str, Any]]:
    """Reward of each iteration's policy against what exploration had cost by then; iteration 0 is
    the policy that the run starts from."""
    spent: dict[int, Sequence[float]] = {
        int(g["name"]): g["usage"] for g in figures["groups"] if g["name"].isdecimal()
    }
    points = []
    for iteration in range(1 + max(spent, default=0)):
        labels = (folder.trained(iteration),) if iteration else START
        total = [
            sum(usage[i] for number, usage in spent.items() if number <= iteration)
            for i in range(len(USAGE))
        ]
        for row in figures["evaluations"]:
            if row["label"] in labels:
                points.append(
                    {"label": row["label"], "mode": row["mode"], "usage": total, **row["reward"]}
                )
    return points
