"""The log of a run in its folder, which stays small however long the run is. Knows no stage."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path

from rro.errors import printable

# Bytes of a file, and how many older ones are kept.
_LONGEST, _OLDER = 5_000_000, 4


class _Lines(logging.Formatter):
    """A line with its time. It may quote what a policy or an environment said."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


@contextmanager
def logged(file: Path) -> Iterator[None]:
    """While this is open, rro's log lines also go into `file`. When it is full, it becomes
    `FILE.1`, and so on; the oldest is removed."""
    file.parent.mkdir(exist_ok=True)
    handler = RotatingFileHandler(file, maxBytes=_LONGEST, backupCount=_OLDER, encoding="utf-8")
    handler.setFormatter(_Lines("%(asctime)s %(levelname)s %(message)s"))
    # a full disk ends no run here, and fills no terminal
    handler.handleError = lambda record: None  # type: ignore[method-assign]
    logger = logging.getLogger("rro")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def rotate(file: Path) -> None:
    """The same for a file that another process appends to, before it starts."""
    if file.exists() and file.stat().st_size > _LONGEST:
        file.replace(file.with_name(f"{file.name}.1"))
