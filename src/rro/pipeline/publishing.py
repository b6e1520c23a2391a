"""A run as two repositories of the Hub, a data set and a model: written to a folder, and pushed
where the user says so and there is a network."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

from rro.errors import RroError, UsageError, describe
from rro.evaluation.results import load_results
from rro.files import write_file
from rro.models.gguf_header import is_gguf, read_header
from rro.pipeline.cards import Facts, dataset_card, model_card
from rro.pipeline.choices import Choices
from rro.pipeline.export import KINDS, export_as
from rro.pipeline.rounds import last_label
from rro.pipeline.run import Run
from rro.runs.folder import stage_records
from rro.runs.journal import without_envelope

log = logging.getLogger(__name__)

_NOT_WEIGHTS = ("optimizer*", "*.lock", "training.json", "README.md")


def export_hub(
    run: Run, iteration: int | None = None, folder: Path | None = None, licence: str = ""
) -> Path:
    """Write `dataset` and `model`, each as a repository of the Hub, into a folder (default:
    `RUN/exports/hub`) and return it. Nothing is sent. `model` has the card alone: `push` sends the
    weights from where they are. Raises UsageError where nothing is explored."""
    folder = folder or run.folder.path / "exports" / "hub"
    dataset, model = folder / "dataset", folder / "model"
    shutil.rmtree(dataset, ignore_errors=True)
    (dataset / "data").mkdir(parents=True)
    model.mkdir(exist_ok=True)
    rows = dict[str, int]()
    for kind in KINDS:
        lines = export_as(run, kind, iteration, dataset / "data" / f"{kind}.jsonl")
        with lines.open(encoding="utf-8") as file:
            rows[kind] = sum(1 for _ in file)
    example = _first_trace(dataset / "data" / "traces.jsonl")
    for lines in (dataset / "data").glob("*.jsonl"):
        # the Hub shows and loads the tables
        lines.unlink()
    (dataset / "data" / "sessions").rename(dataset / "sessions")
    written = {kind: count for kind, count in rows.items() if count}
    facts = _facts(run, iteration, written, licence, example)
    for place, card in ((dataset, dataset_card(facts)), (model, model_card(facts))):
        write_file(place / "README.md", card)
        shutil.copyfile(run.folder.path / "config.toml", place / "recipe.toml")
    return folder


def check_name(name: str) -> None:
    """Raises UsageError for a name of a repository that the Hub does not take."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UsageError(f"--push {name}: {error}") from error


def checked_licence(text: str) -> str:
    """A licence as the metadata of a card takes it, in small letters. Raises UsageError for what
    cannot be one of the Hub's identifiers; only the Hub has the list of them."""
    name = text.strip().lower()
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", name):
        raise UsageError(
            f"--license {text}: cards take the Hub's identifiers: write one, such as apache-2.0, "
            "mit, cc-by-4.0 or, for a licence that has none, other"
        )
    return name


def push(run: Run, folder: Path, name: str, *, public: bool = False) -> list[str]:
    """Send what `export_hub` wrote to the Hub as the data set and the model `name`
    (`OWNER/NAME`), with the last policy's weights; returns their addresses. Private unless
    `public`. Raises UsageError for a name that the Hub does not take, RroError where it cannot be
    reached or refuses."""
    from huggingface_hub import HfApi

    check_name(name)
    api = HfApi(library_name="rro")
    weights = run.folder.checkpoint(last_label(run))
    try:
        found = []
        for kind in ("dataset", "model"):
            address = api.create_repo(name, repo_type=kind, private=not public, exist_ok=True)
            if kind == "model" and weights.is_dir():
                api.upload_folder(
                    repo_id=name,
                    folder_path=weights,
                    ignore_patterns=list(_NOT_WEIGHTS),
                    commit_message="Weights",
                )
            api.upload_folder(
                repo_id=name, repo_type=kind, folder_path=folder / kind, commit_message="rro export"
            )
            found.append(str(address))
    except Exception as error:
        raise RroError(
            f"the Hub did not take {name} ({describe(error)}): log in (hf auth login), or look at "
            f"{folder}, which has all of it, and push it yourself"
        ) from error
    return found


def _facts(
    run: Run,
    iteration: int | None,
    rows: dict[str, int],
    licence: str,
    example: list[dict[str, Any]],
) -> Facts:
    config, provenance = run.config, dict(run.benchmark.provenance())
    try:
        results = load_results(run.folder.path)
    except UsageError:
        results = None
    return Facts(
        config=config,
        stages=stage_records(run.journal),
        environment=provenance,
        policy=_explorers(run, iteration),
        label=last_label(run),
        credit=Choices(run).credit_name,
        results=results,
        rows=rows,
        model_licence=_model_licence(config.model.name),
        data_licence=str(provenance.get("license", "")),
        licence=licence,
        example=example,
    )


def _explorers(run: Run, iteration: int | None) -> dict[str, str]:
    """What the journal says of the policies that drew the rows of a round, or of all rounds: every
    value once, and no policy that was only evaluated."""
    stages = "explore-" if iteration is None else f"explore-{iteration}/"
    values = defaultdict[str, dict[str, None]](dict)
    for record in run.journal.records("policy", stages):
        for name, value in without_envelope(record).items():
            if value:
                values[name][str(value)] = None
    return {name: ", ".join(distinct) for name, distinct in values.items()}


def _model_licence(name: str) -> str:
    """What the model itself says: its card, its GGUF file, or its package; empty: nothing."""
    from huggingface_hub import ModelCard

    if name == "tiny":
        return "none: made from scratch"
    if is_gguf(name):
        return str(read_header(Path(name)).metadata.get("general.license", ""))
    if (card := Path(name) / "README.md").is_file():
        return str(ModelCard.load(card, ignore_metadata_errors=True).data.get("license") or "")
    try:
        package = metadata(name).json
    except PackageNotFoundError:
        return f"see the card of {name} on the Hub" if name.count("/") == 1 else ""
    return str(package.get("license_expression") or package.get("license") or "")


def _first_trace(file: Path) -> list[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        first = next(lines, None)
    return json.loads(first)["messages"] if first else []
