"""The table of the trials of `benchmarks.learning`: rewards of each method over seeds, differences
to the first one with intervals, tokens, calls and training seconds; as a table, JSON and a plot.

    python -m benchmarks.learning_table OUT/long-shop/test-60000 --json FILE --plot FILE

A method's figures are means over its seeds of the means over tasks. Its difference to the first
method is paired by seed, with Student's t interval."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rro.runs.journal import Journal

MODES = ("sampled", "greedy")
LEVEL = 0.95


@dataclass(frozen=True)
class Finished:
    """What a trial came to. `rewards`: by (policy, mode), the policy "last" or "closing". `curve`:
    after each round, the tokens generated so far and the mean outcome of that round's episodes from
    the start, which its policy before the round played."""

    seed: int
    rewards: Mapping[tuple[str, str], float]
    tokens: int
    calls: int
    training_seconds: float
    curve: Sequence[tuple[int, float]]


def finished(folder: Path) -> Finished:
    """Read a trial's run folder."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    rewards = {
        ("closing" if row["label"].endswith("-closing") else "last", row["mode"]): row["reward"][
            "mean"
        ]
        for row in results["evaluations"]
    }
    stages = results["stages"]
    explored = [stages[name]["usage"] for name in stages if name.startswith("explore-")]
    trained = [name for name in stages if name.startswith("optimise-") or name == "closing"]
    return Finished(
        int(results["seed"]),
        rewards,
        sum(usage["generated_tokens"] for usage in explored),
        sum(usage["policy_calls"] for usage in explored),
        sum(stages[name]["seconds"] for name in trained),
        curve(folder, [usage["generated_tokens"] for usage in explored]),
    )


def curve(folder: Path, tokens: Iterable[int]) -> list[tuple[int, float]]:
    """After each round of a run, the tokens generated so far and the mean outcome of that round's
    episodes from the start, where there were any. `tokens`: those of each round."""
    points, generated = list[tuple[int, float]](), 0
    with Journal(folder / "journal.jsonl", read_only=True) as journal:
        for number, spent in enumerate(tokens, 1):
            generated += spent
            mean = _mean_of_first(journal.records("rollout", f"{number}/"))
            if mean is not None:
                points.append((generated, mean))
    return points


def _mean_of_first(records: Iterable[Mapping[str, Any]]) -> float | None:
    """The mean outcome of a round's episodes from the start: as many of each task, the first ones,
    as the smallest group has. Those that a group went on with because of its outcomes do not
    count."""
    groups: dict[str, dict[int, float]] = {}
    for record in records:
        task, node, number = str(record["key"]).rsplit("/", 2)
        if node == "0" and record["reward"] is not None:
            groups.setdefault(task, {})[int(number)] = record["reward"]
    if not groups:
        return None
    smallest = min(map(len, groups.values()))
    return fmean(
        outcome for group in groups.values() for _, outcome in sorted(group.items())[:smallest]
    )


def difference(
    one: Mapping[int, float], other: Mapping[int, float]
) -> tuple[float, float, float] | None:
    """Mean and interval of one - other over the seeds of both; None for fewer than two."""
    from scipy import stats

    values = [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())]
    if len(values) < 2:
        return None
    mean, error = fmean(values), float(stats.sem(values))
    reach = error * float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1))
    return mean, mean - reach, mean + reach


def table(found: Mapping[str, Sequence[Finished]], first: str) -> list[dict[str, Any]]:
    """A row for each method and policy, over the trials that have it: without successes there is
    no closing pass."""
    rows = []
    for method in found:
        for policy in ("last", "closing"):
            trials = _with(policy, found[method])
            if not trials:
                continue
            row: dict[str, Any] = {"method": method, "policy": policy, "seeds": len(trials)}
            others = _with(policy, found.get(first, ()))
            for mode in MODES:
                own = {trial.seed: trial.rewards[policy, mode] for trial in trials}
                base = {trial.seed: trial.rewards[policy, mode] for trial in others}
                row[mode] = fmean(own.values())
                row[f"{mode} - {first}"] = difference(own, base) if method != first else None
            row["tokens"] = fmean(trial.tokens for trial in trials)
            row["calls"] = fmean(trial.calls for trial in trials)
            row["training_seconds"] = fmean(trial.training_seconds for trial in trials)
            rows.append(row)
    return rows


def _with(policy: str, trials: Sequence[Finished]) -> list[Finished]:
    return [trial for trial in trials if (policy, MODES[0]) in trial.rewards]


def main(words: Sequence[str] | None = None) -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="benchmarks.learning_table", description=__doc__)
    parser.add_argument("folder", type=Path, help="trials of one place, split and budget")
    parser.add_argument("--first", default="gigpo", help="the method that others are compared with")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--plot", type=Path, help="write a picture of the curves here")
    options = parser.parse_args(words)
    found: dict[str, list[Finished]] = {}
    for results in sorted(options.folder.glob("*/*/results.json")):
        found.setdefault(results.parent.parent.name, []).append(finished(results.parent))
    rows = table(found, options.first)
    for row in rows:
        print(_line(row, options.first))
    if options.json is not None:
        curves = {method: [asdict(trial)["curve"] for trial in found[method]] for method in found}
        options.json.write_text(json.dumps({"rows": rows, "curves": curves}, indent=1) + "\n")
    if options.plot is not None:
        from benchmarks.learning_plot import plot

        plot(
            {method: [trial.curve for trial in trials] for method, trials in found.items()},
            options.plot,
        )


def _line(row: Mapping[str, Any], first: str) -> str:
    parts = [f"{row['method']:<28} {row['policy']:<8} n={row['seeds']}"]
    for mode in MODES:
        parts.append(f"{mode} {row[mode]:.3f}")
        if row[f"{mode} - {first}"]:
            parts.append("{:+.3f} [{:+.3f}, {:+.3f}]".format(*row[f"{mode} - {first}"]))
    parts.append(f"{row['tokens']:,.0f} tokens, {row['calls']:,.0f} calls")
    parts.append(f"{row['training_seconds']:.0f} s")
    return "  ".join(parts)


if __name__ == "__main__":
    main()
