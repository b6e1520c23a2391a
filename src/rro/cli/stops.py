"""Commands that a scheduler can stop, and that say how to go on."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rro import stopping
from rro.cli.commands import time_limit
from rro.errors import as_interrupt


def add_stop(command: argparse.ArgumentParser) -> None:
    """Let a command take the time after which it stops."""
    command.add_argument(
        "--stop-after",
        type=time_limit,
        metavar="SECONDS",
        help="stop at a clean point then, with exit code 75; so does SIGTERM at any time",
    )


def stoppable(
    command: Callable[[argparse.Namespace], None],
) -> Callable[[argparse.Namespace], None]:
    """A command that a scheduler can stop, from its first moment to its last."""

    def stopped(options: argparse.Namespace) -> None:
        with stopping.listening(options.stop_after):
            try:
                with as_interrupt():
                    command(options)
            except KeyboardInterrupt:
                if stopping.requested():
                    raise stopping.Stopped("stopped as asked; no stage was under way") from None
                raise

    return stopped


@contextmanager
def resumable(command: str) -> Iterator[None]:
    """Lets Ctrl-C, and the stop that a scheduler asks for, say that `command` goes on."""
    what = f"what was finished is kept. To go on: {command}"
    try:
        yield
    except (KeyboardInterrupt, stopping.Stopped) as error:
        if stopping.requested():
            raise stopping.Stopped(f"stopped as asked; {what}") from None
        raise KeyboardInterrupt(what) from error
