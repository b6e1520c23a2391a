"""The whole path: experts -> SFT -> (explore -> optimise) x iterations -> evaluate. Each stage alone, or all in a row.

A stage that the journal calls done is not run again; a stage that was cut off continues from what it has journalled
(exploration, evaluation) or from its last checkpoint (training).
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rro import __version__
from rro.config import Config
from rro.envs.base import Benchmark
from rro.envs.registry import open_benchmark
from rro.episode import Limits
from rro.errors import RroError, UsageError
from rro.evaluate import difference_json, evaluate, summarise, to_json
from rro.experts import (
    Conversation,
    read_conversations,
    replayed_experts,
    scripted_experts,
    write_conversations,
)
from rro.explore import engine
from rro.explore.pairs import read_pairs, write_pairs
from rro.explore.sampler import Scope
from rro.explore.strategies import NEED_EXPERTS, make_strategy
from rro.explore.strategies.fixed_size import FixedSizeExploration
from rro.journal import Journal
from rro.policies.base import Policy
from rro.processes import rank, wait_for_all, world_size
from rro.progress import Progress
from rro.runfolder import RunFolder
from rro.stats import paired_difference
from rro.types import Message, SamplingParams, Source, Task, Trajectory, Usage

if TYPE_CHECKING:
    from rro.train.common import Hooks

log = logging.getLogger(__name__)


@dataclass
class Run:
    """An open run: its folder, the one writer of its journal, and the benchmark."""

    folder: RunFolder
    journal: Journal

    @property
    def config(self) -> Config:
        return self.folder.config

    @cached_property
    def benchmark(self) -> Benchmark:
        return open_benchmark(self.config.environment.name, self.config.environment.options)

    @property
    def limits(self) -> Limits:
        environment = self.config.environment
        steps = environment.max_steps or self.benchmark.max_steps
        return Limits(steps, environment.step_timeout, self.config.explore.retries)

    @property
    def params(self) -> SamplingParams:
        policy = self.config.policy
        return SamplingParams(policy.temperature, policy.top_p, policy.max_new_tokens)

    @cached_property
    def train_tasks(self) -> Sequence[Task]:
        return self.benchmark.tasks(self.config.environment.train_split)

    @cached_property
    def test_tasks(self) -> Sequence[Task]:
        return self.benchmark.tasks(self.config.environment.test_split)[: self.config.evaluate.tasks]

    @cached_property
    def scripted(self) -> list[Trajectory]:
        return scripted_experts(self.benchmark, self.train_tasks, self.config.experts, self.limits, self.config.seed)

    def demonstrations(self) -> list[Conversation]:
        """What SFT learns from."""
        file, count = self.config.experts.file, self.config.experts.episodes
        if file is not None:
            return [conversation for _, conversation in read_conversations(file)[:count]]
        if rank() == 0:
            write_conversations(self.scripted, self.folder.experts)
        return [episode.messages() for episode in self.scripted]

    def expert_episodes(self) -> dict[str, Trajectory]:
        """Expert episodes by task, for the strategies that walk along them."""
        file = self.config.experts.file
        if file is None:
            episodes = self.scripted
        else:
            rows = read_conversations(file)[: self.config.experts.episodes]
            episodes = replayed_experts(self.benchmark, self.train_tasks, rows, self.limits, self.config.seed)
        return {episode.task: episode for episode in episodes if episode.steps}


def open_run(folder: RunFolder) -> AbstractContextManager[Run]:
    """Open a run for work. Raises UsageError where another process works on it."""
    return _Opened(folder)


class _Opened(AbstractContextManager[Run]):
    def __init__(self, folder: RunFolder) -> None:
        if rank() == 0:
            self._journal = Journal(folder.journal)
        wait_for_all()
        if rank() > 0:
            self._journal = Journal(folder.journal, read_only=True)
        self._run = Run(folder, self._journal)

    def __enter__(self) -> Run:
        _quiet_libraries()
        if self._run.config.threads is not None:
            import torch

            torch.set_num_threads(self._run.config.threads)
        return self._run

    def __exit__(self, *_: object) -> None:
        self._journal.close()


def _quiet_libraries() -> None:
    """Our own progress bars say what is going on; those of the libraries below would tear them up."""
    import datasets
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()


def run_all(run: Run) -> dict[str, Any]:
    """Every stage in order; returns the results, which are also in results.json."""
    sft(run)
    for iteration in range(1, run.config.iterations + 1):
        explore(run, iteration)
        optimise(run, iteration)
    return evaluate_run(run)


def sft(run: Run) -> None:
    """Stage 1: fine-tune on expert trajectories, loss on the assistant's tokens alone -> pi_ref."""

    def work() -> dict[str, Any]:
        from rro.train.sft import train_sft

        conversations = run.demonstrations()
        start = _make_base(run, conversations)
        output = run.folder.checkpoint("sft")
        report = _trained(output) or train_sft(run.config, conversations, start, output, _hooks(run)).record()
        return {"conversations": len(conversations), "training": report}

    _stage(run, "sft", work)


