"""What a policy gains from each strategy's pairs at one budget of generated tokens, in whole runs:
exploration, DPO, evaluation.

    python -m benchmarks.rewards RUN [RUN ...] --tokens 60000 --out FOLDER [--strategies NAME ...]
    [--set KEY=VALUE ...]

Each RUN is a run folder that has done SFT, one for each seed. From its SFT policy every strategy
explores train tasks until the budget is spent or there are no more; DPO and evaluation follow the
run's own recipe. So `ipr` and `eto` are the simplified strategies, not the methods of these names.
Runs go to FOLDER/STRATEGY-SEED and are resumed where they are there already. Prints a table: the
mean over the runs, with the range, of the reward, of its difference to the SFT policy and to the
first strategy on the same test tasks, and of what it took."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rro.config import Config, load_config
from rro.evaluation.compare import compare
from rro.evaluation.results import load_results
from rro.pipeline.run import open_run
from rro.pipeline.stages import run_all
from rro.runs.folder import RunFolder

STRATEGIES = ("rro", "adaptive", "fixed", "ipr", "eto")
HEAD = (
    "| strategy | reward | minus SFT | minus the first | pairs | trained on | tasks | "
    "generated tokens | invalid | steps |"
)


def configure(source: Path, strategy: str, tokens: int, settings: Sequence[str]) -> Config:
    """The source's recipe with another strategy and a budget."""
    fixed = [
        "rounds.count=1",
        f"explore.strategy={strategy}",
        f"explore.budget.generated_tokens={tokens}",
    ]
    fixed += ["explore.tasks=none", "experts.episodes=none", "evaluate.greedy=false"]
    return load_config(source / "config.toml", [*fixed, *settings])


def fork(source: Path, target: Path, config: Config, evaluated: Path) -> RunFolder:
    """A run that begins behind the SFT of `source`. What the journal `evaluated` holds of the SFT
    policy is not measured again."""
    if (target / "config.toml").exists():
        return RunFolder.open(target)
    old, new = RunFolder.open(source), RunFolder(target, config)
    new.checkpoint("sft").parent.mkdir(parents=True, exist_ok=True)
    for label in ("base", "sft"):
        if old.checkpoint(label).exists() and not new.checkpoint(label).exists():
            new.checkpoint(label).symlink_to(old.checkpoint(label).resolve())
    with new.journal.open("w", encoding="utf-8") as journal:
        journal.writelines(_kept(old.journal, evaluated))
    return RunFolder.create(config, target)


def _kept(trained: Path, evaluated: Path) -> Iterator[str]:
    with trained.open(encoding="utf-8") as lines:
        yield from (line for line in lines if _is(line, ("journal", ""), ("stage", "sft")))
    if evaluated.exists():
        with evaluated.open(encoding="utf-8") as lines:
            yield from (
                line
                for line in lines
                if _is(line, ("stage", "evaluate-sft"), ("evaluation", "sft/"))
            )


def _is(line: str, *wanted: tuple[str, str]) -> bool:
    row = json.loads(line)
    return any(row["kind"] == kind and row["key"].startswith(key) for kind, key in wanted)


def run(source: Path, strategy: str, arguments: argparse.Namespace) -> Path:
    """One whole run, resumed if it is there."""
    seed = RunFolder.open(source).config.seed
    target, first = (
        arguments.out / f"{name}-{seed}" for name in (strategy, arguments.strategies[0])
    )
    config = configure(source, strategy, arguments.tokens, arguments.set)
    folder = fork(source, target, config, first / "journal.jsonl")
    if not folder.results.exists():
        with open_run(folder) as opened:
            run_all(opened)
    return target


def figures(run: Path, first: Path) -> dict[str, float]:
    """One run's row of the table."""
    results, other = load_results(run), load_results(first)
    last, stages = results["evaluations"][-1], results["stages"]
    explored, trained = stages["explore-1"], stages["optimise-1"]
    [minus_sft] = [row["mean"] for row in results["differences"] if row["label"] == last["label"]]
    [minus_first] = [
        difference.paired.difference.mean
        for _, difference in compare([other, results])
        if difference.mode == last["mode"]
    ]
    return {
        "reward": last["reward"]["mean"],
        "minus SFT": minus_sft,
        "minus the first": minus_first,
        "pairs": explored["pairs"],
        "trained on": trained["pairs"],
        "tasks": explored["tasks"],
        "generated tokens": explored["usage"]["generated_tokens"],
        "invalid": last["invalid_actions"],
        "steps": last["steps"],
    }


def table(rows: dict[str, list[dict[str, float]]]) -> str:
    """Mean (low to high) over the runs."""
    lines = [HEAD, "|---" * (HEAD.count("|") - 1) + "|"]
    for strategy, found in rows.items():
        cells = [_cell([row[name] for row in found], name) for name in found[0]]
        lines.append(f"| {strategy} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: list[float], name: str) -> str:
    digits = (
        3
        if name in ("reward", "minus SFT", "minus the first")
        else 2
        if name in ("invalid", "steps")
        else 0
    )
    sign = "+" if name.startswith("minus") else ""
    low, middle, high = (
        f"{value:{sign},.{digits}f}"
        for value in (min(values), statistics.mean(values), max(values))
    )
    return f"{middle} ({low} to {high})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument(
        "--tokens", type=int, required=True, help="generated tokens of each exploration"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="of the recipe, for all strategies",
    )
    arguments = parser.parse_args()
    rows: dict[str, list[dict[str, Any]]] = {strategy: [] for strategy in arguments.strategies}
    for source in arguments.runs:
        done = [run(source, strategy, arguments) for strategy in arguments.strategies]
        for strategy, folder in zip(arguments.strategies, done, strict=True):
            rows[strategy].append(figures(folder, done[0]))
        print(table(rows), flush=True)
    (arguments.out / "rewards.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
