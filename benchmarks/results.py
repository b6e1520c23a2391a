"""Methods x seeds x environments from one file: a table, curves and JSON, with intervals over seeds
and tasks.

    python -m benchmarks.results benchmarks/long-shop.toml --out FOLDER

The file says which settings all trials have, which each environment and each method adds, and for
each method what is swept on the validation tasks first, all by the same number of trials. A trial
starts from the SFT policy of its environment and seed, and its policies are measured on the test
tasks. Every trial is a run folder; what was killed goes on with the same command. `results.md`,
`results.json` and, with matplotlib, pictures are written at the end, and by `--table` of what is
there."""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

from pydantic import Field, ValidationError

from benchmarks.command import exit_code, log_progress, start
from rro.codec import first_problem
from rro.config import Config, Section, dump_toml, load_config
from rro.config.names import FolderName
from rro.config.packaged import find_recipe
from rro.errors import RroError, UsageError, counted
from rro.pipeline.sweep import Sweep, check_settings, finished_sweep, run_sweep, trial_config
from rro.pipeline.sweep_space import as_text, parse_space
from rro.pipeline.trial import run_trial, shared_start, start_folder

# Stages that tune a method; their trials have no settings that were chosen yet.
_TUNING = ("tuning-start", "sweep")
# Trials are forked from a process that has imported what all of them need, which takes seconds.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    [
        "rro.pipeline.sweep",
        "rro.learning.sft_trainer",
        "rro.learning.dpo_trainer",
        "rro.learning.policy_gradient_trainer",
        "rro.policies.local.policy",
    ]
)


class Environment(Section):
    """Where methods are compared."""

    recipe: str
    """A recipe's name, or its file, seen from the file that names it."""
    settings: list[str] = Field(default_factory=list)
    """Settings of all its trials."""


class Method(Section):
    """What is compared."""

    settings: list[str] = Field(default_factory=list)
    """Settings of all its trials; they stand above those of the environment."""
    sweep: list[str] = Field(default_factory=list)
    """What is chosen on the validation tasks, as `rro sweep` takes it."""


class Tuning(Section):
    """How settings are chosen, the same for every method with a sweep."""

    trials: int = Field(6, ge=1)
    """Trials of each method in each environment."""
    metric: str = "validation.reward"
    """What decides."""
    seed: int = 0
    """Seed of the trials; none of those that are compared."""


class Plan(Section):
    """A file of results."""

    seeds: list[int] = Field(min_length=1)
    """Training seeds; the intervals want at least 5."""
    sft_seed: int | None = None
    """The seed of the SFT policy, if it is the same for all training seeds."""
    first: str | None = None
    """The method that the others are compared with. Default: the first one."""
    settings: list[str] = Field(default_factory=list)
    """Settings of all trials."""
    environments: dict[FolderName, Environment] = Field(min_length=1)
    methods: dict[FolderName, Method] = Field(min_length=1)
    tuning: Tuning = Tuning()


def read_plan(file: Path) -> Plan:
    """Read a file of results. Raises UsageError that names what is wrong in it."""
    try:
        plan = Plan.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file}: not a text in UTF-8: save it as one") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file}: not TOML: {error}") from None
    except ValidationError as error:
        raise UsageError(f"{file}: {first_problem(error)}") from None
    if len(set(plan.seeds)) < len(plan.seeds):
        raise UsageError(f"{file}: seeds: each seed once")
    if plan.first is not None and plan.first not in plan.methods:
        raise UsageError(f"{file}: first: there is no method {plan.first!r}")
    if any(method.sweep for method in plan.methods.values()) and plan.tuning.seed in plan.seeds:
        raise UsageError(f"{file}: tuning.seed: {plan.tuning.seed} is one of seeds")
    return plan


