"""A sweep: trials of a recipe with different settings, each measured on the validation tasks.

Optuna proposes the settings; trials, records and resume are ours. The journal holds what the sweep
is and every trial that was begun or finished; proposals depend on it and the seed alone, so a sweep
that was killed goes on as if it had not been. No trial plays a test task."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rro.concurrency import contained
from rro.config import Config, dump_toml, load_config
from rro.environments.splits import WITHOUT_VALIDATION, validation_tasks
from rro.errors import RroError, UsageError, counted, describe
from rro.evaluation.results import learning_cost
from rro.files import write_file
from rro.pipeline.check import Opened, ensure_ready
from rro.pipeline.sweep_space import Choice, Range, Space, as_text, parse_space
from rro.pipeline.trial import run_trial
from rro.runs.journal import Journal
from rro.seeds import derive_seed
from rro.stopping import Stopped

log = logging.getLogger(__name__)

# A sweep whose trials fail so often in a row ends.
_FAILURES = 3


@dataclass(frozen=True)
class Metric:
    """A figure of the last policy: `name` is "reward" or "success", `mode` is "sampled" or
    "greedy"."""

    name: str
    mode: str

    def of(self, results: dict[str, Any]) -> dict[str, Any]:
        """The interval in a run's results. Raises RroError where it is no number."""
        [row] = [row for row in results["evaluations"] if row["mode"] == self.mode]
        interval: dict[str, Any] = row[self.name]
        if not math.isfinite(interval["mean"]):
            raise RroError(f"its {self.name} is {interval['mean']}")
        return interval


def parse_metric(text: str) -> Metric:
    """`validation.reward` or `validation.success`, with `.greedy` after it for greedy episodes.
    Raises UsageError for anything else."""
    split, *rest = text.split(".")
    if split == "test":
        raise UsageError(f"--metric {text}: a sweep never looks at test tasks: validation.reward")
    name, mode = (*rest, "sampled")[:2] if 1 <= len(rest) <= 2 else ("", "")
    if split != "validation" or name not in ("reward", "success"):
        raise UsageError(f"--metric {text}: choose validation.reward or validation.success")
    if mode not in ("sampled", "greedy"):
        raise UsageError(f"--metric {text}: the last part is sampled or greedy")
    return Metric(name, mode)


@dataclass(frozen=True)
class Trial:
    """A trial that has ended: the `values` of what is swept; the metric's interval in `metric`, or
    why it failed in `problem`; and what learning took in `cost`."""

    number: int
    values: dict[str, Any]
    seconds: float
    metric: dict[str, Any] | None = None
    problem: str | None = None
    cost: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Sweep:
    """What is swept. `settings` are the words of the command line, see `sweep_space`."""

    recipe: Path
    settings: tuple[str, ...]
    metric: str = "validation.reward"
    seed: int = 0

    def record(self) -> dict[str, Any]:
        """As the journal holds it. The recipe's text is in it as a hash."""
        config = load_config(self.recipe, parse_space(self.settings).corners()[0])
        digest = hashlib.sha256(dump_toml(config).encode()).hexdigest()
        plain = asdict(self) | {"recipe": str(self.recipe.resolve()), "config": digest}
        return {**plain, "settings": list(self.settings)}


@dataclass(frozen=True)
class Report:
    """The trials that have ended, in the order of their numbers, and their folder."""

    folder: Path
    metric: str
    space: Space
    trials: Sequence[Trial]

    @property
    def ranked(self) -> list[Trial]:
        """Best first, failed ones last."""
        measured = [trial for trial in self.trials if trial.metric]
        failed = [trial for trial in self.trials if not trial.metric]
        return [*sorted(measured, key=lambda trial: -(trial.metric or {})["mean"]), *failed]

    @property
    def best(self) -> Trial | None:
        """The trial with the highest metric; None: all failed."""
        return next((trial for trial in self.ranked if trial.metric), None)

    def trial_folder(self, number: int) -> Path:
        """The run folder of a trial, by its number from 1."""
        return self.folder / f"trial-{number:03d}"

    def plain(self) -> dict[str, Any]:
        """The form of sweep.json."""
        best = self.best
        settings = None if best is None else self.space.overrides(best.values)
        trials = [asdict(trial) for trial in self.trials]
        return {"metric": self.metric, "best": settings, "trials": trials}


