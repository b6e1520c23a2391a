"""Ends other processes when standard input closes: a command that it runs, with every process of
its group, or some by id.

Whoever holds the other end may be killed at any moment: then the kernel closes the pipe, and
nothing is left behind. Standard library alone, run by path: python leash.py run COMMAND..., or
python leash.py hold PID..., which lets go at the first byte that it reads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

GRACE = 10.0  # seconds between asking and killing


def hold(pids: list[int]) -> int:
    """Wait for the end of the input, then end the processes."""
    if not os.read(0, 1):
        _end(pids, os.kill)
    return 0


def run(command: list[str]) -> int:
    """Returns the command's exit code."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_end_with_input, args=(child.pid,), daemon=True).start()
    code = child.wait()
    _end([child.pid], os.killpg)  # its own children, where it died without them
    return code


def _end_with_input(group: int) -> None:
    while os.read(0, 1):
        pass
    _end([group], os.killpg)
    os._exit(1)


def _end(ids: list[int], send: Callable[[int, int], None]) -> None:
    """SIGTERM to each, and SIGKILL to what is left after a while. `send` is os.kill or
    os.killpg."""
    deadline = time.monotonic() + GRACE
    number: int = signal.SIGTERM
    while ids:
        ids = [one for one in ids if _reached(one, number, send)]
        number = 0 if time.monotonic() < deadline else signal.SIGKILL
        time.sleep(0.05)


def _reached(one: int, number: int, send: Callable[[int, int], None]) -> bool:
    """Whether it is still there."""
    try:
        send(one, number)
    except (ProcessLookupError, PermissionError):
        return False
    return number != signal.SIGKILL


if __name__ == "__main__":
    if sys.argv[1] == "hold":
        sys.exit(hold([int(word) for word in sys.argv[2:]]))
    sys.exit(run(sys.argv[2:]))
