"""Experiment trackers (TensorBoard, Weights & Biases, trackio), as `report_to` names them.

Training reports through Transformers' own callbacks, which are told here where to write;
exploration and evaluation through `tracking`. Nothing is sent or imported unless a recipe asks for
it. Knows nothing of what the numbers mean."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

from rro.errors import UsageError

PROJECT = (
    "rro"  # what W&B and trackio group runs by, unless their environment variables say otherwise
)

Metrics = Mapping[str, float]
Log = Callable[[Metrics, int], None]  # (figures by name, step)


def require(names: Sequence[str]) -> None:
    """Raises UsageError for a tracker that is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise UsageError(f"report_to names {name}, which is not installed: pip install {name}")


@contextmanager
def tracking(names: Sequence[str], folder: Path, run: str) -> Iterator[Log]:
    """Log figures as the run called `run` to each tracker; local files go below `folder`."""
    with ExitStack() as opened:
        logs = [opened.enter_context(_OPEN[name](folder, run)) for name in names]

        def log(metrics: Metrics, step: int) -> None:
            for one in logs:
                one(metrics, step)

        yield log


@contextmanager
def tracked_training(names: Sequence[str], folder: Path, run: str) -> Iterator[None]:
    """Have Transformers' callbacks write as `tracking` does. W&B's run is ended here: its callback
    leaves it open, and the next training would go on in it."""
    said = {
        "TENSORBOARD_LOGGING_DIR": str(_logs(folder, run)),
        "WANDB_DIR": str(folder),
        "WANDB_PROJECT": _project(),
    }
    before = {name: os.environ.get(name) for name in said}
    os.environ.update(
        {name: value for name, value in said.items() if names and before[name] is None}
    )
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
        if "wandb" in names and "wandb" in sys.modules:
            sys.modules["wandb"].finish()


@contextmanager
def _tensorboard(folder: Path, run: str) -> Iterator[Log]:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(_logs(folder, run)))

    def log(metrics: Metrics, step: int) -> None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)

    try:
        yield log
    finally:
        writer.close()


@contextmanager
def _wandb(folder: Path, run: str) -> Iterator[Log]:
    import wandb

    opened = wandb.init(project=_project(), name=run, dir=str(folder))
    try:
        yield lambda metrics, step: opened.log(dict(metrics), step=step)
    finally:
        opened.finish()


@contextmanager
def _trackio(folder: Path, run: str) -> Iterator[Log]:
    import trackio

    trackio.init(project=PROJECT, name=run, resume="allow")
    try:
        yield lambda metrics, step: trackio.log(dict(metrics), step=step)
    finally:
        trackio.finish()


_OPEN = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}


def _logs(folder: Path, run: str) -> Path:
    return folder / "tensorboard" / run


def _project() -> str:
    return os.environ.get("WANDB_PROJECT", PROJECT)
