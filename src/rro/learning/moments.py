"""AdamW's moments, carried from one round's training to the next in a file beside the checkpoint.

Without them each round would begin with steps of full size in all directions. Knows no losses."""

from __future__ import annotations

import logging
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from transformers import TrainerCallback

from rro.errors import DataError

log = logging.getLogger(__name__)

FILE = "optimizer.pt"
"""Its name inside a checkpoint's folder."""


class CarriedMoments(TrainerCallback):  # type: ignore[misc]
    """Writes the optimiser's state to a folder when the training ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any
    ) -> None:
        if state.is_world_process_zero:
            torch.save(optimizer.state_dict()["state"], self.folder / FILE)


def moments_in(checkpoint: Path, optimizer: torch.optim.Optimizer) -> None:
    """Give an optimiser the moments beside a checkpoint; its settings stay. Does nothing where
    there are none, and only logs where they belong to other parameters. Raises DataError for a file
    that cannot be read."""
    file = checkpoint / FILE
    if not file.is_file():
        return
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{file} cannot be read; remove it to begin anew: {reason}") from None
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    shapes = {number: parameter.shape for number, parameter in enumerate(parameters)}
    if {number: moments["exp_avg"].shape for number, moments in state.items()} != shapes:
        log.warning("%s belongs to other parameters: the optimiser begins anew", file)
        return
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
