"""A scheduler's request to end soon: SIGTERM, or the end of the time that was allotted. Work ends
at a clean point, from which the run is resumed. Knows nothing of what the work is.

Work that is kept piece by piece, such as an exploration, is interrupted at once, as by Ctrl-C. Work
that is lost without a last step of its own, such as a training, runs in `at_clean_points` and asks
`requested` where it can end."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType

from rro.errors import RroError


class Stopped(RroError):
    """The work ended because a scheduler wanted it to: exit code 75 (EX_TEMPFAIL), for which it can
    be queued again."""

    exit_code = 75


_SOON = 0.01  # seconds

_requested = threading.Event()
_guarded = threading.Event()


def requested() -> bool:
    """Whether this process is to end."""
    return _requested.is_set()


@contextmanager
def listening(seconds: float | None = None) -> Iterator[None]:
    """Listen to SIGTERM, and stop after so many seconds; at the end a request is forgotten. Only in
    the main thread, to which signals go; elsewhere it does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _requested.clear()
    before = {kind: signal.signal(kind, _stop) for kind in (signal.SIGTERM, signal.SIGALRM)}
    # a script's shell starts what it puts into the background deaf to Ctrl-C
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, seconds or 0.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        for kind, handler in before.items():
            signal.signal(kind, handler)
        _requested.clear()


@contextmanager
def at_clean_points() -> Iterator[None]:
    """Around work that asks `requested` itself and is not to be interrupted. A second request
    interrupts it all the same."""
    _guarded.set()
    try:
        yield
    finally:
        _guarded.clear()


@contextmanager
def interruptions_last() -> Iterator[None]:
    """An interruption that comes in the middle of a finalizer, whose exceptions Python prints and
    drops, comes again once that is over, and is not printed."""
    before = sys.unraisablehook

    def again(dropped: sys.UnraisableHookArgs) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            before(dropped)
            return
        threading.Thread(target=_interrupt_after, args=(again.__code__,), daemon=True).start()

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before


def _interrupt_after(hook: CodeType) -> None:
    """Interrupt the main thread once it is out of the hook, in which that would be dropped, too."""
    main = threading.main_thread().ident or 0
    while any(
        frame.f_code is hook for frame, _ in traceback.walk_stack(sys._current_frames()[main])
    ):
        time.sleep(_SOON)
    if not (_requested.is_set() and _guarded.is_set()):
        os.kill(os.getpid(), signal.SIGINT)


def _stop(number: int, frame: FrameType | None) -> None:
    again = _requested.is_set()
    _requested.set()
    if again or not _guarded.is_set():
        # as Ctrl-C does: an event loop cancels what runs in it
        os.kill(os.getpid(), signal.SIGINT)
