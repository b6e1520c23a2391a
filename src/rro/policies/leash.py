"""Runs a command and ends it, with every process of its group, when standard input closes.

Whoever holds the other end may be killed at any moment: then the kernel closes the pipe, and nothing is left behind.
Standard library alone, run by path: python leash.py COMMAND...
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

GRACE = 10.0  # seconds between asking and killing


def main(command: list[str]) -> int:
    """Returns the command's exit code."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_end_with_input, args=(child.pid,), daemon=True).start()
    code = child.wait()
    _end(child.pid)  # its own children, where it died without them
    return code


def _end_with_input(group: int) -> None:
    while os.read(0, 1):
        pass
    _end(group)
    os._exit(1)


def _end(group: int) -> None:
    """SIGTERM to the group, and SIGKILL to what is left of it after a while."""
    deadline = time.monotonic() + GRACE
    try:
        os.killpg(group, signal.SIGTERM)
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.05)
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # nobody is left


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
