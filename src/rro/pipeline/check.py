"""What can be known of a run before its folder is made: `rro check`, and every command that starts
a run.

Each check answers with a phrase, or with the sentence of what is wrong and how to fix it. Nothing
is written."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rro import plugins
from rro.concurrency import contained
from rro.config import Config, ModelConfig, parse_options
from rro.environments.base import Benchmark
from rro.environments.registry import open_environment
from rro.environments.splits import ensure_untested, tasks_of, validation_tasks
from rro.episodes.experts import check_tools, read_conversations
from rro.errors import RroError, UsageError, counted, describe, place_of
from rro.learning.credit.choosing import credit_of
from rro.models.finding import find_model, is_at_hand
from rro.models.sizes import model_size
from rro.pipeline.choices import Chosen
from rro.pipeline.memory import described, disk
from rro.pipeline.weights import UNTRAINED
from rro.runs.folder import RunFolder, ensure_free
from rro.runs.trackers import require
from rro.types import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Check:
    """The outcome of one check: `problem` is None where all is well, `detail` then says what was
    found."""

    name: str
    detail: str = ""
    problem: str | None = None


def check_run(
    config: Config,
    folder: Path,
    *,
    stage: str = "run",
    thorough: bool = True,
    environment: Opened | None = None,
) -> Iterator[Check]:
    """Check the environment, experts, model, backend, process rewards, learner, trackers, disk and
    the run folder, one by one. `stage` is what the run begins with; "run": all of them, in order.

    Without `thorough`, servers and other interpreters are not asked. The benchmark is opened in
    `environment`, if it is given."""
    environment = environment or Opened(config)
    checks: dict[str, Callable[[], str]] = {
        "environment": environment.tasks,
        "experts": environment.experts,
        "model": lambda: _model(config, stage),
        "policy": lambda: _backend(config, thorough),
        "process rewards": lambda: _pricing(config),
        "learner": lambda: _learning(config, environment.benchmark),
        "trackers": lambda: _trackers(config),
        "disk": lambda: _disk(config, folder),
        "run folder": lambda: _free(folder),
    }
    imitates = stage == "sft" or (stage == "run" and config.sft is not None)
    if not imitates and not Chosen(config).needs_experts:
        del checks["experts"]
    while checks:
        name = next(iter(checks))
        check = checks.pop(name)
        try:
            with contained():
                detail = check()
        except RroError as error:
            yield Check(name, problem=str(error))
        except Exception as error:  # of an environment or another part of the user's own
            log.debug("%s", name, exc_info=True)
            problem = f"{name}: {describe(error)}{place_of(error)}"
            yield Check(name, problem=problem)
        else:
            yield Check(name, detail)
            continue
        if name == "environment":  # what needs one cannot be checked
            for other in ("experts", "learner"):
                checks.pop(other, None)


def new_run(config: Config, folder: Path, stage: str = "run") -> tuple[RunFolder, Benchmark]:
    """Check a run quickly, then make its folder; returns it and the benchmark that the checks
    opened. Raises UsageError that tells everything that is wrong; then nothing was written."""
    environment = Opened(config)
    ensure_ready(config, folder, stage, environment)
    return RunFolder.create(config, folder), environment.benchmark


def ensure_ready(config: Config, folder: Path, stage: str, environment: Opened) -> None:
    """Check a run quickly. Raises UsageError that tells everything that is wrong."""
    checks = check_run(config, folder, stage=stage, thorough=False, environment=environment)
    problems = list(dict.fromkeys(check.problem for check in checks if check.problem))
    if len(problems) > 1:
        raise UsageError(
            "\n  ".join([f"{len(problems)} things keep the run from starting:", *problems])
        )
    if problems:
        raise UsageError(problems[0])


class Opened:
    """The environment, opened once for the checks that need it."""

    def __init__(self, config: Config) -> None:
        self._config = config

    @cached_property
    def benchmark(self) -> Benchmark:
        return open_environment(self._config.environment)

    def tasks(self) -> str:
        section, counts, benchmark = self._config.environment, [], self.benchmark
        low, high = benchmark.reward_range
        if benchmark.max_steps < 1 or not low < high:
            raise UsageError(
                f"{section.name}: max_steps must be at least 1 and reward_range rise, not "
                f"{benchmark.max_steps} and {benchmark.reward_range}"
            )
        for name, split in (
            ("train_split", section.train_split),
            ("test_split", section.test_split),
        ):
            found = len(_sound(tasks_of(benchmark, split), f"{section.name}, split {split!r}"))
            if not found:
                raise UsageError(
                    f"environment.{name}: the split {split!r} of {section.name} has no tasks"
                )
            counts.append(f"{counted(found, 'tasks')} in {split}")
        ensure_untested(benchmark, section)
        if self._config.evaluate.validation:
            found = len(validation_tasks(benchmark, section))
            counts.append(f"{counted(found, 'tasks')} in {section.validation_split}")
        return f"{section.name}, {' and '.join(counts)}"

    def experts(self) -> str:
        file = self._config.experts.file
        rows = read_conversations(file) if file is not None else []
        benchmark = self.benchmark
        train = tasks_of(benchmark, self._config.environment.train_split)
        if file is None:
            benchmark.expert(train[0], self._config.experts.noise, 0)
            return f"the scripted expert of {benchmark.name}"
        check_tools(file, rows, benchmark, train[0])
        if Chosen(self._config).needs_experts and not {task.id for task in train} & {
            row[0] for row in rows
        }:
            raise UsageError(
                f"{file}: no row's id is a task of the train split, which strategy or credit needs"
            )
        return f"{counted(len(rows), 'episodes')} in {file}"


def _sound(tasks: Sequence[Task], where: str) -> Sequence[Task]:
    """Tasks whose ids can name records. Raises UsageError for others."""
    known = set[str]()
    for number, task in enumerate(tasks, 1):
        key = getattr(task, "id", None)
        if not isinstance(key, str) or not key:
            raise UsageError(f"{where}: item {number} is no Task with a text as its id")
        if key in known:
            raise UsageError(f"{where}: two tasks have the id {key!r}")
        known.add(key)
    return tasks


def _learning(config: Config, benchmark: Benchmark) -> str:
    """Strategy, credit and learner, made as the run will make them, without expert episodes."""
    chosen = Chosen(config)
    strategy = chosen.made_strategy(benchmark, {})
    credit_of(strategy, section=config.credit)
    return f"{chosen.made_learner(strategy).name} of {chosen.credit.name}"


def _pricing(config: Config) -> str:
    Chosen(config).check_pricing()
    section = config.explore
    if section.pricing not in ("prm", "mixed") or section.reward_model is None:
        return f"estimated by rollouts ({section.pricing})"
    from rro.models.process_rewards import read_scale

    read_scale(section.reward_model)
    return f"estimated by {section.reward_model} ({section.pricing})"


def _backend(config: Config, thorough: bool) -> str:
    plugin = plugins.POLICIES.find(config.policy.backend)
    options = parse_options(config.policy, plugin, "policy")
    asked = plugin.ask(options) if thorough else ""
    return f"{plugin.name}{asked and ': '}{asked}"


def _trackers(config: Config) -> str:
    require(config.report_to)
    return ", ".join(config.report_to) or "none"


def _disk(config: Config, folder: Path) -> str:
    size = model_size(config.model)
    place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if size is None:
        return f"{described(free)} free"
    needed = disk(config, size)
    if needed > free and size.counted:
        raise UsageError(
            f"{place}: {described(free)} free, but the checkpoints of this run take about "
            f"{described(needed)}: make room, or choose another --out"
        )
    by_name = "" if size.counted else ", by the size in the model's name"
    return f"{described(free)} free, about {described(needed)} needed{by_name}"


def _model(config: Config, stage: str) -> str:
    if stage == "optimise":
        raise UsageError("a new run has nothing to learn from: give rro optimise a run folder")
    if config.sft is None and stage == "sft":
        raise UsageError('the recipe says sft = "none": leave that out for a run with SFT')
    if config.sft is None and stage == "run" and config.model.name == "tiny":
        raise UsageError(
            'sft = "none" starts from a model that exists, but model.name = "tiny" makes one from '
            'scratch: name another model, or leave out sft = "none"'
        )
    weights = plugins.POLICIES.find(config.policy.backend).needs("weights")
    if stage not in ("run", "sft") and config.model.name == "tiny" and weights:
        raise UsageError(UNTRAINED)
    found = find_model(config.model)
    if config.model.device not in ("auto", "cpu") and (weights or stage in ("run", "sft")):
        from rro.models.loading import resolve_device

        resolve_device(config.model.device)
    if weights or stage in ("run", "sft"):
        _chat_template(config.model)
    return found if config.sft is not None else f"{found}, without SFT (called base)"


def _chat_template(model: ModelConfig) -> None:
    """Raises UsageError where what the recipe says of the chat template does not suit it. Loading a
    tokenizer takes seconds, so only for recipes that say something."""
    said = (model.chat_template, model.chat_template_kwargs, model.thoughts != "auto")
    if any(said) and is_at_hand(model):
        from rro.models.chat import ChatFormat
        from rro.models.loading import load_tokenizer

        ChatFormat(load_tokenizer(model, None))


def _free(folder: Path) -> str:
    ensure_free(folder)
    return f"{folder} is free"