def explore(run: Run, iteration: int) -> None:
    """Stage 2: grow every train task's tree with the current policy, and fold the trees into preference pairs."""

    def work() -> dict[str, Any]:
        _single_process("explore")
        tasks, strategy = _exploration(run)
        with closing(_Policies(run, iteration)) as policies:
            scope = _scope(run, policies.explorer, policies.pricer, iteration)
            with Progress(f"explore {iteration}", len(tasks), "tasks") as progress:
                scope = replace(scope, spent=progress.spend)
                asyncio.run(engine.explore(tasks, strategy, scope, run.config.explore.concurrency, progress))
        records = [run.journal.get("task", scope.key(task)) for task in tasks]
        done = [record for record in records if record is not None]
        if len(done) < len(tasks):
            log.warning("%d of %d tasks failed and are missing from the pairs", len(tasks) - len(done), len(tasks))
        write_pairs((row for record in done for row in record["pairs"]), run.folder.pairs(iteration))
        summary = engine.summarise(done)
        return {**asdict(summary), "failed_tasks": len(tasks) - len(done)}

    _stage(run, f"explore-{iteration}", work)


def optimise(run: Run, iteration: int) -> None:
    """Stage 3: DPO of the pairs against pi_ref, the SFT policy (RFT: fine-tuning on the policy's own successes)."""

    def work() -> dict[str, Any]:
        label = run.folder.trained(iteration)
        previous, output = _weights(run, iteration - 1), run.folder.checkpoint(label)
        if run.config.explore.strategy == "rft":
            from rro.train.sft import train_sft

            own = _own_successes(run, iteration)
            report = _trained(output) or train_sft(run.config, own, previous, output, _hooks(run)).record()
            return {"conversations": len(own), "training": report}
        from rro.train.dpo import train_dpo

        pairs = list(read_pairs(run.folder.pairs(iteration)))
        if not pairs:
            raise RroError(
                f"{run.folder.pairs(iteration)} is empty: no candidate was worse than a chosen one; explore more tasks, "
                "raise policy.temperature, or weaken the SFT policy"
            )
        reference = _weights(run, 0)
        report = _trained(output) or train_dpo(run.config, pairs, previous, reference, output, _hooks(run)).record()
        return {"pairs": len(pairs), "training": report}

    _stage(run, f"optimise-{iteration}", work)


def evaluate_run(run: Run, labels: Sequence[str] | None = None) -> dict[str, Any]:
    """Evaluate the SFT policy and the last one (or `labels`) on the test tasks; writes and returns the results."""
    labels = labels or [run.folder.trained(i) for i in sorted({0, _last_iteration(run)})]
    for label in labels:
        if ("stage", f"evaluate-{label}") in run.journal and _missing(run, label):
            _evaluate_policy(run, label)  # its time is not counted twice
        _stage(run, f"evaluate-{label}", lambda label=label: _evaluate_policy(run, label))  # type: ignore[misc]
    results = collect_results(run, labels)
    run.folder.write_results(results)
    return results


def collect_results(run: Run, labels: Sequence[str]) -> dict[str, Any]:
    """Everything that a script or a table wants to know of a run, from its journal."""
    config = run.config
    success, resamples = run.benchmark.success_reward, config.evaluate.bootstrap
    found = {
        (label, mode): summarise(
            run.journal, label, mode, len(run.test_tasks) * episodes, success, resamples, config.seed
        )
        for label in labels
        for mode, _, episodes in _modes(run)
    }
    differences = [
        {
            "mode": mode,
            "label": label,
            "against": labels[0],
            **difference_json(
                paired_difference(found[label, mode].rewards, found[labels[0], mode].rewards, resamples, config.seed)
            ),
        }
        for mode, _, _ in _modes(run)
        for label in labels[1:]
    ]
    return {
        "name": config.name,
        "seed": config.seed,
        "strategy": config.explore.strategy,
        "environment": {"name": config.environment.name, **run.benchmark.provenance()},
        "versions": _versions(),
        "stages": {record["key"]: _unkeyed(record) for record in run.journal.records("stage")},
        "evaluations": [to_json(evaluation) for evaluation in found.values()],
        "differences": differences,
    }


