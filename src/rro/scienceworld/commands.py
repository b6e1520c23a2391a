"""ScienceWorld's command: `rro verify scienceworld`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from typing import Any

from rro.errors import RroError, UsageError


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
    parser.add_argument(
        "--timeout", type=float, default=60.0, help="seconds for each call (default: 60)"
    )
    parser.add_argument("--tasks", nargs="*", default=[], help="task types (default: all 30)")


def _verify(options: argparse.Namespace) -> int:
    from rro.scienceworld import ScienceWorldOptions
    from rro.scienceworld.engine import EngineFailed
    from rro.scienceworld.verify import run_verify

    if options.episodes < 1:
        raise UsageError(f"--episodes must be at least 1, not {options.episodes}")
    if not 0 < options.timeout < math.inf:
        raise UsageError(f"--timeout must be above 0, not {options.timeout}")
    chosen = ScienceWorldOptions(tasks=options.tasks, timeout=options.timeout)
    try:
        return 0 if run_verify(chosen, options.episodes, options.split) else 1
    except EngineFailed as error:
        raise RroError(f"{error}: on a busy machine, raise --timeout") from error