@dataclass(frozen=True)
class Trial:
    """A run of a method in an environment from one seed. `chosen`: what its sweep found."""

    environment: str
    method: str
    seed: int
    chosen: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A plan, its file and the folder of its trials."""

    plan: Plan
    file: Path
    out: Path

    @property
    def first(self) -> str:
        """The method that the others are compared with."""
        return self.plan.first or next(iter(self.plan.methods))

    def recipe(self, environment: str) -> Path:
        """The recipe's file."""
        name = self.plan.environments[environment].recipe
        beside = self.file.parent / name
        return beside if beside.is_file() else find_recipe(name)

    def settings(self, trial: Trial) -> list[str]:
        """The settings of a trial, each key once; later ones win."""
        environment = self.plan.environments[trial.environment]
        words = [*self.plan.settings, *environment.settings]
        words += [*self.plan.methods[trial.method].settings, *trial.chosen, f"seed={trial.seed}"]
        return list({word.partition("=")[0]: word for word in words}.values())

    def config(self, trial: Trial) -> Config:
        """The configuration of a trial. Raises UsageError where a setting does not fit."""
        return load_config(self.recipe(trial.environment), self.settings(trial))

    def folder(self, trial: Trial) -> Path:
        """Its run folder: other settings have another one."""
        text = f"{dump_toml(self.config(replace(trial, seed=0)))} sft {self.plan.sft_seed}"
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return self.out / trial.environment / f"{trial.method}-{digest}" / f"seed-{trial.seed}"

    def starts(self, trial: Trial) -> Path:
        """The folder of its environment's SFT policies."""
        return self.out / trial.environment / "sft"

    def trials(self) -> Iterator[Trial]:
        """Every trial, seed by seed. Raises RroError where a sweep is missing."""
        chosen = {
            (environment, name): self._chosen(environment, name)
            for environment in self.plan.environments
            for name in self.plan.methods
        }
        for seed in self.plan.seeds:
            for (environment, name), settings in chosen.items():
                yield Trial(environment, name, seed, settings)

    def sweeps(self) -> Iterator[Trial]:
        """The sweep of each method in each environment, as a trial with what is swept."""
        for environment in self.plan.environments:
            for name, method in self.plan.methods.items():
                if method.sweep:
                    yield Trial(environment, name, self.plan.tuning.seed, tuple(method.sweep))

    def sweep(self, trial: Trial) -> Sweep:
        """What one of `sweeps` is."""
        words = tuple(self.settings(trial))
        return Sweep(self.recipe(trial.environment), words, self.plan.tuning.metric)

    def sweep_folder(self, trial: Trial) -> Path:
        """Its folder."""
        return self.folder(replace(trial, chosen=())).parent / "sweep"

    def tuning_start(self, trial: Trial) -> Config:
        """The configuration whose SFT policy a sweep's trials start from."""
        return trial_config(self.recipe(trial.environment), self._first(trial))

    def _first(self, trial: Trial) -> list[str]:
        return parse_space(self.settings(trial)).corners()[0]

    def _chosen(self, environment: str, name: str) -> tuple[str, ...]:
        """What a method's sweep found best in an environment."""
        swept = tuple(self.plan.methods[name].sweep)
        if not swept:
            return ()
        trial = Trial(environment, name, self.plan.tuning.seed, swept)
        folder = self.sweep_folder(trial)
        best = finished_sweep(self.sweep(trial), folder, self.plan.tuning.trials).best
        if best is None:
            raise RroError(f"{folder}: every trial of the sweep failed")
        return tuple(f"{key}={as_text(value)}" for key, value in best.values.items())


def run_one(comparison: Comparison, trial: Trial, stage: str) -> None:
    """Make the SFT policy of a trial ("start") or of a sweep ("tuning-start"), or run it ("trial",
    "sweep")."""
    starts, seed = comparison.starts(trial), comparison.plan.sft_seed
    if stage == "tuning-start":
        shared_start(comparison.tuning_start(trial), starts)
    elif stage == "sweep":
        trials = comparison.plan.tuning.trials
        run_sweep(comparison.sweep(trial), comparison.sweep_folder(trial), trials, starts)
    elif stage == "start":
        shared_start(comparison.config(trial), starts, seed)
    else:
        folder = comparison.folder(trial)
        run_trial(comparison.config(trial), folder, starts, "test", start_seed=seed)