# -- below: what the stages share


def _stage(run: Run, name: str, work: Callable[[], dict[str, Any]]) -> None:
    if ("stage", name) in run.journal:
        log.info("%s: done before", name)
        return
    begun = time.perf_counter()
    record = work()
    if rank() == 0:
        run.journal.append("stage", name, {"seconds": time.perf_counter() - begun, **record})


def _exploration(run: Run) -> tuple[Sequence[Task], Any]:
    config = run.config.explore
    tasks, experts = run.train_tasks, dict[str, Trajectory]()
    if config.strategy in NEED_EXPERTS:
        experts = run.expert_episodes()
        tasks = [task for task in tasks if task.id in experts]
    if not tasks:
        raise UsageError("no task to explore: the expert file has no task of the train split (ids must be task ids)")
    return tasks[: config.tasks], make_strategy(config, experts, run.benchmark.success_reward)


def _scope(run: Run, explorer: Policy, pricer: Policy, iteration: int) -> Scope:
    temperature = run.config.explore.proposal_temperature
    if temperature is None and run.config.explore.strategy == "ipr":
        temperature = 0.0  # IPR section 4: explores greedily, rolls out at temperature 1
    proposals = run.params if temperature is None else replace(run.params, temperature=temperature)
    return Scope(
        run.benchmark, explorer, pricer, run.journal, run.params, proposals, run.limits, run.config.seed, iteration
    )


def _single_process(stage: str) -> None:
    if world_size() > 1:
        raise UsageError(f"{stage} runs in one process: use accelerate launch for rro sft and rro optimise alone")


def _last_iteration(run: Run) -> int:
    done = [i for i in range(1, run.config.iterations + 1) if ("stage", f"optimise-{i}") in run.journal]
    return max(done, default=0)


def _evaluate_policy(run: Run, label: str) -> dict[str, Any]:
    _single_process("evaluate")
    config, policy = run.config.evaluate, open_policy(run, label)
    with closing(_Closer(policy)):
        for mode, params, episodes in _modes(run):
            with Progress(f"evaluate {label} ({mode})", len(run.test_tasks) * episodes, "episodes") as progress:
                asyncio.run(
                    evaluate(
                        run.test_tasks, run.benchmark, policy, run.journal, label=label, mode=mode, episodes=episodes,
                        params=params, limits=run.limits, seed=run.config.seed, concurrency=config.concurrency,
                        progress=progress,
                    )
                )  # fmt: skip
        return _trend(run, label, policy) if config.trend_tasks else {}


def _modes(run: Run) -> list[tuple[str, SamplingParams, int]]:
    """How policies are measured: (mode, parameters, episodes per task)."""
    sampled = ("sampled", run.params, run.config.evaluate.episodes)
    greedy = ("greedy", replace(run.params, temperature=0.0), 1)
    return [sampled, greedy] if run.config.evaluate.greedy else [sampled]


def _missing(run: Run, label: str) -> bool:
    """Whether episodes of a finished evaluation failed."""
    return any(
        sum(1 for _ in run.journal.records("evaluation", f"{label}/{mode}/")) < len(run.test_tasks) * episodes
        for mode, _, episodes in _modes(run)
    )


def _trend(run: Run, label: str, policy: Policy) -> dict[str, Any]:
    """The share of rising steps by stage along the policy's own trajectories: one candidate a step, each priced."""
    config = run.config.evaluate
    tasks = run.test_tasks[: config.trend_tasks]
    scope = replace(_scope(run, policy, policy, 0), namespace=f"trend-{label}")
    strategy = FixedSizeExploration(rollouts=config.trend_rollouts, candidates=1, price_start=True, name="trend")
    with Progress(f"trend {label}", len(tasks), "tasks") as progress:
        scope = replace(scope, spent=progress.spend)
        asyncio.run(engine.explore(tasks, strategy, scope, config.concurrency, progress))
    records = [record for task in tasks if (record := run.journal.get("task", scope.key(task)))]
    return {"rising_share_by_stage": engine.rising_shares(records), "trend_tasks": len(records)}


