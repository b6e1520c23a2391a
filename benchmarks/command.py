"""What benchmarks with a command line of their own share: how they log and how they end."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import NoReturn

from rro.errors import RroError


def exit_code(name: str, work: Callable[[], None]) -> int:
    """Do the work of the benchmark `name`. Returns 0; or, after printing the sentence of an
    RroError, that error's exit code."""
    try:
        work()
    except RroError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def log_progress() -> None:
    """What rro says of its progress is printed."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("rro").setLevel(logging.INFO)


def start(main: Callable[[], int]) -> NoReturn:
    """Run `main` as a program that logs its progress, and exit with its code."""
    log_progress()
    sys.exit(main())
