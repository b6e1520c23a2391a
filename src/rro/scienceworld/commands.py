"""ScienceWorld's command: `rro verify scienceworld`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from rro.errors import UsageError


def add_commands(groups: Mapping[str, Any]) -> None:
    """Add a parser to the group `verify` of the command line."""
    parser = groups["verify"].add_parser(
        "scienceworld",
        help="ScienceWorld",
        description="Play gold paths twice, in two engines, and compare every answer.",
        epilog="example: rro verify scienceworld --episodes 200",
    )
    parser.set_defaults(command=_verify)
    parser.add_argument("--episodes", type=int, default=200, help="default: 200")
    parser.add_argument("--split", default="train", help="default: train")
    parser.add_argument("--tasks", nargs="*", default=[], help="task types (default: all 30)")


def _verify(options: argparse.Namespace) -> int:
    from rro.scienceworld import ScienceWorldOptions
    from rro.scienceworld.verify import run_verify

    if options.episodes < 1:
        raise UsageError(f"--episodes must be at least 1, not {options.episodes}")
    chosen = ScienceWorldOptions(tasks=options.tasks)
    return 0 if run_verify(chosen, options.episodes, options.split) else 1
