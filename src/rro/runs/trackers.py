"""Experiment trackers (TensorBoard, Weights & Biases, trackio), as `report_to` names them.

Training reports through Transformers' own callbacks, which `tracked_training` tells where to
write; exploration and evaluation report through `tracking`. Nothing is sent or imported unless a
recipe asks for it. Does not know what the figures mean."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from rro.concurrency import contained
from rro.errors import UsageError, describe

PROJECT = "rro"
"""What W&B and trackio group runs by; $WANDB_PROJECT overrides it for W&B."""

logger = logging.getLogger(__name__)

Figures = Mapping[str, float]
Log = Callable[[Figures, int], None]
"""Takes figures by name, and the step they belong to."""


def require(names: Sequence[str]) -> None:
    """Raises UsageError for a tracker that is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise UsageError(f"report_to names {name}, which is not installed: pip install {name}")


@contextmanager
def tracking(names: Sequence[str], folder: Path, run: str) -> Iterator[Log]:
    """Log figures to each tracker, in a run called `run`; local files go into `folder`. One that
    fails is logged and left out from then on: it costs no figure of the run's own."""
    trackers = dict[str, tuple[ExitStack, Log]]()

    def call(name: str, work: Callable[[], None]) -> None:
        try:
            with contained():
                work()
        except Exception as error:
            trackers.pop(name, None)
            message = "%s failed and gets no more figures of %s: %s"
            logger.warning(message, name, run, describe(error))

    def enter(name: str) -> None:
        stack = ExitStack()
        trackers[name] = stack, stack.enter_context(_OPEN[name](folder, run))

    def log(figures: Figures, step: int) -> None:
        for name, (_, tracker_log) in list(trackers.items()):
            call(name, partial(tracker_log, figures, step))

    for name in names:
        call(name, partial(enter, name))
    try:
        yield log
    finally:
        for name, (stack, _) in list(trackers.items()):
            call(name, stack.close)


@contextmanager
def tracked_training(names: Sequence[str], folder: Path, run: str) -> Iterator[None]:
    """Have Transformers' callbacks write where `tracking` does; the user's own environment
    variables take precedence.

    Ends W&B's run: its callback leaves it open, and the next training would continue it."""
    settings = {
        "TENSORBOARD_LOGGING_DIR": str(_tensorboard_folder(folder, run)),
        "WANDB_DIR": str(folder),
        "WANDB_PROJECT": PROJECT,
    }
    added = [name for name in settings if names and name not in os.environ]
    os.environ.update({name: settings[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
        if "wandb" in names and "wandb" in sys.modules:
            sys.modules["wandb"].finish()


@contextmanager
def _tensorboard(folder: Path, run: str) -> Iterator[Log]:
    from torch.utils.tensorboard import SummaryWriter

    def log(figures: Figures, step: int) -> None:
        for name, value in figures.items():
            writer.add_scalar(name, value, step)

    with SummaryWriter(str(_tensorboard_folder(folder, run))) as writer:
        yield log


@contextmanager
def _wandb(folder: Path, run: str) -> Iterator[Log]:
    import wandb

    project = os.environ.get("WANDB_PROJECT", PROJECT)
    with wandb.init(project=project, name=run, dir=str(folder)) as opened:
        yield lambda figures, step: opened.log(dict(figures), step=step)


@contextmanager
def _trackio(folder: Path, run: str) -> Iterator[Log]:
    import trackio

    trackio.init(project=PROJECT, name=run, resume="allow")
    try:
        yield lambda figures, step: trackio.log(dict(figures), step=step)
    finally:
        trackio.finish()


_OPEN = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}


def _tensorboard_folder(folder: Path, run: str) -> Path:
    return folder / "tensorboard" / run