def run_all(comparison: Comparison, workers: int) -> list[Trial]:
    """Run the sweeps, then all trials that have no results yet, in processes of their own with a
    thread each; returns all trials."""
    os.environ["OMP_NUM_THREADS"] = "1"
    swept = [each for each in comparison.sweeps() if not _swept(comparison, each)]
    first = {
        start_folder(comparison.tuning_start(each), comparison.starts(each)): each for each in swept
    }
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda each: _start(comparison, each, "tuning-start"), first.values()))
        list(pool.map(lambda each: _start(comparison, each, "sweep"), swept))
    trials = list(comparison.trials())
    left = [trial for trial in trials if not (comparison.folder(trial) / "results.json").exists()]
    print(f"{counted(len(trials), 'trials')}, {len(left)} of them to run", flush=True)
    starts = {}
    for trial in left:
        config, seed = comparison.config(trial), comparison.plan.sft_seed
        starts[start_folder(config, comparison.starts(trial), seed)] = trial
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda trial: _start(comparison, trial, "start"), starts.values()))
        list(pool.map(lambda trial: _start(comparison, trial, "trial"), left))
    return trials


def _swept(comparison: Comparison, trial: Trial) -> bool:
    """Whether a sweep has all its trials. Raises UsageError where its folder holds another."""
    folder, trials = comparison.sweep_folder(trial), comparison.plan.tuning.trials
    try:
        finished_sweep(comparison.sweep(trial), folder, trials)
    except UsageError:
        raise
    except RroError:
        return False
    return True


def _start(comparison: Comparison, trial: Trial, stage: str) -> None:
    """One stage of a trial in a process of its own."""
    begun = time.monotonic()
    folder = comparison.folder(replace(trial, chosen=()) if stage in _TUNING else trial)
    log = folder.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    theirs, ours = _PROCESSES.Pipe(duplex=False)
    words = (comparison, trial, stage, log, theirs)
    process = _PROCESSES.Process(target=_work_alone, args=words)
    process.start()
    theirs.close()
    process.join()
    ours.close()
    said = f"{time.monotonic() - begun:.0f} s" if process.exitcode == 0 else f"failed, see {log}"
    print(f"{trial.environment} {trial.method} seed {trial.seed}: {stage}: {said}", flush=True)


def _work_alone(
    comparison: Comparison, trial: Trial, stage: str, log: Path, parent: Connection
) -> None:
    """The stage of a trial, in its process."""
    with log.open("a", encoding="utf-8") as lines:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(lines.fileno(), stream.fileno())
    log_progress()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    sys.exit(exit_code("benchmarks.results", lambda: run_one(comparison, trial, stage)))


def _end_with(parent: Connection) -> None:
    """Where what began this process was killed, nobody waits for the trial, and the same command is
    to find it free."""
    try:
        parent.recv()
    except EOFError:
        os.kill(os.getpid(), signal.SIGKILL)


def main(words: Sequence[str] | None = None) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="benchmarks.results", description=__doc__)
    parser.add_argument("file", type=Path, help="a file of results (TOML)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the trials")
    parser.add_argument("--workers", type=int, default=2, help="trials at a time")
    parser.add_argument(
        "--table", action="store_true", help="run nothing: the table of what is there"
    )
    options = parser.parse_args(words)
    return exit_code("benchmarks.results", lambda: _work(options))


def _work(options: argparse.Namespace) -> None:
    from benchmarks.results_table import write

    if options.workers < 1:
        raise UsageError(f"--workers {options.workers}: at least 1")
    if options.out.exists() and not options.out.is_dir():
        raise UsageError(f"--out {options.out}: a file: name a folder")
    comparison = Comparison(read_plan(options.file), options.file, options.out)
    for environment in comparison.plan.environments:
        for method in comparison.plan.methods:
            comparison.config(Trial(environment, method, 0))
    for swept in comparison.sweeps():
        check_settings(comparison.sweep(swept))
    trials = list(comparison.trials()) if options.table else run_all(comparison, options.workers)
    print(write(comparison, trials))


if __name__ == "__main__":
    start(main)
