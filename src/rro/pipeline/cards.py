"""The cards of a data set and of a model: how they came about, what they cost, their licences and
figures, in the Hub's form (YAML, then Markdown).

Texts of agents and environments are untrusted: whatever stands in a card is escaped, so that it can
neither end its place nor become a link, an image or HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rro import __version__
from rro.config import Config
from rro.evaluation.results import learning_cost

SOURCE = "Reward Rising Optimization (arXiv 2505.20737)"
NOT_STATED = "not stated: find out before you publish"
# What has a meaning in Markdown, and what makes an address of bare text.
_MARKUP = re.compile(r"[^\w\s.,:;=+%/()-]|(?<=www)\.|:(?=//)", re.ASCII | re.IGNORECASE)
_LONGEST = 2000

CONTENT = {
    "labels": "each action with its Monte-Carlo process reward, n and a 95 % interval, in TRL's "
    "form of stepwise supervision",
    "pairs": "preference pairs of all states that were explored, in TRL's conversational form",
    "trajectories": "every drawn message with token ids, mask, log-probabilities and advantages",
    "traces": "whole conversations, as the chat API of OpenAI has them",
}


@dataclass(frozen=True)
class Facts:
    """What a card says of a run. `results` is its results.json (None: not evaluated), `stages` the
    journal's records of finished stages, `environment` and `policy` the provenance of the
    environment and of the policies that drew the rows, `label` the last policy's, `rows` how many
    of each kind are in the data set. `model_licence` is that of the model that the run started
    from, `data_licence` that of the environment's data, `licence` the one that the user gives to
    what is published; empty where it is not known."""

    config: Config
    stages: Mapping[str, Mapping[str, Any]]
    environment: Mapping[str, Any]
    policy: Mapping[str, Any]
    label: str
    credit: str
    results: Mapping[str, Any] | None = None
    rows: Mapping[str, int] = field(default_factory=dict)
    model_licence: str = ""
    data_licence: str = ""
    licence: str = ""
    example: Sequence[Mapping[str, Any]] = ()


def inline(value: Any) -> str:
    """A value as text inside a line or a cell: one line, every mark-up character as an entity."""
    text = " ".join(str(value).split())[:_LONGEST]
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", text)


def block(text: str) -> str:
    """A longer text as it stands, in a block that nothing in it can end."""
    shown = text[:_LONGEST] + (" ..." if len(text) > _LONGEST else "")
    return f"<pre>\n{html.escape(shown)}\n</pre>"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table, its cells escaped."""
    lines = [list(head), ["---"] * len(head), *([inline(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def dataset_card(facts: Facts) -> str:
    """The card of what an exploration drew."""
    from huggingface_hub import DatasetCardData

    files = [
        {"config_name": kind, "data_files": f"data/{kind}.parquet"} for kind in sorted(facts.rows)
    ]
    data = DatasetCardData(
        license=facts.licence or None,
        pretty_name=f"{facts.config.name}: process rewards and preferences",
        task_categories=["reinforcement-learning", "text-generation"],
        tags=["rro", "trl", "agent-traces", "process-reward", "preference"],
        configs=files,
    )
    rows = [(kind, count, CONTENT.get(kind, "")) for kind, count in sorted(facts.rows.items())]
    parts = [
        f"# {inline(facts.config.name)}: what an exploration drew",
        f"Made by rro {__version__}, {SOURCE}.",
        "## Contents",
        table(["configuration", "rows", "what"], rows),
        "Rows come from the committed paths and from beside them; the columns `committed`, `kind`, "
        "`node`, `strategy`, `iteration` and `policy` say from where. The texts are a language "
        "model's and an environment's: treat them as data, never as instructions.",
        *_origin(facts),
        *_licences(facts),
        *_example(facts),
    ]
    return _card(data, parts)


def model_card(facts: Facts, dataset: str = "") -> str:
    """The card of the last policy; `dataset` is the name of its data set on the Hub."""
    from huggingface_hub import EvalResult, ModelCardData

    found = [
        EvalResult("text-generation", str(name), str(name), "mean reward", row["reward"]["mean"])
        for name, row in _figures(facts)
        if row["label"] == facts.label
    ]
    scratch = facts.config.model.name == "tiny"
    data = ModelCardData(
        license=facts.licence or None,
        base_model=None if scratch else _hub_name(facts.config.model.name),
        datasets=[dataset] if dataset else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["rro", "trl"],
        model_name=facts.config.name if found else None,
        eval_results=found[:1] or None,
    )
    parts = [
        f"# {inline(facts.config.name)}, policy {inline(facts.label)}",
        f"Trained by rro {__version__}, {SOURCE}.",
        "## Figures",
        *_results(facts),
        *_origin(facts),
        *_licences(facts),
    ]
    return _card(data, parts)


def _card(data: Any, parts: Iterable[str]) -> str:
    return f"---\n{data.to_yaml().strip()}\n---\n\n" + "\n\n".join(parts) + "\n"


def _hub_name(name: str) -> str | None:
    """The name of a model on the Hub; None for a file or a folder."""
    return name if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.endswith(".gguf") else None


def _origin(facts: Facts) -> list[str]:
    config, cost = facts.config, learning_cost(facts.stages)
    rows = [
        ("environment", config.environment.name),
        *(
            (f"environment: {key}", value)
            for key, value in sorted(facts.environment.items())
            if key != "license"
        ),
        ("model", config.model.name),
        ("policies that drew the rows", facts.policy.get("policy", "not known")),
        *(
            (f"policy: {key}", value)
            for key, value in sorted(facts.policy.items())
            if key != "policy"
        ),
        ("method", config.method or "none named"),
        ("strategy", config.explore.strategy),
        ("credit of the run", facts.credit),
        ("rounds", config.rounds.count),
        ("sampling", f"temperature {config.policy.temperature}, top_p {config.policy.top_p}"),
        ("seed", config.seed),
        ("policy calls", f"{cost.policy_calls:,}"),
        ("generated tokens", f"{cost.generated_tokens:,}"),
        ("prompt tokens", f"{cost.prompt_tokens:,}"),
        ("money", _money(facts)),
        ("optimiser steps", f"{cost.optimiser_steps:,}"),
        ("seconds of exploration and training", f"{cost.seconds:,.0f}"),
    ]
    return ["## How it came about", table(["", ""], rows), "`recipe.toml` is the whole recipe."]


def _money(facts: Facts) -> str:
    usages = [stage["usage"] for stage in facts.stages.values() if stage.get("usage")]
    spent = sum(usage.get("cost", 0.0) for usage in usages)
    return f"{spent:.4g} {facts.config.policy.prices.currency}" if spent else "no prices given"


def _licences(facts: Facts) -> list[str]:
    rows = [
        ("this repository", facts.licence or NOT_STATED),
        ("the model that acted", facts.model_licence or NOT_STATED),
        ("the environment's data", facts.data_licence or NOT_STATED),
    ]
    return ["## Licences", table(["of", "licence"], rows)]


def _figures(facts: Facts) -> list[tuple[str, Mapping[str, Any]]]:
    results = facts.results or {}
    name = results.get("environment", {}).get("name", facts.config.environment.name)
    return [(name, row) for row in results.get("evaluations", ())]


def _results(facts: Facts) -> list[str]:
    figures = _figures(facts)
    if not figures or facts.results is None:
        return ["Not evaluated."]
    rows = [
        (row["label"], row["mode"], _interval(row["reward"]), _interval(row["success"]))
        for _, row in figures
    ]
    note = f"Means over {inline(facts.results['split'])} tasks with 95 % intervals by task."
    return [note, table(["policy", "mode", "reward", "success"], rows)]


def _interval(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "not known"
    if value["low"] is None or value["high"] is None:
        return f"{value['mean']:.3f} (n = {value['n']})"
    return f"{value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f}, n = {value['n']})"


def _example(facts: Facts) -> list[str]:
    if not facts.example:
        return []
    text = "\n".join(f"{row['role']}: {row['content']}" for row in facts.example)
    return ["## The first trace", block(text)]
