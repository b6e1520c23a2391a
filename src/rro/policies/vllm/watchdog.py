"""Runs a command and ends it, with every process of its group, when standard input closes.

However the process that holds the other end of the pipe ends, also by SIGKILL, the kernel closes
the pipe, so nothing stays behind. Uses the standard library alone and is run by path, because the
interpreter that it starts may be another environment's: `python watchdog.py COMMAND...`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

# seconds between SIGTERM and SIGKILL
GRACE = 10.0


def run(command: list[str]) -> int:
    """Run `command` until it ends or standard input closes. Returns its exit code."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_end_with_input, args=(child.pid,), daemon=True).start()
    code = child.wait()
    # its own children, if it died without ending them
    _end_group(child.pid)
    return code


def _end_with_input(group: int) -> None:
    while os.read(0, 1):
        pass
    _end_group(group)
    os._exit(1)


def _end_group(group: int) -> None:
    """Send SIGTERM to the group, and SIGKILL to what is left of it after GRACE seconds."""
    deadline = time.monotonic() + GRACE
    number: int = signal.SIGTERM
    while _send(group, number):
        # signal 0 only asks whether the group still exists
        number = 0 if time.monotonic() < deadline else signal.SIGKILL
        time.sleep(0.05)


def _send(group: int, number: int) -> bool:
    """Whether the group has to be waited for."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return number != signal.SIGKILL


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
