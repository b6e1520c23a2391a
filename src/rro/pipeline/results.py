"""Everything that a script or a table wants to know of a run, gathered from its journal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rro import __version__
from rro.evaluation.evaluate import difference_json, summarise, to_json
from rro.evaluation.statistics import paired_difference
from rro.pipeline.run import Run


def collect_results(run: Run, labels: Sequence[str]) -> dict[str, Any]:
    """Everything that a script or a table wants to know of a run, from its journal."""
    config = run.config
    success, resamples = run.benchmark.success_reward, config.evaluate.bootstrap
    found = {
        (label, mode): summarise(
            run.journal,
            label,
            mode,
            len(run.test_tasks) * episodes,
            success,
            resamples,
            config.seed,
        )
        for label in labels
        for mode, _, episodes in run.modes()
    }
    differences = [
        {
            "mode": mode,
            "label": label,
            "against": labels[0],
            **difference_json(
                paired_difference(
                    found[label, mode].rewards,
                    found[labels[0], mode].rewards,
                    resamples,
                    config.seed,
                )
            ),
        }
        for mode, _, _ in run.modes()
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


def _unkeyed(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in ("kind", "key")}


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"rro": __version__} | {name: version(name) for name in ("torch", "transformers", "trl")}