class _Closer:
    """A policy's asynchronous close as a plain one."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def close(self) -> None:
        asyncio.run(self._policy.close())


class _Policies:
    """The policy that explores and the one that prices: the same, or the frozen SFT model (IPR)."""

    def __init__(self, run: Run, iteration: int) -> None:
        self.explorer = open_policy(run, run.folder.trained(iteration - 1))
        frozen = run.config.explore.pricing == "sft" and iteration > 1
        self.pricer = open_policy(run, "sft") if frozen else self.explorer
        self._opened = [self.explorer, self.pricer] if frozen else [self.explorer]

    def close(self) -> None:
        for policy in self._opened:
            _Closer(policy).close()


def open_policy(run: Run, label: str) -> Policy:
    """The policy that acts with the weights called `label`; its name in records is `run name/label`."""
    from rro.policies.models import load_model
    from rro.policies.transformers import TransformersPolicy

    config = run.config.policy
    weights = _weights(run, 0) if label == "sft" else run.folder.checkpoint(label)
    model, tokenizer = load_model(run.config.model, weights, train=False)
    return TransformersPolicy(
        model,
        tokenizer,
        f"{run.config.name}/{label}",
        max_batch=config.max_batch,
        prefix_cache_tokens=config.prefix_cache_tokens,
        max_context=config.max_context,
    )


def _weights(run: Run, iteration: int) -> Path | None:
    """The checkpoint after an iteration; None: the model as it comes, where SFT was not run."""
    label = run.folder.trained(iteration)
    stage = "sft" if iteration == 0 else f"optimise-{iteration}"
    if ("stage", stage) in run.journal:
        return run.folder.checkpoint(label)
    if iteration:
        raise UsageError(f"{run.folder.path}: iteration {iteration} is not optimised yet; run rro optimise first")
    if run.config.model.name == "tiny":
        raise UsageError(f"{run.folder.path}: a model from scratch knows nothing before SFT; run rro sft first")
    log.warning("no SFT in this run: the model acts as it comes")
    return None


def _make_base(run: Run, conversations: Sequence[Conversation]) -> Path | None:
    """A model from scratch is made once, its tokenizer trained on the experts' text; others are loaded by name."""
    if run.config.model.name != "tiny":
        return None
    folder = run.folder.checkpoint("base")
    if rank() == 0 and not folder.exists():
        from rro.policies.models import build_tiny

        texts = [message.content for turns in conversations for message in turns]
        partial = folder.with_name("base.partial")
        build_tiny(run.config.model.tiny, texts, run.config.seed, partial)
        partial.rename(folder)
    wait_for_all()
    return folder


def _own_successes(run: Run, iteration: int) -> list[Conversation]:
    found = []
    for record in run.journal.records("task", f"{iteration}/"):
        for turns in record["demonstrations"]:
            found.append(
                tuple(
                    Message(
                        turn["role"],
                        turn["content"],
                        Source(turn["source"]),
                        tuple(turn["token_ids"]) if turn["token_ids"] is not None else None,
                    )
                    for turn in turns
                )
            )
    if not found:
        raise RroError("the policy never succeeded, so RFT has nothing to learn from: explore more tasks or rollouts")
    return found


def _trained(output: Path) -> dict[str, Any] | None:
    """The report of a training that finished just before a crash kept its stage from being journalled."""
    from rro.train.workspace import REPORT

    report = output / REPORT
    return json.loads(report.read_text(encoding="utf-8")) if report.is_file() else None


def _hooks(run: Run) -> Hooks:
    from rro.train.common import Hooks

    return Hooks(observe=lambda metric: run.folder.write_metric(dict(metric)))


def _unkeyed(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in ("kind", "key")}


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"rro": __version__} | {name: version(name) for name in ("torch", "transformers", "trl")}


def total_usage(results: dict[str, Any]) -> Usage:
    """What exploration cost, over all iterations."""
    explored = [stage for name, stage in results["stages"].items() if name.startswith("explore-")]
    return sum((Usage(**stage["usage"]) for stage in explored), Usage())