def run_sweep(sweep: Sweep, folder: Path, trials: int, starts: Path | None = None) -> Report:
    """Run a sweep up to `trials` trials; what its folder holds already is not run again. SFT
    policies are made in `starts`, or taken from there; default: a folder of the sweep's own.

    Raises UsageError before the first trial for settings, a metric or a recipe that do not fit, a
    folder that holds another sweep, or where Optuna is not installed; RroError where trials fail
    one after another."""
    _require_optuna()
    if trials < 1:
        raise UsageError(f"--trials {trials}: at least 1")
    metric, space, record = parse_metric(sweep.metric), parse_space(sweep.settings), sweep.record()
    _check(sweep, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with Journal(folder / "journal.jsonl") as journal:
        if not _is_known(journal, record, folder):
            journal.append("sweep", "sweep", {**record, "trials": trials})
        elif _wanted(journal) != trials:
            number = len(list(journal.records("trials"))) + 1
            journal.append("trials", str(number), {"trials": trials})
        report = Report(folder, sweep.metric, space, _ended(journal))
        count = space.most(trials)
        if count < trials:
            log.info("there are only %d combinations", count)
        starts = starts or folder / "sft"
        for latest in _trials(sweep, report, metric, journal, count, starts):
            report = latest
            write_file(folder / "sweep.json", json.dumps(report.plain(), indent=1) + "\n")
    return report


def finished_sweep(sweep: Sweep, folder: Path, trials: int) -> Report:
    """What a sweep of so many trials came to; runs none. Raises UsageError where the folder holds
    another sweep, RroError where trials are missing."""
    space, ended = parse_space(sweep.settings), list[Trial]()
    if (folder / "journal.jsonl").is_file():
        with Journal(folder / "journal.jsonl", read_only=True) as journal:
            ended = _ended(journal) if _is_known(journal, sweep.record(), folder) else []
    if len(ended) < space.most(trials):
        wanted = counted(space.most(trials), "trials")
        raise RroError(f"{folder}: {len(ended)} of {wanted} of the sweep ended")
    return Report(folder, sweep.metric, space, ended)


def _is_known(journal: Journal, record: dict[str, Any], folder: Path) -> bool:
    """Whether the journal holds this sweep, not none yet."""
    known = journal.get("sweep", "sweep")
    if known is not None and {key: known[key] for key in record} != record:
        raise UsageError(f"{folder} holds another sweep, or its recipe has changed since")
    return known is not None


def _wanted(journal: Journal) -> int:
    """How many trials a sweep is to have, as it was begun or extended last; 0: none was begun."""
    begun = journal.get("sweep", "sweep") or {"trials": 0}
    extended = [(int(record["key"]), record["trials"]) for record in journal.records("trials")]
    wanted: int = max(extended)[1] if extended else begun["trials"]
    return wanted


def read_sweep(folder: Path) -> tuple[Sweep, int]:
    """The sweep that a folder holds, and how many trials it is to have. Raises UsageError where
    there is none."""
    known, trials = None, 0
    if (folder / "journal.jsonl").is_file():
        with Journal(folder / "journal.jsonl", read_only=True) as journal:
            known = journal.get("sweep", "sweep")
            trials = _wanted(journal)
    if known is None:
        raise UsageError(f"{folder} holds no sweep")
    recipe, settings = Path(known["recipe"]), tuple(known["settings"])
    return Sweep(recipe, settings, known["metric"], known["seed"]), trials


def _trials(
    sweep: Sweep, report: Report, metric: Metric, journal: Journal, count: int, starts: Path
) -> Iterator[Report]:
    """The report after each trial, and at once."""
    yield report
    failures = 0
    for number in range(len(report.trials) + 1, count + 1):
        values = _values(sweep, report, journal, number)
        shown = ", ".join(f"{key}={as_text(value)}" for key, value in values.items())
        log.info("trial %d of %d: %s", number, count, shown)
        trial = _run(sweep, report, metric, number, values, starts)
        journal.append("trial", str(number), asdict(trial))
        report = Report(report.folder, report.metric, report.space, [*report.trials, trial])
        _tell(trial, report)
        yield report
        failures = failures + 1 if trial.problem else 0
        if failures == _FAILURES and number < count:
            raise RroError(
                f"{failures} trials in a row failed, the last one: {trial.problem}; put it right, "
                f"then go on with rro sweep --resume {report.folder}"
            )


def _values(sweep: Sweep, report: Report, journal: Journal, number: int) -> dict[str, Any]:
    begun = journal.get("begun", str(number))
    if begun is None:
        begun = {"values": propose(report, derive_seed(sweep.seed, "sweep", number))}
        journal.append("begun", str(number), begun)
    values: dict[str, Any] = begun["values"]
    return values


def _run(
    sweep: Sweep,
    report: Report,
    metric: Metric,
    number: int,
    values: dict[str, Any],
    starts: Path,
) -> Trial:
    begun = time.perf_counter()
    try:
        with contained():
            config = trial_config(sweep.recipe, report.space.overrides(values))
            path = report.trial_folder(number)
            results = run_trial(config, path, starts, "validation")
            measured = metric.of(results)
    except Stopped:
        raise
    except Exception as error:
        log.debug("trial %d", number, exc_info=True)
        problem = str(error) if isinstance(error, RroError) else describe(error)
        return Trial(number, values, time.perf_counter() - begun, problem=problem)
    cost = asdict(learning_cost(results["stages"]))
    return Trial(number, values, time.perf_counter() - begun, measured, cost=cost)


def _tell(trial: Trial, report: Report) -> None:
    if trial.metric is None:
        log.warning("trial %d failed: %s", trial.number, trial.problem)
    elif report.best is not None and report.best.metric is not None:
        mean, best = trial.metric["mean"], report.best
        log.info(
            "trial %d: %.3f in %.0f s; best: %.3f, trial %d",
            *(trial.number, mean, trial.seconds, report.best.metric["mean"], best.number),
        )


def trial_config(recipe: Path, overrides: Sequence[str]) -> Config:
    """The configuration of a trial: it learns without the validation tasks. Raises UsageError for
    settings that do not fit."""
    config = load_config(recipe, [*overrides, "evaluate.validation=true"])
    if config.environment.train_split == "train":
        split = f"environment.train_split={WITHOUT_VALIDATION}"
        config = load_config(recipe, [*overrides, "evaluate.validation=true", split])
    return config


def check_settings(sweep: Sweep) -> Config:
    """Read the metric and every value; returns the configuration of the first values. Raises
    UsageError for what does not fit."""
    metric, space = parse_metric(sweep.metric), parse_space(sweep.settings)
    _check_split(sweep.settings)
    configs = [trial_config(sweep.recipe, overrides) for overrides in space.corners()]
    if metric.mode == "greedy" and not configs[0].evaluate.greedy:
        raise UsageError(f"--metric {sweep.metric} needs evaluate.greedy=true")
    return configs[0]


def _check_split(settings: Sequence[str]) -> None:
    """The split "train" holds the validation tasks: a recipe's is replaced, one that a command asks
    for is refused."""
    for key, _, value in (setting.partition("=") for setting in settings):
        if key == "environment.train_split" and "train" in value.split(","):
            raise UsageError(
                f"{key}=train holds the validation tasks: leave it out, trials then learn from "
                f"{WITHOUT_VALIDATION}"
            )


def _check(sweep: Sweep, folder: Path) -> None:
    """Check every value before the first trial, and what a trial needs with the first values."""
    config = check_settings(sweep)
    environment = Opened(config)
    ensure_ready(config, folder / "trial", "sft", environment)
    validation_tasks(environment.benchmark, config.environment)


def _require_optuna() -> None:
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UsageError("rro sweep needs Optuna: pip install 'rro[sweep]'") from None


def _ended(journal: Journal) -> list[Trial]:
    names = Trial.__dataclass_fields__
    records = sorted(journal.records("trial"), key=lambda record: record["number"])
    return [Trial(**{name: record[name] for name in names}) for record in records]


def propose(report: Report, seed: int) -> dict[str, Any]:
    """The values of the next trial: where all can be tried, one that was not, in an order drawn
    from the seed; otherwise what a tree-structured Parzen estimator (TPE) makes of the trials."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kind = optuna.samplers.BruteForceSampler if report.space.size else optuna.samplers.TPESampler
    with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
        sampler = kind(seed=seed % 2**32)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    dimensions = {each.key: _distribution(each) for each in report.space.dimensions}
    for trial in report.trials:
        state = optuna.trial.TrialState.COMPLETE if trial.metric else optuna.trial.TrialState.FAIL
        value = trial.metric["mean"] if trial.metric else None
        study.add_trial(
            optuna.trial.create_trial(
                state=state, value=value, params=trial.values, distributions=dimensions
            )
        )
    values = study.ask(dimensions).params
    return {each.key: _rounded(each, values[each.key]) for each in report.space.dimensions}


def _rounded(dimension: Choice | Range, value: Any) -> Any:
    """A number that can be read and copied, within its range."""
    if not isinstance(value, float) or isinstance(dimension, Choice):
        return value
    return min(max(float(f"{value:.4g}"), dimension.low), dimension.high)


def _distribution(dimension: Choice | Range) -> Any:
    from optuna import distributions

    if isinstance(dimension, Choice):
        return distributions.CategoricalDistribution(dimension.values)
    if dimension.kind == "int":
        return distributions.IntDistribution(int(dimension.low), int(dimension.high))
    return distributions.FloatDistribution(
        dimension.low, dimension.high, log=dimension.kind == "log"
    )
