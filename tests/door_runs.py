"""Runs in which a tiny model learns the doors of `end_to_end/doors.py` within seconds."""

import copy

import doors

from rro.config import parse_config
from rro.plugins import ENVIRONMENTS
from rro.runs.folder import RunFolder

SIZES = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "layers": 2,
    "vocabulary": 300,
    "context": 128,
}


def door_run(folder, name, **sections):
    """The folder of a new run; `sections` are added to those here or replace them."""
    if "doors-here" not in ENVIRONMENTS.names():
        ENVIRONMENTS.register("doors-here", doors.open_doors)
    recipe = {
        "name": name,
        "threads": 1,
        "environment": {"name": "doors-here"},
        "model": {"tiny": SIZES},
        "policy": {"max_new_tokens": 8},
        "experts": {"episodes": 100, "noise": 0.5},
        "sft": {"epochs": 6, "learning_rate": 6e-3, "batch_size": 16},
        **sections,
    }
    return RunFolder.create(parse_config(copy.deepcopy(recipe), "test"), folder)
